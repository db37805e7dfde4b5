"""From raw samples to figures that may be believed, or not.

All samples of all blocks are pooled and none is thrown away: an outlier is what a user would see. Percentiles are
interpolated linearly between samples. Samples within a block resemble each other (frequency, heat, neighbours), so
the intervals of the percentiles resample whole blocks, not samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from edgekd.results.findings import Finding
from edgekd.results.profile import Latency, Trust

DRIFT_LIMIT = 0.10
"""The last block's median may differ by this much from the first one's: warm-up, heat or a changed clock."""
SPREAD_LIMIT = 0.15
"""Interquartile range of the block medians over their median."""
OTHERS_LIMIT = 0.25
"""Share of the machine's cores that other processes may use while blocks run."""
STEAL_LIMIT = 0.05
"""Share of the CPU time asked for that a hypervisor may give to other machines."""
BUSY_LIMIT = 0.90
"""CPU time over wall time of a block; below it the process was waiting for its turn."""


Cure = Literal["", "again", "cool"]


@dataclass(frozen=True)
class Doubt:
    """A reason not to trust a figure, and what may help: to measure again, after a cool-down, or nothing."""

    fact: Finding
    cure: Cure = ""

    @property
    def text(self) -> Finding:
        """The reason, by the name that :mod:`edgekd.profiling.rounds` reads it by."""
        return self.fact


@dataclass(frozen=True)
class Conditions:
    """The machine while the blocks ran.

    Attributes:
        load_before: One-minute load average before the session. Reported only: it still holds the training before it.
        load_after: The same after.
        cores: Number of logical cores.
        others: Cores that other processes kept busy, on average; ``None`` if unreadable, and nothing is trusted then.
        steal: Share of the CPU time asked for that the hypervisor gave to others.
        throttled: Numbers of the rounds, from 1, in which throttling was reported, each with its cause in words.
        governor: Frequency governor; empty if unreadable.
        held_down: That governor holds the clock down.
        hot: Set by :mod:`edgekd.profiling.rounds`; always empty, because ``measured.Setting`` has how the session began.
        emulated: The device is emulated.
    """

    load_before: float
    load_after: float
    cores: int
    others: float | None = None
    steal: float = 0.0
    throttled: Mapping[int, str] = field(default_factory=dict)
    governor: str = ""
    held_down: bool = False
    hot: str = ""
    emulated: bool = False


def block_medians(blocks: Sequence[ArrayLike]) -> tuple[float, ...]:
    """Median of each block, in the order they ran (milliseconds in, milliseconds out)."""
    return tuple(float(np.median(np.asarray(block, dtype=np.float64))) for block in blocks)


def latency(blocks: Sequence[ArrayLike], *, seed: int = 0) -> Latency:
    """Summarize the steady samples (milliseconds) of one variant."""
    samples = np.concatenate([np.asarray(block, dtype=np.float64) for block in blocks])
    p50, p90, p99 = (float(value) for value in np.percentile(samples, [50, 90, 99]))
    return Latency(
        p50=p50,
        p90=p90,
        p99=p99,
        min=float(samples.min()),
        mean=float(samples.mean()),
        n=len(samples),
        ci=interval(blocks, 50, seed=seed),
        ci_p90=interval(blocks, 90, seed=seed),
    )


def summarized(blocks: Sequence[Mapping[str, float]], *, seed: int = 0) -> Latency:
    """Summarize a variant of whose blocks only figures are known (``n``, ``mean``, ``min``, ``median`` in milliseconds).

    Its p50 is the median of the blocks' medians; p90 and p99 cannot be known.
    """
    n = [int(block["n"]) for block in blocks]
    medians = [[block["median"]] for block in blocks]
    return Latency(
        p50=float(np.median(medians)),
        p90=None,
        p99=None,
        min=min(block["min"] for block in blocks),
        mean=float(np.average([block["mean"] for block in blocks], weights=n)),
        n=sum(n),
        ci=interval(medians, 50, seed=seed),
    )


