"""Ranges from the distribution of a tensor's values: how much of a tail is worth a coarser grid.

All functions take a histogram and return (low, high) with low ≤ 0 ≤ high, as the int8 format needs zero on its grid.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

BINS = 2048  # as TensorRT and ONNX Runtime
_LEVELS = 256


@dataclass(frozen=True)
class Histogram:
    """Counts of values in equal bins.

    Attributes:
        counts: float64, (bins,).
        low: Lower edge of the first bin; 0 or less.
        high: Upper edge of the last bin; 0 or more, and above ``low``.
    """

    counts: Tensor
    low: float
    high: float

    @property
    def width(self) -> float:
        """Width of a bin."""
        return (self.high - self.low) / len(self.counts)

    @property
    def centers(self) -> Tensor:
        """Middle of each bin, float64, (bins,)."""
        return self.low + self.width * (torch.arange(len(self.counts), dtype=torch.float64) + 0.5)


def minmax(histogram: Histogram) -> tuple[float, float]:
    """The range of all values."""
    return histogram.low, histogram.high


def percentile(histogram: Histogram, share: float = 99.99) -> tuple[float, float]:
    """The range that keeps ``share`` % of the values, cutting the same number off both ends.

    Right to a bin's width.
    """
    tail = histogram.counts.sum() * (1 - share / 100) / 2
    below = torch.cumsum(histogram.counts, 0)
    above = torch.cumsum(histogram.counts.flip(0), 0)
    first = int(torch.searchsorted(below, tail, right=True).clamp(max=len(below) - 1))
    last = int(torch.searchsorted(above, tail, right=True).clamp(max=len(above) - 1))
    return min(histogram.low + first * histogram.width, 0.0), max(histogram.high - last * histogram.width, 0.0)


def mse(histogram: Histogram) -> tuple[float, float]:
    """The range with the least squared error of rounding and clipping to int8, each end in steps of 1/64.

    Source: Nagel et al., "A White Paper on Neural Network Quantization" (2021), eq. (15), searched on a grid: first in steps
    of 1/16, then around the best.
    """
    coarse = torch.arange(16, 0, -1, dtype=torch.float64) / 16
    low, high = _least_error(histogram, histogram.low * coarse, histogram.high * coarse)
    fine = torch.arange(3, -4, -1, dtype=torch.float64) / 64
    return _least_error(
        histogram,
        (low + histogram.low * fine).clamp(histogram.low, histogram.low / 64),
        (high + histogram.high * fine).clamp(histogram.high / 64, histogram.high),
    )


def _least_error(histogram: Histogram, lows: Tensor, highs: Tensor) -> tuple[float, float]:
    """The best of all pairs of ends; of equal ones the first."""
    filled = histogram.counts > 0
    values, counts = histogram.centers[filled], histogram.counts[filled]
    lows = lows if histogram.low < 0 else lows[:1]
    best, found = float("inf"), minmax(histogram)
    for low in lows.tolist():
        errors = _squared_error(values, counts, low, highs if histogram.high > 0 else highs[:1])
        index = int(errors.argmin())
        if float(errors[index]) < best:
            best, found = float(errors[index]), (low, float(highs[index]))
    return found


def _squared_error(values: Tensor, counts: Tensor, low: float, highs: Tensor) -> Tensor:
    """Sum of squared errors for the ranges (low, each of ``highs``), with the zero point on the grid: (len(highs),)."""
    scale = ((highs - low) / (_LEVELS - 1)).unsqueeze(1)
    zero = torch.round(-low / scale)
    levels = torch.clamp(torch.round(values / scale) + zero, 0, _LEVELS - 1)
    return ((levels - zero) * scale - values).square_() @ counts


def entropy(histogram: Histogram) -> tuple[float, float]:
    """The range |x| ≤ t, within the values', whose 256 levels lose the least information.

    What lies outside is counted at the ends; the levels are spread evenly over the bins they are made of that are not
    empty. The loss is the Kullback-Leibler divergence of the two distributions.

    Source: Migacz, "8-bit Inference with TensorRT" (GTC 2017).
    """
    counts, bins = histogram.counts.clone(), len(histogram.counts)
    edges = histogram.low + histogram.width * torch.arange(bins + 1, dtype=torch.float64)
    zero = int(torch.argmin(edges.abs()))
    # A ReLU's zeros lie on the grid whatever the range is. Counted, they would seem to be spread over the whole level.
    around = [index for index in (zero - 2, zero + 1) if 0 <= index < bins]
    counts[max(0, zero - 1) : zero + 1] = counts[around].mean()
    reach = max(zero, bins - zero)
    best, found = float("inf"), minmax(histogram)
    for distance in range(reach, 0, -max(1, reach // 128)):
        first, last = max(0, zero - distance), min(bins, zero + distance)
        if last - first < _LEVELS:
            break
        loss = _divergence(counts, first, last)
        if loss < best:
            best, found = loss, (min(float(edges[first]), 0.0), max(float(edges[last]), 0.0))
    return found


def _divergence(counts: Tensor, first: int, last: int) -> float:
    inside = counts[first:last]
    reference = inside.clone()
    reference[0] += counts[:first].sum()
    reference[-1] += counts[last:].sum()
    level = torch.arange(last - first) * _LEVELS // (last - first)
    filled = (reference > 0).double()
    total = torch.zeros(_LEVELS, dtype=torch.float64).index_add_(0, level, inside)
    bins = torch.zeros(_LEVELS, dtype=torch.float64).index_add_(0, level, filled)
    spread = filled * (total / bins.clamp(min=1))[level]
    p, q = reference / reference.sum(), spread / spread.sum()
    # A filled end whose bin was empty inside has no counterpart; it costs what the smallest count would.
    floor = 1 / float(counts.sum())
    terms = torch.where(p > 0, p * torch.log(p.clamp(min=1e-300) / q.clamp(min=floor * 1e-3)), 0.0)
    return float(terms.sum())
