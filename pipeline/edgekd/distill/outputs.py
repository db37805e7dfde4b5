"""Inputs of a loss, and the protocols of a loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn, Protocol, runtime_checkable

from edgekd.errors import ModelError
from edgekd.task.base import Criterion
from edgekd.task.image_classification import cross_entropy

if TYPE_CHECKING:
    from torch import Tensor, nn

    from edgekd.taps.pairing import Pair


_CLASSES = (
    "labels (int64, N), or values (float32, N×…) of a task without classes; a loss for classes sets needs = ('classes',)"
)


class RenamedError(ModelError, AttributeError):
    """A loss reads an attribute that has another name."""


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
        """Say what a loss has to read.

        Raises:
            RenamedError: It reads ``logits``.
        """
        if name == "logits":
            hint = "read primary: logits of a task with classes; a loss for logits sets needs = ('classes',)"
            raise RenamedError("student and teacher have no logits", hint)
        raise AttributeError(f"Outputs has no {name}", name=name, obj=self)


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

    def __getattr__(self, name: str) -> NoReturn:
        """Say what a loss has to read.

        Raises:
            RenamedError: It reads ``labels``.
        """
        if name == "labels":
            raise RenamedError("batch has no labels", f"read batch.target: {_CLASSES}")
        raise AttributeError(f"Batch has no {name}", name=name, obj=self)


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

    def __getattr__(self, name: str) -> NoReturn:
        """Say what an adapter has to read.

        Raises:
            RenamedError: It reads ``labels``.
        """
        if name == "labels":
            raise RenamedError("facts have no labels", f"read facts.targets: {_CLASSES}")
        raise AttributeError(f"Facts has no {name}", name=name, obj=self)


@runtime_checkable
class LossFunction(Protocol):
    """A registered loss: a subclass of :class:`edgekd.recipe.loss.Loss` that can be called."""

    def __call__(self, student: Outputs, teacher: Outputs | None, batch: Batch, adapter: nn.Module | None) -> Tensor:
        """Return the scalar loss of a batch; ``teacher`` is None where there is none."""


@runtime_checkable
class Adapting(Protocol):
    """A loss with a module that is trained beside the student."""

    def adapter(self, pairs: Sequence[Pair], facts: Facts) -> nn.Module | None:
        """Return the module, which is not shipped, or None where this pair of networks needs none."""


def adapter_of(loss: LossFunction, pairs: Sequence[Pair], facts: Facts) -> nn.Module | None:
    """Return the module that a loss trains beside the student; None for a loss that has none."""
    return loss.adapter(pairs, facts) if isinstance(loss, Adapting) else None


@runtime_checkable
class Reusing(Protocol):
    """A loss that gives the student a part of the teacher; it says so by ``reuses_teacher``, too."""

    def student(self, student: nn.Module, teacher: nn.Module, example: Tensor) -> nn.Module:
        """Return the network that is trained and shipped instead of the student."""


@runtime_checkable
class Softening(Protocol):
    """A loss that compares probabilities at a temperature."""

    @property
    def temperature(self) -> float:
        """The divisor of the logits."""
