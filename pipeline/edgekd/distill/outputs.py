"""Inputs of a loss, and the protocol of a loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor, nn

    from edgekd.taps.pairing import Pair


@dataclass(frozen=True)
class Outputs:
    """Logits (N×classes) and the features of the paired layers, in the order of the pairs.

    A feature is a map (N×C×H×W, tokens too, without those of no place), of the same height and width in student and teacher;
    for a loss that reads embeddings, N×D; for one that reads attention, queries, keys and values, N×3×heads×tokens×C, whose
    scores are ``q kᵀ / √C``. For one that reads the student's own stages, the teacher is the student, without a gradient,
    and each map has its own size.
    """

    logits: Tensor
    features: tuple[Tensor, ...] = ()


@dataclass(frozen=True)
class Batch:
    """The images' labels (int64, N) and which of the training images they are (int64, N)."""

    labels: Tensor
    indices: Tensor


@dataclass(frozen=True)
class Facts:
    """Facts known before training: the number of classes and of training images, and the label of each (int64, N)."""

    classes: int
    images: int
    labels: Tensor | None = None


class LossFunction(Protocol):
    """A registered loss: a subclass of :class:`edgekd.recipe.loss.Loss` that can be called."""

    def adapter(self, pairs: Sequence[Pair], facts: Facts) -> nn.Module | None:
        """Return what is trained for this loss beside the student and left behind afterwards, or None."""

    def __call__(self, student: Outputs, teacher: Outputs | None, batch: Batch, adapter: nn.Module | None) -> Tensor:
        """Return the scalar loss of a batch; ``teacher`` is None where there is none."""
