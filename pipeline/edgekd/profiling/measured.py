"""From an agent's answers to the record of a variant."""

from __future__ import annotations

import hashlib
import statistics
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgekd.devices.schema import Device
from edgekd.profiling import stats
from edgekd.profiling.agents.base import Agent
from edgekd.profiling.variant import Variant
from edgekd.results.findings import Finding, Missing, said
from edgekd.results.profile import Attempt, BlockState, Effective, Latency, LoadTime, Memory, ProfileRecord
from edgekd.results.runtime import Delegate


@dataclass
class Run:
    """A variant while it is measured: its agent and the agent's answers.

    Attributes:
        rounds: The device's state before and after each block, beside ``blocks``.
        attempts: Measurements before this one that were not trusted.
    """

    variant: Variant
    agent: Agent
    start: Mapping[str, Any] = field(default_factory=dict)
    warmup: Mapping[str, Any] = field(default_factory=dict)
    blocks: list[Mapping[str, Any]] = field(default_factory=list)
    rounds: list[tuple[Mapping[str, Any], Mapping[str, Any]]] = field(default_factory=list)
    attempts: list[Attempt] = field(default_factory=list)
    end: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Setting:
    """Common facts of all records of a session.

    Attributes:
        device: Where.
        threads: Threads that were asked for.
        now: The machine during the session.
        began: Why it did not begin as cool as it should; None if it did.
        samples: The file with the raw samples, in the folder of the result.
        reference: The reference workload, measured like a variant; None where it could not be.
        trivial: By format, MiB by which a trivial model raises the peak of the bare runtime.
    """

    device: Device
    threads: int
    now: stats.Conditions
    samples: str
    reference: Run | None = None
    trivial: Mapping[str, float] = field(default_factory=dict)
    began: stats.Doubt | None = None


FLAGS = ("under-voltage", "clock capped by the firmware", "throttled", "soft temperature limit reached")
"""The Raspberry Pi's bits 0 to 3, now; bits 16 to 19 say the same of the time since boot."""


