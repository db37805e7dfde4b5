"""The nouns that everything else uses: what goes into a network, what comes out of it, and what a task is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from edgekd.errors import DataError
from edgekd.metrics.base import facts
from edgekd.recipe.loss import Need
from edgekd.registry import tasks
from edgekd.results.models import TaskFacts

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from edgekd.metrics.base import Metric

Dtype = Literal["float32", "float16", "int64", "int32", "int16", "int8", "uint8", "bool"]
Kind = Literal["image", "signal", "features", "tokens", "mask", "logits", "boxes", "map", "values"]
"""What a port is to a reader: what preprocessing, a picture or an axis it can have. ``values`` promises nothing."""
BATCH = "N"


@dataclass(frozen=True)
class Port:
    """One logical input or output of a network. How it is quantized is the quantizer's matter, not the port's.

    Attributes:
        name: Unique among the inputs, or the outputs, of a signature.
        dims: Its sizes in order: a number, or the name of a size that is open. ``N``, the batch, comes first.
        dtype: Type of its numbers as the network takes or gives them.
        kind: What it is.

    Example:
        >>> Port("image", ("N", 3, 224, 224), kind="image").shape(8)
        (8, 3, 224, 224)
    """

    name: str
    dims: tuple[int | str, ...]
    dtype: Dtype = "float32"
    kind: Kind = "values"

    def shape(self, batch: int = 1, **sizes: int) -> tuple[int, ...]:
        """Return its sizes for a batch; ``sizes`` gives those that are open.

        Raises:
            KeyError: An open size is not given.
        """
        known = {BATCH: batch, **sizes}
        return tuple(known[dim] if isinstance(dim, str) else dim for dim in self.dims)

    def __str__(self) -> str:
        return f"{self.name} ({'×'.join(map(str, self.dims))} {self.dtype})"


@dataclass(frozen=True)
class Signature:
    """All inputs and outputs of a network.

    Attributes:
        inputs: In the order of the network's arguments.
        outputs: Those that are kept, in the order of files.
        primary: Name of the output that losses and the first metric read. Parity is held on every output.

    Raises:
        DataError: An input has the name of an output.
        ValueError: Two inputs or two outputs have the same name, or the primary output is none of the outputs.
    """

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    primary: str

    def __post_init__(self) -> None:
        for ports in (self.inputs, self.outputs):
            names = [port.name for port in ports]
            if len({*names}) < len(names):
                raise ValueError(f"two ports have the same name: {', '.join(names)}")
        if both := sorted({port.name for port in self.inputs} & {port.name for port in self.outputs}):
            raise DataError(
                f"{', '.join(both)} is the name of an input and of an output, and a file has one value of a name",
                "rename the input, which is NAME of x_train.NAME in an archive, or the output of the task",
            )
        if self.primary not in {port.name for port in self.outputs}:
            raise ValueError(f"{self.primary} is not an output")

    @property
    def output(self) -> Port:
        """The primary output."""
        return next(port for port in self.outputs if port.name == self.primary)


@dataclass(frozen=True)
class Samples:
    """Facts of a data set before a network is built: enough to derive the network's signature.

    Attributes:
        inputs: Of one sample, by name: shape without the batch, and type.
        classes: Names of the classes; empty where the target is none.
        target: Shape of one target; ``()`` for a label.
    """

    inputs: Mapping[str, tuple[tuple[int, ...], Dtype]]
    classes: tuple[str, ...] = ()
    target: tuple[int, ...] = ()


@dataclass(frozen=True)
class Purpose:
    """A task on samples of one kind: it decides how a network is built and called."""

    task: Task
    samples: Samples

    @property
    def signature(self) -> Signature:
        """The inputs and outputs of the network."""
        return self.task.signature(self.samples)

    @property
    def builder_args(self) -> Mapping[str, Any]:
        """Keyword arguments of the network's builder, beside the recipe's ``args``."""
        return self.task.builder_args(self.samples)


class Criterion(Protocol):
    """The criterion of a task: see :meth:`Task.criterion`."""

    def __call__(self, primary: Tensor, target: Tensor, smoothing: float, /) -> Tensor:
        """Return the scalar loss."""
        ...


class Task(Protocol):
    """The purpose of a network. Registered under its kind, such as ``image-classification``; see docs/extending.md."""

    kind: str
    """Its name in recipes and on model cards: the word of the Hugging Face hub where that has one."""
    gives: tuple[Need, ...]
    """Properties of its targets and its primary output that a loss may need (``needs`` of the loss)."""

    metrics: tuple[Metric, ...]
    """How good outputs are. The first decides the best epoch, the search, ``gates.drop`` and ``keep_float: auto``."""
    agreement: Metric
    """How far two sets of outputs are alike: its targets are the outputs of the reference."""

    def signature(self, samples: Samples) -> Signature:
        """Return what a network of this task takes and gives; a size that is not known yet stays open.

        Raises:
            DataError: The samples are not of this task.
        """
        ...

    def builder_args(self, samples: Samples) -> Mapping[str, Any]:
        """Return what the builder of a network is told beside the recipe's ``args``, such as ``{"num_classes": 10}``."""
        ...

    def stratum(self, targets: NDArray[Any]) -> NDArray[np.int64] | None:
        """Return by what the validation split is balanced, a number a sample; None: by nothing."""
        ...

    def criterion(self, primary: Tensor, target: Tensor, smoothing: float) -> Tensor:
        """Return the scalar loss with the true targets, the mean over the batch: the value of the loss ``task``.

        Args:
            primary: The primary output of a batch, float32.
            target: Its targets.
            smoothing: ``label_smoothing`` of the loss; other than 0 only where the task gives classes.
        """
        ...


def task_of(kind: str) -> Task:
    """Return the registered task.

    Raises:
        UsageError: There is none of this name, or its package cannot be imported.
    """
    task: Task = tasks.get(kind)()
    return task


def record(task: Task) -> TaskFacts:
    """Return what a record keeps of a task."""
    return TaskFacts(task.kind, tuple(facts(metric) for metric in task.metrics))
