"""The on-device section: for each device its trust block first, then times, memory and how steady they were."""

from __future__ import annotations

from collections.abc import Sequence

from edgekd.records_profile import ProfileRecord
from edgekd.report import facts
from edgekd.report.page import Block, Bullets, Cell, Column, Facts, Fold, Section, Table, Tone, figure
from edgekd.report.timing import Blocks, Range, drift, ranges
from edgekd.report.words import count, listing, mib, one_line, plural, sig, signed
from edgekd.rundir import RunResult


def profile(result: RunResult) -> Section:
    """Everything measured on every device."""
    title = "On the device"
    if not result.profiles:
        return Section("device", title, missing="No artifact was profiled on a device.")
    blocks: list[Block] = []
    for index, name in enumerate(facts.devices(result)):
        rows = [record for record in result.profiles if record.device == name]
        blocks += _device(result, f"device{index}", one_line(name), rows)
    return Section("device", title, tuple(blocks), _protocol(result))


def _protocol(result: RunResult) -> str:
    asked = facts.section_of(result, "profile")
    try:
        return (
            f"{asked['blocks']} blocks for each artifact, taking turns so that heat and load favour none; at least "
            f"{asked['block_runs']} inferences and {asked['block_ms']} ms a block, after at least "
            f"{asked['warmup_runs']} inferences and {asked['warmup_ms']} ms of warm-up. Batch 1."
        )
    except KeyError:
        return ""


def _device(result: RunResult, name: str, device: str, rows: Sequence[ProfileRecord]) -> list[Block]:
    labels = [facts.label_of(result, row.model) for row in rows]
    emulated = any(row.emulated for row in rows)
    where = f"{device} (emulated)" if emulated else device
    spans = [
        Range(
            label,
            row.latency_ms.p50,
            row.latency_ms.p90,
            row.latency_ms.p99,
            *row.latency_ms.ci,
            sig(row.latency_ms.p50),
            sig(row.latency_ms.p99),
            row.trust.verdict == "untrusted",
        )
        for label, row in zip(labels, rows, strict=True)
    ]
    steady = [
        Blocks(label, row.blocks, f"drift {_percent(row.trust.drift)} %", row.trust.verdict == "untrusted")
        for label, row in zip(labels, rows, strict=True)
        if row.blocks
    ]
    found: list[Block] = [
        _trust(where, labels, rows, emulated),
        ranges(name, where, spans, "Dot: p50, in the bar of its 95 % interval. Tick: p90. End: p99. △: not trusted."),
        _times(where, labels, rows),
        _memory(result, where, labels, rows),
    ]
    if steady:
        caption = "Each dot is the median of a block, against the artifact's own median. A slope is heat or load."
        found.append(drift(name, where, steady, caption))
    found.append(_evidence(where, labels, rows))
    samples = tuple(f"{label}: {one_line(row.samples)}" for label, row in zip(labels, rows, strict=True) if row.samples)
    if samples:
        found.append(Fold("Raw samples, one latency a line", (Bullets(samples),)))
    return found


def _percent(share: float) -> str:
    return signed(round(share * 100, 2))


def _trust(where: str, labels: Sequence[str], rows: Sequence[ProfileRecord], emulated: bool) -> Facts:
    doubted = [(label, row.trust) for label, row in zip(labels, rows, strict=True) if row.trust.verdict == "untrusted"]
    tone: Tone = "warn" if doubted or emulated else "good"
    pairs = [(label, one_line("; ".join(trust.reasons)) or "no reason was recorded") for label, trust in doubted]
    if emulated:
        pairs.insert(0, ("Emulated", "Times say nothing about the real device; correctness and files do."))
    loads = [load for row in rows for load in (row.trust.load_before, row.trust.load_after)]
    pairs += [
        ("Threads", listing(sorted({str(row.effective.threads) for row in rows}))),
        ("Spread of block medians", _between([row.trust.spread * 100 for row in rows], "%")),
        ("Load average, one minute", _between(loads)),
        ("Inferences measured", count(sum(row.latency_ms.n for row in rows))),
        ("Input", listing(sorted({_input(row) for row in rows}))),
    ]
    trusted = f"all {plural(len(rows), 'figure')} trusted" if len(rows) > 1 else "the figure is trusted"
    verdict = f"{len(doubted)} of {plural(len(rows), 'figure')} untrusted" if doubted else trusted
    if emulated:
        verdict = "not to be quoted"
    return Facts(tuple(pairs), f"{where}: {verdict}", tone)


