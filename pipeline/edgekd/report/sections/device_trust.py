"""The trust block of a device: why to believe its figures, and every measurement that was made again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from edgekd.errors import joined
from edgekd.profiling.verdicts import narrowed
from edgekd.report import facts
from edgekd.report import trust as words
from edgekd.report.page import Bullets, Facts, Tone
from edgekd.report.words import count, duration, one_line, plural, sig
from edgekd.results.profile import DeviceRecord, ProfileRecord
from edgekd.results.run import RunResult

EMULATED = "Times and memory are the emulator's and enter no verdict. Outputs are what the real device computes."
STAND_IN = "Times, memory and outputs are this machine's, which stands in for the device; times and memory enter no verdict."
WORDS = ("Governor", "Throttling")
"""Conditions that are no figures."""


def untrusted(rows: Sequence[ProfileRecord]) -> str:
    """Say of how many files of a device the times are untrusted."""
    doubted = sum(row.trust.verdict == "untrusted" for row in rows)
    return f"times of {count(doubted)} of {plural(len(rows), 'file')} untrusted"


def why(result: RunResult) -> tuple[Bullets, ...]:
    """Return a line a device with the reasons why its times are untrusted; nothing where all are trusted."""
    lines = []
    for name in dict.fromkeys(row.device for row in result.profiles):
        rows = [row for row in result.profiles if row.device == name]
        reasons = [reason for row in rows for reason in row.trust.reasons if row.trust.verdict == "untrusted"]
        if any(row.trust.verdict == "untrusted" for row in rows):
            told = one_line("; ".join(words.summed(reasons))) or "no reason was recorded"
            lines.append(f"{facts.device_label(result, name)}: {untrusted(rows)}: {told}")
    return (Bullets(tuple(lines), "Why times are untrusted"),) if lines else ()


def trust(
    where: str, labels: Sequence[str], rows: Sequence[ProfileRecord], device: DeviceRecord | None, noun: str = "image"
) -> Facts:
    """Say whether the figures of a device are trusted, with every reason and the conditions they were measured under."""
    doubted = [(label, row.trust) for label, row in zip(labels, rows, strict=True) if row.trust.verdict == "untrusted"]
    emulated = any(row.emulated for row in rows)
    tone: Tone = "warn" if doubted or emulated else "good"
    here = device is not None and device.transport == "host"
    pairs = [("Emulated", STAND_IN if here else EMULATED)] if emulated else []
    same: dict[str, list[str]] = {}
    for label, trust in doubted:
        same.setdefault(one_line(words.reasons(trust)) or "no reason was recorded", []).append(label)
    pairs += [(joined(named), reasons) for reasons, named in same.items()]
    for label, row in zip(labels, rows, strict=True):
        pairs += _attempts(label, row)
    pairs += _settings(rows, noun)
    stamp = " EMULATED" if emulated else ""
    pairs += ((name, text + stamp if name not in WORDS else text) for name, text in _conditions(rows, device))
    verdict = untrusted(rows) if doubted else "the times are trusted"
    return Facts(tuple(pairs), f"{where}: {'not to be quoted' if emulated else verdict}", tone)


def asked_otherwise(result: RunResult, row: ProfileRecord) -> tuple[str, ...]:
    """Name the settings that the runtime took otherwise than they were asked for: ``threads`` and ``precision``."""
    got = row.effective
    found = ["threads"] if got.asked_threads not in (None, got.threads) else []
    return (*found, *(["precision"] if narrowed(row, result.model(row.model)) else []))


def _attempts(label: str, row: ProfileRecord) -> Iterator[tuple[str, str]]:
    for number, attempt in enumerate(row.attempts, 1):
        p50 = f"; p50 {sig(attempt.p50)} ms" if attempt.p50 is not None else ""
        why = one_line("; ".join(map(words.sentence, attempt.reasons)))
        verdict, again = (f"not trusted: {why}", "") if why else ("trusted", " with the files that were not")
        yield f"{label}, attempt {number}", f"{verdict}{p50}; measured again{again} after {duration(attempt.cooled_s)}"


def _settings(rows: Sequence[ProfileRecord], noun: str) -> Iterator[tuple[str, str]]:
    yield "Measured by", joined(sorted({one_line(row.agent) for row in rows}))
    yield "Threads", joined(sorted({str(row.effective.threads) for row in rows}))
    pinned = {row.cores for row in rows}
    yield (
        "Cores",
        joined(sorted({f"pinned to {', '.join(map(str, cores))}" if cores else "not pinned" for cores in pinned})),
    )
    runs = [row.warmup_runs for row in rows if row.warmup_runs is not None]
    if runs:
        steady = [row.warmup_steady for row in rows if row.warmup_steady is not None]
        until = ", until the times were steady" if steady and all(steady) else ""
        until = ", and the times were not steady yet" if not all(steady) else until
        yield "Warm-up", f"{count(min(runs))}{f' to {count(max(runs))}' if max(runs) > min(runs) else ''} inferences{until}"
    yield "Inferences measured", count(sum(row.latency_ms.n for row in rows))
    yield "Input", joined(sorted({_input(row, noun) for row in rows}))


def _conditions(rows: Sequence[ProfileRecord], device: DeviceRecord | None) -> Iterator[tuple[str, str]]:
    yield "Spread of block medians", between([row.trust.spread * 100 for row in rows], "%")
    yield (
        "Load average, one minute",
        between([load for row in rows for load in (row.trust.load_before, row.trust.load_after)]),
    )
    governors = sorted({row.governor for row in rows if row.governor})
    if governors and not (device and device.governor in governors):
        yield "Governor", one_line(joined(governors))
    states = [state for row in rows for state in row.states]
    busy = [state.others for state in states if state.others is not None]
    if busy:
        yield "Other processes", f"{between(busy)} cores busy"
    heat = [state.celsius for state in states if state.celsius is not None]
    if heat:
        before = f"{device.celsius:.0f} °C before, " if device and device.celsius is not None else ""
        ends = dict.fromkeys(f"{celsius:.0f}" for celsius in (min(heat), max(heat)))
        yield "Temperature", f"{before}{' to '.join(ends)} °C after the blocks"
    clock = [state.mhz for state in states if state.mhz is not None]
    if clock:
        yield "Clock of the fastest core", between(clock, "MHz")
    if states:
        hot = sorted({index + 1 for row in rows for index, state in enumerate(row.states) if state.throttled})
        told = f"newly reported in block {joined([str(number) for number in hot])}" if hot else "none newly reported"
        yield "Throttling", told
    pace = [row.reference_ms for row in rows if row.reference_ms is not None]
    if pace:
        what = next((row.reference for row in rows if row.reference), "")
        told = f"{one_line(what)}: {between(pace, 'ms')}" if what else between(pace, "ms")
        yield "Reference workload", f"{told} (a slow machine makes it slow, a slow model does not)"


def _input(row: ProfileRecord, noun: str) -> str:
    return f"{plural(row.images, f'test {noun}')}, in turn" if row.images else "random values"


def between(values: Iterable[float], unit: str = "") -> str:
    """Write the smallest and the largest of some figures."""
    found = list(values)
    low, high = sig(min(found)), sig(max(found))
    return f"{low if low == high else f'{low} to {high}'} {unit}".strip()