def throttling(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """Say in words what throttling happened between two states; empty if none.

    A bit since boot counts only where it was not set before; a bit of now counts always.
    """
    old, new = (int(state.get("firmware", "0"), 16) for state in (before, after))
    bits = new | (new & ~old) >> 16
    words = [name for place, name in enumerate(FLAGS) if bits >> place & 1]
    if after.get("throttled", 0) > before.get("throttled", 0) and "throttled" not in words:
        words.append("throttled")
    return " and ".join(sorted(words, key=lambda word: word != "throttled"))


def conditions(before: Mapping[str, Any], after: Mapping[str, Any], runs: Iterable[Run], emulated: bool) -> stats.Conditions:
    """Return the machine's events between two answers to ``state``.

    Args:
        before: Before the first block; empty if no agent answered.
        after: After the last one.
        runs: All variants, those that failed on the way too: their CPU time was not another process's.
        emulated: Whether the device is emulated.
    """
    runs = list(runs)
    own = sum(run.blocks[-1]["spent_s"] - run.warmup["spent_s"] for run in runs if run.blocks)
    governor = str(after.get("governor", ""))
    causes = {
        number: cause for run in runs for number, around in enumerate(run.rounds, start=1) if (cause := throttling(*around))
    }
    known = "busy" in before and "busy" in after
    busy = after["busy"] - before["busy"] if known else 0.0
    stolen = after["steal"] - before["steal"] if known else 0.0
    return stats.Conditions(
        load_before=before.get("load", 0.0),
        load_after=after.get("load", 0.0),
        cores=after.get("cores") or 1,
        others=max(0.0, busy - own) / (after["at"] - before["at"]) if known else None,
        steal=stolen / (busy + stolen) if busy + stolen > 0 else 0.0,
        throttled=causes,
        governor=governor,
        held_down=governor == "powersave" and "pstate" not in after.get("driver", ""),  # dynamic with a pstate driver
        emulated=emulated,
    )


def doubts(run: Run, setting: Setting) -> list[stats.Doubt]:
    """Every reason not to believe the figures of a variant."""
    device, allowed = setting.device, tuple(run.end.get("allowed", ()))
    pinned = [stats.doubt("other_cores", asked=list(device.cores), ran=list(allowed))] if device.cores else []
    return [
        *stats.doubts(_medians(run), _busy(run), _worked(run), setting.threads, setting.now),
        *([setting.began] if setting.began else []),
        *(pinned if run.end and allowed != tuple(sorted(device.cores)) else []),
    ]


def record(run: Run, setting: Setting) -> ProfileRecord:
    """Make the record of a variant that was measured to the end."""
    device, reference, variant = setting.device, setting.reference, run.variant
    fed = variant.inputs if run.start["feeds"] else {}
    return ProfileRecord(
        model=variant.model,
        device=device.name,
        emulated=device.emulated,
        effective=Effective(
            runtime=run.start["runtime"],
            threads=run.end["threads"] or max(1, _worked(run)),
            operations=dict(run.end["ops"]),
            delegates=_delegates(run.end),
            settings=dict(run.end.get("settings", {})),
            asked_threads=setting.threads,
        ),
        load_ms=LoadTime(
            run.start["cold_ms"], run.start["warm_ms"], None if run.start["cold_ms"] is None else run.start["is_cold"]
        ),
        first_ms=run.start["first_ms"],
        warmup_ms=run.warmup["ms"],
        warmup_runs=run.warmup.get("runs"),
        warmup_steady=run.warmup.get("steady"),
        latency_ms=_latency(run),
        memory=_memory(run, setting.trivial.get(variant.runtime)),
        trust=stats.trust(_medians(run), doubts(run, setting), setting.now),
        blocks=_medians(run),
        samples=setting.samples,
        images=run.end.get("feeds", run.start["feeds"]) if fed else 0,
        inputs=digest(fed),
        agent=run.start.get("agent", "python"),
        cores=tuple(run.end.get("allowed", ())) if device.cores else (),
        states=tuple(_states(run)),
        attempts=tuple(run.attempts),
        governor=setting.now.governor,
        reference_ms=pace(reference),
        reference=reference.start["runtime"] if reference else "",
    )


def p50(run: Run) -> float | None:
    """Median milliseconds of the last attempt so far."""
    samples = [ms for block in run.blocks for ms in block["samples"]] or _medians(run)
    return float(statistics.median(samples)) if samples else None


def pace(reference: Run | None) -> float | None:
    """Median milliseconds of the reference workload over all its blocks."""
    return p50(reference) if reference else None


def digest(inputs: Mapping[str, Path]) -> str:
    """Short digest of what is fed to a model; ``random`` where nothing is given."""
    if not inputs:
        return "random"
    whole = hashlib.sha256()
    for name, path in sorted(inputs.items()):
        whole.update(name.encode() + hashlib.sha256(path.read_bytes()).digest())
    return whole.hexdigest()[:16]


def _states(run: Run) -> Iterator[BlockState]:
    spent = run.warmup["spent_s"]
    for block, (before, after) in zip(run.blocks, run.rounds, strict=True):
        own, spent = block["spent_s"] - spent, block["spent_s"]
        others = None
        if "busy" in before and "busy" in after and after["at"] > before["at"]:
            others = max(0.0, after["busy"] - before["busy"] - own) / (after["at"] - before["at"])
        yield BlockState(
            after.get("celsius"), after.get("mhz"), bool(throttling(before, after)), others,
            after.get("battery_percent"), after.get("charging"),
        )  # fmt: skip


def _latency(run: Run) -> Latency:
    """From single times, or from the figures of each block where the agent gives no more."""
    if all("summary" in block for block in run.blocks):
        return stats.summarized([block["summary"] for block in run.blocks])
    return stats.latency([block["samples"] for block in run.blocks])


def _memory(run: Run, least: float | None) -> Memory:
    peak, bare = run.end["peak_mib"], run.start["bare_mib"]
    if bare is None:
        return Memory(peak, runtime=None, model=run.end["model_mib"])
    return Memory(peak, runtime=bare, model=peak - bare, trivial=None if least is None else bare + least)


def _medians(run: Run) -> tuple[float, ...]:
    return stats.block_medians(
        [[block["summary"]["median"]] if "summary" in block else block["samples"] for block in run.blocks]
    )


def _busy(run: Run) -> float | None:
    """CPU time over wall time of the blocks; None where the agent does not tell."""
    if any(block["wall_ms"] is None for block in run.blocks):
        return None
    return float(statistics.median(block["cpu_ms"] / block["wall_ms"] for block in run.blocks))


def _worked(run: Run) -> int:
    return int(statistics.median_low(block["threads"] for block in run.blocks))


def _delegates(end: Mapping[str, Any]) -> tuple[Delegate, ...] | None:
    """What took operations; None where the runtime does not tell."""
    told = end.get("delegates")
    return None if told is None else tuple(Delegate(**took) for took in told)


def notes(runs: Iterable[Run], device: Device) -> Iterator[Missing]:
    """Yield remarks on figures that are not what their name says."""
    for run in runs:
        found = [Finding("cold_load_is_warm")] if run.start["cold_ms"] is not None and not run.start["is_cold"] else []
        if not run.warmup.get("steady", True):
            found.append(Finding("not_steady", figures={"warmup_s": run.warmup["ms"] / 1000}))
        found += [said(note) for note in run.end.get("notes", ())]  # in the words of the agent
        yield from (Missing(reason, "", run.variant.model, device.name) for reason in found)
