"""The one rule for which output of a network, or of a file, is a task's primary output.

A single output is the primary one. Of several, the one that has the port's name, such as ``logits``; else the only one of
the port's shape, such as (N, classes). Anything else is refused: a guess would train and ship another network than the
user's.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any

from edgekd.errors import ModelError
from edgekd.task.base import BATCH, Port

if TYPE_CHECKING:
    from torch import nn

LOGITS = Port("logits", (BATCH, "classes"), kind="logits")
"""The primary output of a classifier of any number of classes."""
Shape = tuple[int | None, ...]


@dataclass(frozen=True)
class Choice:
    """The primary output, out of several.

    Attributes:
        index: Its place.
        name: Its name; of a tuple its index.
        dropped: The others, each with its shape, as ``aux (1×10)``.
    """

    index: int
    name: str
    dropped: tuple[str, ...]


def choose(outputs: Sequence[tuple[str, Shape | None]], port: Port, what: str) -> Choice:
    """Choose by the rule above.

    Args:
        outputs: Names and shapes; a size, or a whole shape, is None where it is not known.
        port: The primary output of the task; an open size fits any.
        what: What has the outputs, for messages.

    Raises:
        ModelError: None or several of them may be it.

    Example:
        >>> choose([("0", (1, 10)), ("1", (1, 64, 8, 8))], LOGITS, "net.py:Net")
        Choice(index=0, name='0', dropped=('1 (1×64×8×8)',))
    """
    fitting = [index for index, (name, _) in enumerate(outputs) if name == port.name]
    if len(outputs) == 1:
        fitting = [0]
    if len(fitting) != 1:
        fitting = [index for index, (_, shape) in enumerate(outputs) if shape is not None and fits(shape, port)]
    if len(fitting) != 1:
        listed = ", ".join(shown(name, shape) for name, shape in outputs) or "none"
        wanted = f"({', '.join(map(str, port.dims))})"
        several = "several" if fitting else "none"
        raise ModelError(
            f"{what} has {len(outputs)} outputs: {listed}; {several} of them {'are' if fitting else 'is'} {wanted}, "
            f"and none is called {port.name}",
            f"return the {port.name} alone, or a dict that has them as `{port.name}`",
        )
    (index,) = fitting
    dropped = tuple(shown(name, shape) for place, (name, shape) in enumerate(outputs) if place != index)
    return Choice(index, outputs[index][0], dropped)


def tensors(output: object, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the tensors (or nodes of a traced graph) of an output that is nested in tuples, lists and mappings, by name."""
    if isinstance(output, Mapping):
        parts = list(output.items())
    elif isinstance(output, tuple) and hasattr(output, "_fields"):
        parts = list(zip(output._fields, output, strict=True))
    elif isinstance(output, list | tuple):
        parts = list(enumerate(output))
    else:
        if output is not None:
            yield prefix, output
        return
    for name, part in parts:
        yield from tensors(part, f"{prefix}.{name}" if prefix else str(name))


def answer(output: object, what: str, name: str = LOGITS.name) -> dict[str, Any]:
    """Return the outputs that a network ships by name, the primary one first.

    Of a mapping all are shipped, and the one that has the name of the primary output, or else the first, comes first.

    Args:
        output: What it returns: a tensor, or a mapping; tensors of a graph may be nodes.
        what: The network, for messages.
        name: Of the primary output.

    Raises:
        ModelError: It returns a tuple, whose parts have no names.
    """
    if isinstance(output, tuple | list):
        raise ModelError(f"{what} returns {len(output)} outputs without names", "return a dict, such as {'logits': x}")
    found = dict(tensors(output)) if isinstance(output, Mapping) else {name: output}
    return {each: found[each] for each in sorted(found, key=lambda each: each != name)}


def first(output: Any) -> Any:
    """Return the primary output of a network that edgekd built or traced: a tensor, or the first of several."""
    if isinstance(output, Mapping):
        output = next(iter(output.values()))
    return output[0] if isinstance(output, tuple) else output


def of(output: Any, name: str | None, what: str, port: Port = LOGITS) -> Any:
    """Take the primary one of a network's outputs.

    Args:
        output: What a network has returned: a tensor, or several.
        name: The name that was chosen; None: by the rule.
        what: The network, for messages.
        port: The primary output of the task.

    Raises:
        ModelError: It has no such output.
    """
    found = list(tensors(output))
    named = dict(found)
    if len(found) == 1:
        return found[0][1]
    if port.name in named or name in named:
        return named[port.name if port.name in named else str(name)]
    return found[choose([(key, getattr(value, "shape", None)) for key, value in found], port, what).index][1]


def keep(model: nn.Module, name: str, port: Port, others: Sequence[str] = ()) -> None:
    """Let a network return its primary output alone, in every mode. Its modules and the names of its weights stay.

    Its class is replaced, not wrapped: tracers call the ``forward`` of the class.

    Args:
        model: Changed in place.
        name: Of the primary output, as the network calls it; of a tuple its index.
        port: The primary output of the task.
        others: Outputs to return as well, in a mapping behind the primary one; in training mode a network may lack them.
    """
    what = type(model).__name__

    def change(output: Any) -> Any:
        chosen = of(output, name, what, port)
        rest = {key: value for key, value in tensors(output) if key in others}
        return {port.name: chosen, **rest} if rest else chosen

    _then(model, change)


def rearrange(model: nn.Module, order: Sequence[int] | None, *, probabilities: bool) -> None:
    """Let a network return logits in the order of the data's classes. Its modules and weights keep their names.

    Args:
        model: Returns N×classes.
        order: The output that belongs to each class of the data; None: they are in its order.
        probabilities: Whether it returns probabilities; their logarithms are its logits.
    """

    def change(output: Any) -> Any:
        output = output.clamp_min(1e-12).log() if probabilities else output
        return output if order is None else output[:, list(order)]

    if probabilities or order is not None:
        _then(model, change)


def _then(model: nn.Module, change: Callable[[Any], Any]) -> None:
    """Change what a network returns."""
    own: Any = type(model)
    forward: Callable[..., Any]
    if sum(p.default is p.empty for p in inspect.signature(own.forward).parameters.values()) == 2:

        def forward(self: Any, x: Any) -> Any:
            return change(own.forward(self, x))

    else:  # a tracer reads the names of the arguments of what is wrapped

        @wraps(own.forward)
        def forward(self: Any, *inputs: Any) -> Any:
            return change(own.forward(self, *inputs))

    model.__class__ = type(own.__name__, (own,), {"forward": forward, "__module__": own.__module__})


def fits(shape: Shape, port: Port) -> bool:
    """Return True if a shape may be that of the port; the batch, which comes first, is any."""
    pairs = zip(shape[1:], port.dims[1:], strict=False)
    return len(shape) == len(port.dims) and all(size is None or isinstance(dim, str) or size == dim for size, dim in pairs)


def shown(name: str, shape: Shape | None) -> str:
    """Name an output with its shape, such as ``aux (1×10)``."""
    sizes = "shape unknown" if shape is None else "×".join("?" if size is None else str(size) for size in shape)
    return f"{name} ({sizes})"