def interval(blocks: Sequence[ArrayLike], percentile: float, *, resamples: int = 1000, seed: int = 0) -> tuple[float, float]:
    """95 % percentile-bootstrap interval of a percentile of the pooled samples, resampling whole blocks.

    With few blocks it is too narrow rather than too wide (with 3 there are 10 distinct resamples); the protocol's 7
    give 1716.

    Args:
        blocks: Samples of each block in milliseconds.
        percentile: 50 for the median, 0 to 100.
        resamples: Number of bootstrap resamples.
        seed: Seed of the resampling.
    """
    values = np.concatenate([np.asarray(block, dtype=np.float64) for block in blocks])
    owner = np.concatenate([np.full(np.size(block), index) for index, block in enumerate(blocks)])
    order = np.argsort(values, kind="stable")
    values, owner = values[order], owner[order]
    draws = np.random.default_rng(seed).integers(len(blocks), size=(resamples, len(blocks)))
    found = np.empty(resamples)
    for index, draw in enumerate(draws):
        # Drawing a block k times is giving its samples the weight k: one sort serves every resample.
        weights = np.bincount(draw, minlength=len(blocks))[owner].cumsum()
        place = (weights[-1] - 1) * percentile / 100  # among the sorted samples, from 0
        below = int(place)
        low, high = np.searchsorted(weights, [below + 1, min(below + 2, weights[-1])])
        found[index] = values[low] + (place - below) * (values[high] - values[low])
    low_end, high_end = np.percentile(found, [2.5, 97.5])
    return float(low_end), float(high_end)


def drift(medians: Sequence[float]) -> float:
    """Median of the last block over that of the first, minus 1."""
    return medians[-1] / medians[0] - 1


def spread(medians: Sequence[float]) -> float:
    """Interquartile range of the block medians over their median."""
    low, middle, high = np.percentile(medians, [25, 50, 75])
    return float((high - low) / middle)


def doubts(medians: Sequence[float], busy: float | None, threads: int, asked: int, conditions: Conditions) -> list[Doubt]:
    """Collect every reason not to believe the figures of one variant.

    Args:
        medians: Median of each block in milliseconds, in the order they ran.
        busy: CPU time over wall time of the blocks (median); None if unknown.
        threads: Threads that worked during the blocks.
        asked: Threads that were asked for.
        conditions: The machine during the session.
    """
    moved, width = drift(medians), spread(medians)
    return [
        *_when(abs(moved) > DRIFT_LIMIT, "drift", "again", change=moved),
        *_when(width > SPREAD_LIMIT, "spread", "again", share=width),
        *_when((busy or 1.0) < BUSY_LIMIT, "waited", "again", share=busy),
        *_when(threads > asked, "more_threads", worked=threads, asked=asked),
        *_machine(conditions),
    ]


def trust(medians: Sequence[float], reasons: Sequence[Doubt], conditions: Conditions) -> Trust:
    """Make the verdict on one variant's figures.

    Args:
        medians: Median of each block in milliseconds, in the order they ran.
        reasons: Every reason against it.
        conditions: The machine during the session.
    """
    return Trust(
        verdict="untrusted" if reasons else "trusted",
        reasons=tuple(reason.fact for reason in reasons),
        drift=drift(medians),
        spread=spread(medians),
        load_before=conditions.load_before,
        load_after=conditions.load_after,
    )


def _machine(now: Conditions) -> list[Doubt]:
    hot = [
        *_when(now.emulated, "emulated"),
        *(doubt("throttled", "cool", cause=cause, blocks=at) for cause, at in _by_cause(now.throttled).items()),
        *_when(now.held_down, "held_down", governor=now.governor),
    ]
    if now.others is None:
        return [doubt("load_unknown"), *hot]
    others, steal, limit = now.others, now.steal, OTHERS_LIMIT * now.cores
    return [
        *_when(others > limit, "other_processes", "again", busy=others, cores=now.cores),
        *_when(steal > STEAL_LIMIT, "other_machines", "again", share=steal),
        *hot,
    ]


def _by_cause(throttled: Mapping[int, str]) -> dict[str, list[int]]:
    return {cause: [at for at in sorted(throttled) if throttled[at] == cause] for cause in throttled.values()}


def doubt(code: str, cure: Cure = "", **figures: Any) -> Doubt:
    """Return a reason; its sentence is made in the report."""
    return Doubt(Finding(code, "warning", figures=figures), cure)


def _when(condition: bool, code: str, cure: Cure = "", **figures: Any) -> list[Doubt]:
    return [doubt(code, cure, **figures)] if condition else []
