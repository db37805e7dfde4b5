"""Discriminators, and the reversal that lets one loss train them and their opponent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm


class Reversal(torch.autograd.Function):
    """The identity whose gradient is turned round and multiplied: the gradient reversal layer of Ganin & Lempitsky 2015."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        """Return ``x``."""
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """Return −``factor`` times the gradient."""
        return -ctx.factor * gradients[0], None


class Discriminators(nn.Module):
    """One discriminator for each pair of layers, of features averaged over their pixels.

    Their layers are spectrally normalized (Miyato et al. 2018): with the student's learning rate a free discriminator is
    soon sure, and then its reversed gradient is nothing.

    Args:
        widths: (student's channels, teacher's channels) of each pair; where they differ, the student gets a linear map.
        hidden: Width of the two hidden layers of a discriminator.
    """

    def __init__(self, widths: Sequence[tuple[int, int]], hidden: int) -> None:
        super().__init__()
        self.maps = nn.ModuleList(nn.Identity() if ours == theirs else nn.Linear(ours, theirs) for ours, theirs in widths)
        self.judges = nn.ModuleList(_judge(theirs, hidden) for _, theirs in widths)

    def forward(self, student: Sequence[Tensor], teacher: Sequence[Tensor], factor: float) -> list[tuple[Tensor, Tensor]]:
        """Return for each pair (what is thought of the student's features, of the teacher's), N×1: high for a teacher.

        The student and its map get −``factor`` times the gradient that a discriminator's input has.
        """
        judged = []
        for adapt, judge, ours, theirs in zip(self.maps, self.judges, student, teacher, strict=True):
            turned = Reversal.apply(adapt(ours.mean((2, 3))), factor)  # type: ignore[no-untyped-call]  # torch's
            of_ours, of_theirs = judge(torch.cat((turned, theirs.mean((2, 3))))).chunk(2)
            judged.append((of_ours, of_theirs))
        return judged


def _judge(width: int, hidden: int) -> nn.Sequential:
    layers = [spectral_norm(nn.Linear(a, b)) for a, b in ((width, hidden), (hidden, hidden), (hidden, 1))]
    return nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])
