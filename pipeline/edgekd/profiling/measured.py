"""From an agent's answers to the record of a variant."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from edgekd.devices.schema import Device
from edgekd.profiling import stats
from edgekd.profiling.agents.base import Agent
from edgekd.records_profile import Effective, LoadTime, Memory, ProfileRecord


@dataclass(frozen=True)
class Variant:
    """One artifact to measure.

    Attributes:
        model: Name of its model record, such as ``onnx_float``.
        runtime: Runtime, named by the format.
        path: The model file; of OpenVINO the .xml.
        inputs: By the name of an input, an .npy file with a batch that is fed row by row; empty for random values that fit.
    """

    model: str
    runtime: Literal["onnx", "tflite", "openvino"]
    path: Path
    inputs: Mapping[str, Path] = field(default_factory=dict)


@dataclass
class Run:
    """A variant while it is measured: its agent and the agent's answers."""

    variant: Variant
    agent: Agent
    start: Mapping[str, Any] = field(default_factory=dict)
    warmup: Mapping[str, Any] = field(default_factory=dict)
    blocks: list[Mapping[str, Any]] = field(default_factory=list)
    end: Mapping[str, Any] = field(default_factory=dict)


def conditions(before: Mapping[str, Any], after: Mapping[str, Any], runs: Iterable[Run], emulated: bool) -> stats.Conditions:
    """What happened on the machine between two answers to ``state``.

    Args:
        before: Before the first block; empty if no agent answered.
        after: After the last one.
        runs: All variants, those that failed on the way too: their CPU time was not another process's.
        emulated: Whether the device is emulated.
    """
    if not before or not after:
        return stats.Conditions(0.0, 0.0, 1, emulated=emulated)
    wall = after["at"] - before["at"]
    busy, stolen = after["busy"] - before["busy"], after["steal"] - before["steal"]
    own = sum(run.blocks[-1]["spent_s"] - run.warmup["spent_s"] for run in runs if run.blocks)
    pinned = after.get("governor") == "powersave" and "pstate" not in after.get("driver", "")
    # The Raspberry Pi's bits 16 to 19 stay set since boot: only one that was not set before tells of this session.
    bits = int(after.get("firmware", "0"), 16) & ~(int(before.get("firmware", "0"), 16) & 0xF0000)
    return stats.Conditions(
        load_before=before["load"],
        load_after=after["load"],
        cores=after["cores"],
        others=max(0.0, busy - own) / wall,
        steal=stolen / (busy + stolen) if busy + stolen > 0 else 0.0,
        throttled=after["throttled"] > before["throttled"] or bits != 0,
        governor="powersave" if pinned else None,  # with a pstate driver that name means dynamic
        emulated=emulated,
    )


def record(run: Run, device: Device, threads: int, now: stats.Conditions, samples: str) -> ProfileRecord:
    """Make the record of a variant that was measured to the end.

    Args:
        run: All its answers.
        device: Where.
        threads: Threads that were asked for.
        now: The machine during the session.
        samples: Name of the file with its raw samples.
    """
    blocks = [block["samples"] for block in run.blocks]
    medians = stats.block_medians(blocks)
    busy = statistics.median(block["cpu_ms"] / block["wall_ms"] for block in run.blocks)
    worked = statistics.median_low(block["threads"] for block in run.blocks)
    peak, bare = run.end["peak_mib"], run.start["bare_mib"]
    return ProfileRecord(
        model=run.variant.model,
        device=device.name,
        emulated=device.emulated,
        effective=Effective(
            runtime=run.start["runtime"],
            threads=run.end["threads"] or worked,
            precision=precision(run.end["ops"]),
            delegate=run.end["delegate"],
        ),
        load_ms=LoadTime(cold=run.start["cold_ms"], warm=run.start["warm_ms"]),
        first_ms=run.start["first_ms"],
        warmup_ms=run.warmup["ms"],
        latency_ms=stats.latency(blocks),
        memory=Memory(peak=peak, runtime=bare, model=peak - bare),
        trust=stats.trust(medians, busy, worked, threads, now),
        blocks=medians,
        samples=samples,
        images=run.start["feeds"] if run.variant.inputs else 0,
    )


def precision(ops: Mapping[str, int]) -> str:
    """Say in what precision the operations were computed.

    Example:
        >>> precision({"int8": 12, "float32": 2})
        'int8 12, float32 2 of 14 operations'
        >>> precision({"int8": 12})
        'int8'
    """
    total = sum(ops.values())
    if len(ops) < 2:
        return next(iter(ops), "unknown")
    return ", ".join(f"{name} {count}" for name, count in sorted(ops.items(), reverse=True)) + f" of {total} operations"


def notes(runs: Iterable[Run], device: Device) -> Iterator[str]:
    """Yield remarks on figures that are not what their name says."""
    for run in runs:
        if not run.start["is_cold"]:
            yield (
                f"{run.variant.model} on {device.name}: the cold load is not cold: the file stayed in the page cache "
                "(its folder is in memory, or another process holds it)"
            )
