"""Intervals and paired tests: shares, differences of shares, ratios in decibels, several seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

CONFIDENCE = 0.95
Z = 1.959964
"""97.5 % quantile of the normal distribution: 95 % of it lie within ± Z."""
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


def wilson(share: float, n: int) -> tuple[float, float]:
    """Return the 95 % interval of a share of ``n`` trials (Wilson 1927, JASA 22:209, score interval)."""
    centre = (share + Z * Z / (2 * n)) / (1 + Z * Z / n)
    half = Z / (1 + Z * Z / n) * math.sqrt(share * (1 - share) / n + Z * Z / (4 * n * n))
    # The ends are exact where the formula is only nearly so.
    return (centre - half if share > 0 else 0.0), (centre + half if share < 1 else 1.0)


def paired_shares(lost: int, gained: int, n: int) -> tuple[float, float]:
    """Return the 95 % interval of a difference of two shares that were measured on the same ``n`` samples.

    Wald's interval after half a count is added to each of the four cells, so that no change in a few samples is not
    certainty (Agresti & Min 2005, *Simple improved confidence intervals for comparing matched proportions*).

    Args:
        lost: Samples that only the first has right.
        gained: Samples that only the second has right.
        n: All samples.

    Returns:
        The ends of the interval of (lost - gained) / n, clipped to [-1, 1].

    Example:
        >>> low, high = paired_shares(0, 0, 3)
        >>> round(low, 2), round(high, 2)
        (-0.39, 0.39)
    """
    total, b, c = n + 2, lost + 0.5, gained + 0.5
    centre = (b - c) / total
    half = Z * math.sqrt(max(0.0, b + c - (b - c) ** 2 / total)) / total
    return max(-1.0, centre - half), min(1.0, centre + half)


def mean_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """Return the 95 % t-interval of the mean of independent values; None for fewer than two."""
    found = spread(values) if len(values) > 1 else None
    if found is None or found.sd is None:
        return None
    return (found.low, found.high) if found.low is not None and found.high is not None else (found.mean, found.mean)


def decibel_interval(signal: Sequence[float], noise: Sequence[float]) -> tuple[float, float] | None:
    """Return the 95 % interval of 10·log10(Σ signal / Σ noise) over independent samples; None where there is none.

    The logarithm of a ratio of means has the variance of (signal / mean signal - noise / mean noise) / n, to first order
    (delta method; Cochran 1977, *Sampling Techniques*, §6.3); Student's t for few samples.

    Args:
        signal: Power of the signal in each sample, at least 0.
        noise: Power of the noise in the same samples.
    """
    n = len(signal)
    mean_signal, mean_noise = math.fsum(signal) / n, math.fsum(noise) / n
    if n < 2 or mean_signal <= 0 or mean_noise <= 0:
        return None
    from scipy import stats

    parts = [s / mean_signal - e / mean_noise for s, e in zip(signal, noise, strict=True)]
    sd = math.sqrt(math.fsum(part * part for part in parts) / (n - 1))
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1)) * sd / math.sqrt(n) * 10 / math.log(10)
    ratio = 10 * math.log10(mean_signal / mean_noise)
    return ratio - half, ratio + half
