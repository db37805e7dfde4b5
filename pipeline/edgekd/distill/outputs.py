"""What a network gives to a loss, and what a loss is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class Outputs:
    """Logits (N×classes) and the features of the paired layers (N×C×H×W each), adapted to each other's shape."""

    logits: Tensor
    features: tuple[Tensor, ...] = ()


class LossFunction(Protocol):
    """A registered loss: a subclass of :class:`edgekd.recipe.Loss` that can be called."""

    def __call__(self, student: Outputs, teacher: Outputs | None, labels: Tensor) -> Tensor:
        """Return the scalar loss of a batch; ``labels`` is int64, N; ``teacher`` is None where there is none."""


class FeatureLoss(LossFunction, Protocol):
    """A loss on pairs of layers."""

    def adapter(self, student_channels: int, teacher_channels: int) -> nn.Module | None:
        """Return what the student's feature passes through before it is compared, or None."""
