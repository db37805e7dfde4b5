"""Each range against an independent computation on the raw values."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from edgekd.quantization.histogram import BINS, Histogram, entropy, minmax, mse, percentile


def histogram_of(values: Tensor) -> Histogram:
    low, high = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
    return Histogram(torch.histc(values, BINS, low, high).double(), low, high)


def draw(kind: str, count: int = 20_000) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    normal = torch.randn(count, generator=generator)
    if kind == "relu":
        return normal.relu()
    if kind == "negative":
        return -normal.abs() - 1.0
    if kind == "outliers":
        return torch.cat([normal, torch.tensor([40.0, -25.0])])
    if kind == "skewed":
        return torch.exp(normal) - 0.5
    return normal


KINDS = ["normal", "relu", "negative", "outliers", "skewed"]


@pytest.mark.parametrize("kind", KINDS)
def test_minmax_is_the_range_with_zero(kind: str) -> None:
    values = draw(kind)
    assert minmax(histogram_of(values)) == (min(float(values.min()), 0.0), max(float(values.max()), 0.0))


@pytest.mark.parametrize("share", [90.0, 99.0, 99.9, 100.0])
@pytest.mark.parametrize("kind", KINDS)
def test_percentile_is_that_of_the_raw_values(kind: str, share: float) -> None:
    values, histogram = draw(kind), histogram_of(draw(kind))
    tail = (100 - share) / 2
    sample = 100 / len(values)  # the neighbours of a sparse tail may be further apart than a bin is wide
    ends = np.percentile(
        values.numpy(), np.clip([tail - sample, tail + sample, 100 - tail - sample, 100 - tail + sample], 0, 100)
    )
    low, high = percentile(histogram, share)
    assert min(ends[0], 0.0) - histogram.width <= low <= min(ends[1], 0.0) + histogram.width
    assert max(ends[2], 0.0) - histogram.width <= high <= max(ends[3], 0.0) + histogram.width


def int8_error(values: Tensor, low: float, high: float) -> float:
    """What torch's own fake quantization makes of the raw values with this range."""
    scale = (high - low) / 255
    zero_point = int(-128 - round(low / scale))
    return float((torch.fake_quantize_per_tensor_affine(values, scale, zero_point, -128, 127) - values).square().mean())


@pytest.mark.parametrize("kind", KINDS)
def test_mse_is_as_good_as_brute_force(kind: str) -> None:
    values = draw(kind)
    histogram = histogram_of(values)
    steps = [step / 24 for step in range(1, 25)]
    lows = [step * histogram.low for step in steps] if histogram.low else [0.0]
    highs = [step * histogram.high for step in steps] if histogram.high else [0.0]
    least = min(int8_error(values, low, high) for low, high in itertools.product(lows, highs))
    assert int8_error(values, *mse(histogram)) <= 1.03 * least


def test_mse_cuts_outliers_that_cost_more_than_they_are_worth() -> None:
    values = draw("outliers", 1_000_000)
    low, high = mse(histogram_of(values))
    assert -25.0 < low < -3.0
    assert 3.0 < high < 40.0


def test_entropy_cuts_outliers_and_keeps_the_body() -> None:
    values = draw("outliers", 1_000_000)
    low, high = entropy(histogram_of(values))
    body = torch.quantile(values[:100_000].abs(), 0.99)
    assert body < high < 10.0
    assert -10.0 < low < -body


def test_entropy_keeps_an_even_distribution_whole() -> None:
    values = torch.rand(500_000, generator=torch.Generator().manual_seed(0)) * 5 - 2
    low, high = entropy(histogram_of(values))
    assert low == pytest.approx(-2.0, abs=0.01)
    assert high == pytest.approx(3.0, abs=0.05)


def test_entropy_is_not_drawn_to_the_zeros_of_a_relu() -> None:
    """Zero lies on every grid; nine zeros in ten must not shrink the range of the others."""
    values = draw("relu", 200_000)
    sparse = torch.cat([values, torch.zeros(1_800_000)])
    assert entropy(histogram_of(sparse))[1] >= 0.9 * entropy(histogram_of(values[values > 0]))[1]


@pytest.mark.parametrize("choose", [minmax, percentile, mse, entropy])
def test_one_value_other_than_zero(choose: object) -> None:
    """A constant tensor: its value must be on the grid."""
    assert callable(choose)
    low, high = choose(histogram_of(torch.full((100,), 3.0)))
    assert low == 0.0
    assert high == pytest.approx(3.0, abs=3.0 / 60)
