"""Small networks that are trained beside the student for a feature loss, and left behind afterwards."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.taps.pairing import Pair

Mask = Literal["channels", "pixels"]


def widths(pairs: Sequence[Pair]) -> list[tuple[int, int]]:
    """Channels of the student and of the teacher, pair by pair."""
    return [(pair.student.channels, pair.teacher.channels) for pair in pairs]


def regressor(ours: int, theirs: int) -> nn.Module:
    """A 1×1 convolution from the student's width to the teacher's, or nothing where they agree."""
    return nn.Identity() if ours == theirs else nn.Conv2d(ours, theirs, 1)


def connector(ours: int, theirs: int) -> nn.Sequential:
    """1×1 convolution and batch norm (Heo et al. 2019, AAAI and ICCV; weights normal with variance 2 / ``theirs``)."""
    convolution = nn.Conv2d(ours, theirs, 1, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out")
    return nn.Sequential(convolution, nn.BatchNorm2d(theirs))


class MaskedGenerator(nn.Module):
    """Generates the teacher's map from a part of the student's (MGD, Yang et al. 2022).

    Args:
        ours: The student's channels.
        theirs: The teacher's channels.
        ratio: λ, the share that is masked.
        mask: Whether whole channels are masked, or pixels in all channels.
    """

    def __init__(self, ours: int, theirs: int, ratio: float, mask: Mask) -> None:
        super().__init__()
        self.ratio = ratio
        self.mask = mask
        self.align = regressor(ours, theirs)
        self.generation = nn.Sequential(
            nn.Conv2d(theirs, theirs, 3, padding=1), nn.ReLU(), nn.Conv2d(theirs, theirs, 3, padding=1)
        )

    def forward(self, feature: Tensor) -> Tensor:
        """Map N×ours×H×W to N×theirs×H×W; the mask is drawn from torch's generator of the feature's device."""
        aligned: Tensor = self.align(feature)
        n, c, h, w = aligned.shape
        kept = torch.rand((n, c, 1, 1) if self.mask == "channels" else (n, 1, h, w), device=feature.device) >= self.ratio
        out: Tensor = self.generation(aligned * kept)
        return out


class Gaussian(nn.Module):
    """q(t | s), a normal distribution of the teacher's map given the student's (VID, Ahn et al. 2019).

    Its mean is a network of three 1×1 convolutions; its variance, one for each channel, is softplus(α) + ε.

    Args:
        ours: The student's channels.
        theirs: The teacher's channels.
        variance: Of every channel at the start.
        epsilon: ε, the least variance.
    """

    def __init__(self, ours: int, theirs: int, variance: float, epsilon: float) -> None:
        super().__init__()
        self.epsilon = epsilon
        self.mean = nn.Sequential(
            nn.Conv2d(ours, theirs, 1, bias=False), nn.ReLU(),
            nn.Conv2d(theirs, theirs, 1, bias=False), nn.ReLU(),
            nn.Conv2d(theirs, theirs, 1, bias=False),
        )  # fmt: skip
        above = variance - epsilon
        self.alpha = nn.Parameter(torch.full((theirs,), above + math.log(-math.expm1(-above))))  # softplus(α) = above

    def forward(self, feature: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean, N×theirs×H×W, and variance, theirs×1×1."""
        return self.mean(feature), (F.softplus(self.alpha) + self.epsilon)[:, None, None]


class FactorAdapter(nn.Module):
    """Paraphraser of the teacher and translator of the student (Kim et al. 2018).

    Three 3×3 convolutions each, with leaky ReLU of slope 0.1; the paraphraser's decoder has three transposed ones.

    Args:
        ours: The student's channels.
        theirs: The teacher's channels.
        rate: k: a factor has k times the teacher's channels, rounded, at least one.
    """

    def __init__(self, ours: int, theirs: int, rate: float) -> None:
        super().__init__()
        factors = max(1, round(rate * theirs))
        self.paraphraser = _leaky(nn.Conv2d, (theirs, theirs, factors, factors))
        self.decoder = _leaky(nn.ConvTranspose2d, (factors, factors, theirs, theirs))
        self.translator = _leaky(nn.Conv2d, (ours, ours, factors, factors))


def _leaky(kind: type[nn.Conv2d | nn.ConvTranspose2d], channels: Sequence[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in pairwise(channels):
        layers += [kind(before, after, 3, padding=1), nn.LeakyReLU(0.1)]
    return nn.Sequential(*layers)


class Margin(nn.Module):
    """Margin ReLU of the teacher's map: max(x, m), m = E[x | x < 0] by channel (Heo et al. 2019, ICCV, σ_m).

    The expectation is the mean over all the negative values that were seen in training. The authors' code computes it from
    the batch norm in front, which only some architectures have, and as if its outputs were normal.

    Args:
        channels: Of the teacher's map.
    """

    total: Tensor
    count: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        # Exact for hours: in float32 the count would stand still at 2²⁴, which is a few hundred batches of large maps.
        self.register_buffer("total", torch.zeros(channels, dtype=torch.float64))
        self.register_buffer("count", torch.zeros(channels, dtype=torch.int64))

    @property
    def value(self) -> Tensor:
        """m, float64; 0 for a channel without negative values, which it does not change."""
        return self.total / self.count.clamp(min=1)

    def forward(self, feature: Tensor) -> Tensor:
        """Take N×C×H×W into the expectation, in training, and return its margin ReLU."""
        if self.training:
            with torch.no_grad():
                self.total += feature.clamp(max=0).sum((0, 2, 3), dtype=torch.float64)
                self.count += (feature < 0).sum((0, 2, 3))
        return torch.maximum(feature, self.value.to(feature.dtype)[:, None, None])


class MarginConnector(nn.Module):
    """Connector of the student and margin ReLU of the teacher (Heo et al. 2019, ICCV).

    Args:
        ours: The student's channels.
        theirs: The teacher's channels.
    """

    def __init__(self, ours: int, theirs: int) -> None:
        super().__init__()
        self.connector = connector(ours, theirs)
        self.margin = Margin(theirs)