def _input(row: ProfileRecord) -> str:
    return f"{plural(row.images, 'test image')}, in turn" if row.images else "random values"


def _between(values: Sequence[float], unit: str = "") -> str:
    low, high = sig(min(values)), sig(max(values))
    return f"{low if low == high else f'{low} to {high}'} {unit}".strip()


def _times(where: str, labels: Sequence[str], rows: Sequence[ProfileRecord]) -> Table:
    columns = ("p50", "p90", "p99", "Fastest", "Mean", "First inference", "Cold load", "Warm load", "Warm-up")
    body = []
    for label, row in zip(labels, rows, strict=True):
        doubt = row.trust.verdict == "untrusted"
        latency = row.latency_ms
        interval = f"{sig(latency.ci[0])} to {sig(latency.ci[1])}"
        name = Cell(label, "warn" if doubt else "", "untrusted" if doubt else "", mark=doubt)
        p90 = figure(sig(latency.p90), f"{sig(latency.ci_p90[0])} to {sig(latency.ci_p90[1])}" if latency.ci_p90 else "")
        steady = [p90, *(figure(sig(value)) for value in (latency.p99, latency.min, latency.mean))]
        once = [figure(sig(value)) for value in (row.first_ms, row.load_ms.cold, row.load_ms.warm, row.warmup_ms)]
        body.append((name, figure(sig(latency.p50), interval), *steady, *once, Cell(count(latency.n))))
    note = "Below p50 and p90: their 95 % intervals (bootstrap over blocks). Cold load: the file was out of the page cache."
    heads = *(Column(head, "ms", "number") for head in columns), Column("Inferences", "", "number")
    return Table(f"Times on {where}", (Column("Artifact"), *heads), tuple(body), note)


def _memory(result: RunResult, where: str, labels: Sequence[str], rows: Sequence[ProfileRecord]) -> Table:
    heads = ("File", "Runtime alone", "Added by the model", "Peak of the process")
    body = []
    for label, row in zip(labels, rows, strict=True):
        model = result.model(row.model)
        size = figure(mib(model.bytes) if model and model.bytes is not None else None)
        memory = row.memory
        body.append((Cell(label), size, *(figure(sig(v)) for v in (memory.runtime, memory.model, memory.peak))))
    note = "Peak: resident set of the measuring process (VmHWM). Runtime alone: the same process without a model."
    columns = (Column("Artifact"), *(Column(head, "MiB", "number") for head in heads))
    return Table(f"Memory on {where}", columns, tuple(body), note)


def _evidence(where: str, labels: Sequence[str], rows: Sequence[ProfileRecord]) -> Table:
    columns = (
        Column("Artifact"),
        Column("Verdict"),
        Column("Runtime"),
        Column("Precision"),
        Column("Delegate"),
        Column("Threads", "", "number"),
        Column("Drift", "%", "number"),
        Column("Spread", "%", "number"),
        Column("Load before", "", "number"),
        Column("Load after", "", "number"),
    )
    body = []
    for label, row in zip(labels, rows, strict=True):
        trust, used = row.trust, row.effective
        good = trust.verdict == "trusted"
        body.append(
            (
                Cell(label),
                Cell(trust.verdict, "good" if good else "warn", mark=True),
                *(Cell(one_line(text)) for text in (used.runtime, used.precision, used.delegate)),
                Cell(str(used.threads)),
                figure(_percent(trust.drift)),
                figure(sig(trust.spread * 100)),
                figure(sig(trust.load_before)),
                figure(sig(trust.load_after)),
            )
        )
    note = (
        "Runtime, precision, delegate and threads are read back from the runtime. Drift: last block against the first. "
        "Spread: interquartile range of the block medians. Load: one-minute average."
    )
    return Table(f"Why to believe the figures on {where}", columns, tuple(body), note)
