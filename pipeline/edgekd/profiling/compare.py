"""Is one measurement faster than another? An interval of the ratio of their times, or the reason why there is none.

What is compared is the pace of each block: the lower quartile of its times, which other work on the device disturbs least
(p50 stands beside it in the records). Two ways:

- ``in_one_session``: both files were measured in one session. Blocks of one round are neighbours in time, so that a machine
  that changes its speed changes both; the interval is that of the median ratio over rounds by the sign test, which asks
  nothing of how the ratios scatter. This is the strong way: measure the earlier file again beside the new one.
- ``over_sessions``: only the figures of the earlier run are there. The ratio is scaled by the pace of the reference
  workload, and the interval holds that sessions of one file differ, so that only large differences are shown.

``tests/protocol/`` measures how often either way is right.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.profiling.participants import REFERENCE
from edgekd.recipe.profile import Profile
from edgekd.results.findings import Finding
from edgekd.results.profile import Comparison, ProfileRecord

LEVEL = 0.99
"""Of the intervals."""
Z = 2.575829
"""99.5 % quantile of the normal distribution."""
PROCESS = 0.01
"""Two processes with one file differ by up to this much (where their memory lies); the intervals are wider by it."""
SESSION = 0.05
"""Standard deviation of the logarithm of one file's scaled pace from session to session, as tests/protocol/ found it."""
PACE_LIMIT = 0.25
"""The reference workload may have another pace by this much; beyond it the device was in another state."""
CLOCK_LIMIT = 0.20
"""The clock may be another one by this much."""
LEAST_ROUNDS = 8
"""Fewer have no 99 % interval."""


def protocol(base: Profile) -> Profile:
    """Return the protocol for a comparison in one session: many rounds of short blocks.

    Args:
        base: Its threads and warm-up are taken over.
    """
    return base.model_copy(update={"blocks": 60, "block_ms": 25, "block_runs": 5})


def paces(raw: Path, model: str) -> tuple[float, ...]:
    """Read the pace of each block of a model, in milliseconds and in the order of rounds, from a session's raw samples.

    Args:
        raw: ``DEVICE.jsonl`` of the session; where it was measured again, the last attempt counts.
        model: Name of the model, or ``REFERENCE``.
    """
    lines = [json.loads(line) for line in raw.read_text(encoding="utf-8").splitlines()]
    mine = [line for line in lines if line["model"] == model]
    last = max((line.get("attempt", 1) for line in mine), default=1)
    return tuple(_pace(line) for line in mine if line.get("attempt", 1) == last)


def in_one_session(now: ProfileRecord, before: ProfileRecord, raw: Path) -> Comparison:
    """Compare two files that were measured in one session.

    Args:
        now: Record of the file in question.
        before: Record of the file to compare it with.
        raw: Raw samples of the session.
    """
    ours, theirs = paces(raw, now.model), paces(raw, before.model)
    reasons = [*_emulated(now), *_others(now, before, ("threads", "cores", "inputs"))]
    if len(ours) != len(theirs) or len(ours) < LEAST_ROUNDS:
        together = min(len(ours), len(theirs))
        reasons.append(Finding("few_rounds", figures={"rounds": together, "least": LEAST_ROUNDS}))
    if reasons:
        return _refused(now, before, "one session", reasons)
    ratios = [math.log(a / b) for a, b in zip(ours, theirs, strict=True)]
    low, high = sign_interval(ratios)
    return _decided(now, before, "one session", (statistics.median(ratios), low, high), scaled=False)


def over_sessions(now: ProfileRecord, before: ProfileRecord, raw: Path, raw_before: Path) -> Comparison:
    """Compare a file with what an earlier session has measured of it.

    Args:
        now: Its record.
        before: Its record in the earlier session.
        raw: Raw samples of this session.
        raw_before: Raw samples of the earlier one.
    """
    keys = ("device", "agent", "runtime", "threads", "cores", "inputs", "governor")
    reasons = [*_emulated(now), *_others(now, before, keys), *_throttled(now, before), *_clock(now, before)]
    scale, scaled = 0.0, bool(now.reference) and now.reference == before.reference
    ours, theirs = paces(raw, now.model), paces(raw_before, before.model)
    if scaled:
        scale = math.log(_middle(paces(raw, REFERENCE)) / _middle(paces(raw_before, REFERENCE)))
        if abs(scale) > math.log(1 + PACE_LIMIT):
            reasons.append(Finding("other_pace", figures={"ratio": math.exp(scale)}))
    if reasons:
        return _refused(now, before, "two sessions", reasons)
    ratio = math.log(_middle(ours) / _middle(theirs)) - scale
    half = Z * math.sqrt(_error(ours) ** 2 + _error(theirs) ** 2 + 2 * SESSION**2)
    return _decided(now, before, "two sessions", (ratio, ratio - half, ratio + half), scaled)


