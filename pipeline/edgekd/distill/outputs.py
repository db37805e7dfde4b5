"""Inputs of a loss, and the protocol of a loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn, Protocol

from edgekd.task.base import Criterion
from edgekd.task.image_classification import cross_entropy

if TYPE_CHECKING:
    from torch import Tensor, nn

    from edgekd.taps.pairing import Pair


@dataclass(frozen=True)
class Outputs:
    """The primary output, such as logits (N×classes), and the features of the paired layers, in the order of the pairs.

    A feature is a map (N×C×H×W, tokens too, without those of no place), of the same height and width in student and teacher;
    for a loss that reads embeddings, N×D; for one that reads attention, queries, keys and values, N×3×heads×tokens×C, whose
    scores are ``q kᵀ / √C``. For one that reads the student's own stages, the teacher is the student, without a gradient,
    and each map has its own size.
    """

    primary: Tensor
    features: tuple[Tensor, ...] = ()

    def __getattr__(self, name: str) -> NoReturn:
        """Say what a loss of an older edgekd has to read."""
        renamed = {"logits": "primary"}.get(name)
        raise AttributeError(f"Outputs has no {name}" + (f": read {renamed}" if renamed else ""))


@dataclass(frozen=True)
class Batch:
    """The targets of the samples and which of the training samples they are.

    Attributes:
        target: Labels (int64, N), or values (float32, N×…).
        indices: Places among the training samples (int64, N).
        criterion: The loss of a primary output with the targets, of the task.
    """

    target: Tensor
    indices: Tensor
    criterion: Criterion = cross_entropy


@dataclass(frozen=True)
class Facts:
    """Facts that are known before training.

    Attributes:
        classes: Number of classes; 0 for a task without classes.
        samples: Number of training samples.
        targets: The target of each.
        criterion: The loss of a primary output with the targets, of the task.
    """

    classes: int
    samples: int
    targets: Tensor | None = None
    criterion: Criterion = cross_entropy


class LossFunction(Protocol):
    """A registered loss: a subclass of :class:`edgekd.recipe.loss.Loss` that can be called."""

    def adapter(self, pairs: Sequence[Pair], facts: Facts) -> nn.Module | None:
        """Return what is trained for this loss beside the student and left behind afterwards, or None."""

    def __call__(self, student: Outputs, teacher: Outputs | None, batch: Batch, adapter: nn.Module | None) -> Tensor:
        """Return the scalar loss of a batch; ``teacher`` is None where there is none."""
