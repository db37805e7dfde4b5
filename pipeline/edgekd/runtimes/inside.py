"""Looks into a file: the graph that its runtime makes of it, its layers' values, their steps.

A file says how values are stored. The runtime decides which kernel computes an operator, and where it has none in int8, or
where an activation function stands in the way of a fusion, it computes in float between two conversions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float32]

Samples: TypeAlias = "Sequence[Mapping[str, NDArray[Any]]]"
T = TypeVar("T")
INPUT, OUTPUT = "conversion of the input", "conversion of the output"


@dataclass(frozen=True)
class Operator:
    """An operator that a runtime computes in float.

    Attributes:
        kind: As the runtime names it.
        precision: ``float32``, ``float16`` or ``bfloat16``.
        scales: Scales of the int8 tensors that its result is rounded to, after other float operators too; none where the
            logits are.
        reason: Why it is in float, where the runtime's graph tells.
        edge: Whether it converts the input or the output of the file.
        does: Kind of the layer that it belongs to, where that is another one.
    """

    kind: str
    precision: str
    scales: tuple[float, ...]
    reason: str = ""
    edge: bool = False
    does: str = ""


@dataclass(frozen=True)
class Graph:
    """Operators in a runtime's graph of a file: number, those in float, and those that no delegate took.

    Attributes:
        runtime: Its name and version.
        delegates: What took operations, as ``results.runtime.Delegate`` has it.
    """

    runtime: str
    operators: int
    floats: tuple[Operator, ...]
    delegates: tuple[Mapping[str, Any], ...] = ()
    undelegated: tuple[str, ...] = ()


@dataclass(frozen=True)
class Tensor:
    """A quantized tensor for one input: its scale, and its values as floats, (1, C, H, W) or any other shape."""

    scale: float
    values: Array


@dataclass(frozen=True)
class Probe:
    """A tensor inside of a file, in the order of computation.

    Attributes:
        name: Of the output that it has become.
        step: Its int8 step; None where it is float.
        layer: The operator that computes it, in words.
    """

    name: str
    step: float | None = None
    layer: str = ""


@dataclass(frozen=True)
class Inside:
    """Access to values inside the files of a runtime.

    Attributes:
        graph: Load a file as edgekd and its snippets do, with one thread, and read the graph that the runtime made of it.
        tensors: Run a file on samples, each its inputs by name in the file's own layout, and give its quantized tensors for
            each.
        instrument: Write a file whose outputs are those of the first, and after them its inner tensors, to the second path;
            returns what was written, and its outputs in order. A runtime does not fuse across them, but runs the kernels
            that the file as it is used runs.
        steps: One int8 step of each output, in order, whatever type the file leaves it in; None where it is float inside.
    """

    graph: Callable[[Path], Graph]
    tensors: Callable[[Path, Samples], Iterator[list[Tensor]]]
    instrument: Callable[[Path, Path], tuple[Path, tuple[Probe, ...]]]
    steps: Callable[[Path], list[float | None]]


def follow(starts: Iterable[T], step: Callable[[T], Iterable[float | T]], kind: type[T]) -> tuple[float, ...]:
    """Return the scales that are reached from some tensors or nodes, each of which is visited once.

    Args:
        starts: Where to begin.
        step: Scales, and what of ``kind`` to go on with.
        kind: Of tensors or nodes.
    """
    scales: dict[float, None] = {}
    seen: set[T] = set()
    waiting = list(starts)
    while waiting:
        item = waiting.pop()
        if item not in seen:
            seen.add(item)
            for after in step(item):
                if isinstance(after, kind):
                    waiting.append(after)
                else:
                    scales[float(after)] = None  # type: ignore[arg-type]  # what is not of the kind is a scale
    return tuple(scales)


def dequantized(values: NDArray[Any], scale: float, zero_point: int) -> Array:
    """Return what integers stand for, float32."""
    import numpy as np

    return ((values.astype(np.float32) - np.float32(zero_point)) * np.float32(scale)).astype(np.float32)