def sign_interval(values: Sequence[float], level: float = LEVEL) -> tuple[float, float]:
    """Interval of the median by the sign test: from the k-th smallest value to the k-th largest.

    Args:
        values: At least as many as the level needs: 8 for 99 %.
        level: Probability at least that the median lies within.

    Example:
        >>> sign_interval([3.0, 1.0, 2.0, 5.0, 4.0, 8.0, 7.0, 6.0])
        (1.0, 8.0)
    """
    n, k, tail = len(values), 0, 2.0 ** -len(values)
    while 2 * tail <= 1 - level:
        k += 1
        tail += math.comb(n, k) / 2**n
    if not k:
        raise ValueError(f"{n} values have no {level:.0%} interval")
    ordered = sorted(values)
    return ordered[k - 1], ordered[n - k]


def changed(what: str, now: object, then: object) -> Finding:
    """Return the reason that ``what`` is another thing now than it was then."""
    values = (list(value) if isinstance(value, tuple) else value for value in (now, then))
    return Finding("changed", figures={"what": what, **dict(zip(("now", "then"), values, strict=True))})


def _pace(line: Mapping[str, Any]) -> float:
    """Lower quartile of a block, or its median where the agent gave no single times."""
    return float(np.percentile(line["samples_ms"], 25) if "samples_ms" in line else line["summary_ms"]["median"])


def _decided(
    now: ProfileRecord, before: ProfileRecord, way: str, logs: tuple[float, float, float], scaled: bool
) -> Comparison:
    ratio, low, high = (math.exp(value) for value in (logs[0], logs[1] - PROCESS, logs[2] + PROCESS))
    verdict = "slower" if low > 1 else "faster" if high < 1 else "no difference shown"
    return Comparison(now.model, before.model, now.device, way, verdict, ratio, low, high, scaled)  # type: ignore[arg-type]


def _refused(now: ProfileRecord, before: ProfileRecord, way: str, reasons: Sequence[Finding]) -> Comparison:
    return Comparison(now.model, before.model, now.device, way, "refused", reasons=tuple(reasons))  # type: ignore[arg-type]


def _emulated(now: ProfileRecord) -> Iterator[Finding]:
    if now.emulated:
        yield Finding("emulated_times")


def _others(now: ProfileRecord, before: ProfileRecord, keys: Sequence[str]) -> Iterator[Finding]:
    """What is another thing now than it was then; what was not recorded then is not compared."""
    for key in keys:
        holder = "effective" if key in ("runtime", "threads") else ""
        ours, theirs = (getattr(getattr(record, holder) if holder else record, key) for record in (now, before))
        if ours != theirs and theirs not in ("", ()):
            yield changed(key, ours, theirs)


def _throttled(now: ProfileRecord, before: ProfileRecord) -> Iterator[Finding]:
    for when, record in (("now", now), ("then", before)):
        if any(state.throttled for state in record.states):
            yield Finding("was_throttled", figures={"when": when})


def _clock(now: ProfileRecord, before: ProfileRecord) -> Iterator[Finding]:
    clocks = [[state.mhz for state in record.states if state.mhz] for record in (now, before)]
    if all(clocks):
        ours, theirs = (statistics.median(found) for found in clocks)
        if max(ours, theirs) > (1 + CLOCK_LIMIT) * min(ours, theirs):
            yield changed("clock", f"{ours:.0f} MHz", f"{theirs:.0f} MHz")


def _middle(values: Sequence[float]) -> float:
    return statistics.median(values)


def _error(values: Sequence[float]) -> float:
    """Standard error of the logarithm of the median block, from the median absolute deviation."""
    logs = [math.log(value) for value in values]
    middle = statistics.median(logs)
    deviation = 1.4826 * statistics.median(abs(value - middle) for value in logs)
    return 1.2533 * deviation / math.sqrt(len(logs))
