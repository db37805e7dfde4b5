"""What several seeds say: mean and standard deviation, paired differences with intervals, the price of many comparisons."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

CONFIDENCE = 0.95
SAME = 1e-9
"""Shares of images that differ by less are the same: differences of equal ones have other last bits."""


@dataclass(frozen=True)
class Spread:
    """Values of several seeds.

    Attributes:
        n: Number of seeds.
        mean: Their mean.
        sd: Their standard deviation with n - 1 in the denominator; None for one seed.
        low: Lower end of the mean's 95 % interval by Student's t; None for one seed, and where all values are the same:
            few seeds that agree to the image by chance are not certainty.
        high: Upper end.
    """

    n: int
    mean: float
    sd: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Paired:
    """Differences of two networks, seed by seed: both started from the same weights and saw the same order of images.

    Attributes:
        gain: The differences: their mean with its 95 % t-interval.
        p: Of the two-sided paired t-test; None where there is no interval.
        p_holm: The same after Holm's correction for the comparisons that stand beside it; None where it stands alone.
    """

    gain: Spread
    p: float | None = None
    p_holm: float | None = None


def spread(values: Sequence[float]) -> Spread:
    """Return mean, standard deviation and the t-interval of the mean (Student 1908, *The probable error of a mean*).

    Example:
        >>> spread([1.0, 2.0, 3.0]).sd
        1.0
    """
    n = len(values)
    mean = math.fsum(values) / n
    if n == 1:
        return Spread(1, mean)
    from scipy import stats

    sd = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    if max(values) - min(values) < SAME:
        return Spread(n, mean, 0.0)
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1)) * sd / math.sqrt(n)
    return Spread(n, mean, sd, mean - half, mean + half)


def paired(values: Sequence[float], others: Sequence[float]) -> Paired:
    """Compare two networks over the same seeds: the differences ``values`` - ``others``, and a paired t-test."""
    gain = spread([value - other for value, other in zip(values, others, strict=True)])
    if not gain.sd:
        return Paired(gain)
    from scipy import stats

    t = gain.mean / (gain.sd / math.sqrt(gain.n))
    return Paired(gain, float(2 * stats.t.sf(abs(t), gain.n - 1)))


def holm(p: Sequence[float | None]) -> list[float | None]:
    """Correct p-values for their number (Holm 1979, *A simple sequentially rejective multiple test procedure*).

    What is ``None`` was not tested and stays so.

    Example:
        >>> holm([0.01, None, 0.04])
        [0.02, None, 0.04]
    """
    tested = sorted((value, index) for index, value in enumerate(p) if value is not None)
    corrected: list[float | None] = [None] * len(p)
    highest = 0.0
    for rank, (value, index) in enumerate(tested):
        highest = max(highest, min(1.0, value * (len(tested) - rank)))
        corrected[index] = highest
    return corrected


def ranks(intervals: Sequence[tuple[float, float]]) -> list[tuple[int, int]]:
    """Return the best and the worst rank that each interval leaves open, 1 being the highest.

    Only an interval that lies wholly above another one is before it; where they overlap, both orders are possible.

    Example:
        >>> ranks([(5, 6), (1, 2), (1.5, 3)])
        [(1, 1), (2, 3), (2, 3)]
    """
    return [
        (
            1 + sum(other_low > high for other_low, _ in intervals),
            len(intervals) - sum(other_high < low for _, other_high in intervals),
        )
        for low, high in intervals
    ]
