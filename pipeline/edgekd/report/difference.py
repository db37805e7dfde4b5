"""Differences of two networks on the same samples: a gain or a loss only where the interval excludes zero."""

from __future__ import annotations

import math
from dataclasses import dataclass

from edgekd.report.metric import MetricWords
from edgekd.report.page import Tone
from edgekd.report.words import interval
from edgekd.results.fidelity import Figure
from edgekd.results.models import ModelRecord
from edgekd.results.run import RunResult

NOT_SHOWN = "no difference shown"
LEVEL = 0.05
"""Where a test stands in place of an interval: the p below which a difference is shown."""
SAME = 0.01
"""Share of an interval's width by which a float32 file may differ from its network and still stand for it."""


def excludes_zero(low: float | None, high: float | None) -> bool:
    """Tell whether an interval lies on one side of zero; one that is not known does not.

    Example:
        >>> excludes_zero(0.1, 0.4), excludes_zero(-0.1, 0.4), excludes_zero(0.0, 0.4), excludes_zero(None, None)
        (True, False, False, False)
    """
    return low is not None and high is not None and (low > 0 or high < 0)


@dataclass(frozen=True)
class Difference:
    """A value of a metric less another one, in ``run.json``'s unit, with its 95 % interval where there is one."""

    metric: MetricWords
    change: float
    low: float | None = None
    high: float | None = None

    @property
    def shown(self) -> bool:
        """True if it is more than the choice of samples explains."""
        return excludes_zero(self.low, self.high)

    @property
    def gain(self) -> float:
        """By how much it is better, negative where it is worse; 0 where no difference is shown."""
        return self.metric.gain(self.change, 0) if self.shown else 0.0

    @property
    def tone(self) -> Tone:
        """Its colour; none where no difference is shown."""
        return "good" if self.gain > 0 else "bad" if self.gain < 0 else ""

    @property
    def interval(self) -> str:
        """Its interval with a leading space, without the unit; empty where there is none, and of equal values."""
        if self.low is None or self.high is None or self.change == 0:
            return ""
        return interval(self.low * self.metric.factor, self.high * self.metric.factor)

    @property
    def size(self) -> str:
        """Its size with the unit, without sign: what is called higher, lower, gained or lost."""
        return f"{self.metric.size(self.change)} {self.metric.change_unit}".rstrip()

    @property
    def open(self) -> str:
        """The words for one that is not shown, with its figure and interval; of equal values, that they are."""
        if self.change == 0:
            return "no difference"
        change = f"{self.metric.change(self.change)} {self.metric.change_unit}".rstrip()
        return f"{NOT_SHOWN}, {change}{self.interval}"


def between(result: RunResult, own: ModelRecord, reference: ModelRecord, metric: MetricWords) -> Difference | None:
    """Return the difference of two networks or files on the test split; None where one was not measured.

    Its interval is the paired one where the run has it: of what is compressed against the float network, or against a
    float32 file of that. Elsewhere it is made of the intervals of both values.
    """
    of_own, of_reference = (model.figure(metric.facts.name, metric.of) for model in (own, reference))
    if of_own is None or of_reference is None:
        return None
    ends = _paired(result, own, reference, metric) or independent(of_own, of_reference) or (None, None)
    return Difference(metric, of_own.value - of_reference.value, *ends)


def independent(own: Figure, reference: Figure) -> tuple[float, float] | None:
    """Return the 95 % interval of a difference from those of both (Newcombe 1998, method 10); None where one has none.

    It takes them as independent. Networks that see the same samples are not, so that it is rather too wide.
    """
    if own.low is None or own.high is None or reference.low is None or reference.high is None:
        return None
    found = own.value - reference.value
    low = found - math.hypot(own.value - own.low, reference.high - reference.value)
    return low, found + math.hypot(own.high - own.value, reference.value - reference.low)


def _paired(result: RunResult, own: ModelRecord, reference: ModelRecord, metric: MetricWords) -> tuple[float, float] | None:
    close = own.fidelity
    drop = close.drops.get(metric.facts.name) if close else None
    if close is None or drop is None or drop.low is None or drop.high is None:
        return None
    if reference.name != close.reference and not _stands_for(result, reference, close.reference, metric, drop):
        return None
    low, high = sorted(-metric.gain(end, 0) for end in (drop.low, drop.high))  # a drop is more where it is worse
    return low, high


def _stands_for(result: RunResult, file: ModelRecord, name: str, metric: MetricWords, drop: Figure) -> bool:
    """Tell whether a float32 file is the network ``name`` to a reader: made from it, with its value up to rounding."""
    network = result.student()
    if network is None or network.name != name or file.role != "artifact" or file.precision != "float32":
        return False
    one, other = (model.figure(metric.facts.name, metric.of) for model in (file, network))
    if one is None or other is None or drop.low is None or drop.high is None:
        return False
    return abs(one.value - other.value) <= SAME * (drop.high - drop.low)
