"""Attention-based fusion: what knowledge review trains beside the student."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.distill.arithmetic import full

WIDEST = 512
"""Most channels in which levels are fused (as in the authors' code)."""


class Fusion(nn.Module):
    """One attention-based fusion, ABF (Chen et al. 2021): a level of the student and what came from deeper ones.

    Args:
        width_in: Channels of the student's level.
        width: Channels in which levels are fused.
        width_out: Channels of the teacher's level.
        deepest: Whether there is no deeper level to fuse with.
    """

    def __init__(self, width_in: int, width: int, width_out: int, *, deepest: bool) -> None:
        super().__init__()
        self.enter = nn.Sequential(nn.Conv2d(width_in, width, 1, bias=False), nn.BatchNorm2d(width))
        self.attention = None if deepest else nn.Sequential(nn.Conv2d(2 * width, 2, 1), nn.Sigmoid())
        self.leave = nn.Sequential(nn.Conv2d(width, width_out, 3, padding=1, bias=False), nn.BatchNorm2d(width_out))
        for convolution in (self.enter[0], self.leave[0]):
            assert isinstance(convolution, nn.Conv2d)  # made above; a Sequential forgets the types
            nn.init.kaiming_uniform_(convolution.weight, a=1)

    def forward(self, level: Tensor, deeper: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return (N×width_out×H×W to compare with the teacher, N×width×H×W for the next shallower level).

        Args:
            level: The student's, N×width_in×H×W.
            deeper: The second result of the next deeper level, N×width×h×w, or None.
        """
        fused: Tensor = self.enter(level)
        if self.attention is not None:
            assert deeper is not None  # only the deepest level has none, and it has no attention
            residual = F.interpolate(deeper, size=level.shape[2:], mode="nearest")
            shares = self.attention(torch.cat((fused, residual), dim=1))
            fused = fused * shares[:, :1] + residual * shares[:, 1:]
        return self.leave(fused), fused


class Review(nn.Module):
    """The fusions of all levels, shallow to deep; the deepest is the last map's mean over its pixels.

    Args:
        ours: Channels of the student's levels, shallow to deep.
        theirs: Channels of the teacher's levels.
    """

    def __init__(self, ours: Sequence[int], theirs: Sequence[int]) -> None:
        super().__init__()
        width = min(WIDEST, ours[-1])
        deepest = len(ours) - 1
        self.fusions = nn.ModuleList(
            Fusion(a, width, b, deepest=level == deepest) for level, (a, b) in enumerate(zip(ours, theirs, strict=True))
        )

    def forward(self, levels: Sequence[Tensor]) -> list[Tensor]:
        """Return what is compared with the teacher at each level, shallow to deep, from the student's levels."""
        reviewed: list[Tensor] = []
        deeper = None
        for fusion, level in zip(reversed(self.fusions), reversed(levels), strict=True):
            compared, deeper = fusion(level, deeper)
            reviewed.insert(0, compared)
        return reviewed


def widths(channels: Sequence[int]) -> list[int]:
    """Channels of the levels: those of the stages, and the last one's again for its mean."""
    return [*channels, channels[-1]]


def levels(features: Sequence[Tensor]) -> list[Tensor]:
    """The levels of knowledge review: the stages' maps and the last one's mean, N×C×1×1."""
    return [*features, features[-1].mean((2, 3), keepdim=True)]


def context(ours: Tensor, theirs: Tensor) -> Tensor:
    """Hierarchical context loss, HCL (Chen et al. 2021): mean squared error of pyramids of both maps.

    The maps themselves weigh 1; pooled to 4×4, 2×2 and 1×1 where that is smaller, each next size weighs half as much. The
    weights sum to 1.
    """
    sizes = [None, *(size for size in (4, 2, 1) if size < ours.shape[2])]
    weights = [2.0**-step for step in range(len(sizes))]
    errors = [F.mse_loss(_pooled(full(ours), size), _pooled(full(theirs), size)) for size in sizes]
    return torch.stack([weight * error for weight, error in zip(weights, errors, strict=True)]).sum() / sum(weights)


def _pooled(feature: Tensor, size: int | None) -> Tensor:
    return feature if size is None else F.adaptive_avg_pool2d(feature, size)
