"""Inputs of a network: one tensor, or several by name."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeAlias

from edgekd.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor, nn

Inputs: TypeAlias = "Tensor | Mapping[str, Tensor]"
"""A tensor alone is an input called ``input``. The first dimension of each counts samples."""
ALONE = "input"


def named(inputs: Inputs) -> dict[str, Tensor]:
    """Return inputs by name."""
    return dict(inputs) if isinstance(inputs, Mapping) else {ALONE: inputs}


def count(inputs: Inputs) -> int:
    """Return how many samples there are.

    Raises:
        ModelError: The inputs differ in it, or one has no dimension that counts them.
    """
    sizes = {name: value.shape[0] if value.ndim else None for name, value in named(inputs).items()}
    if len({*sizes.values()}) != 1 or None in sizes.values():
        shapes = ", ".join(f"{name} {tuple(value.shape)}" for name, value in named(inputs).items()) or "none"
        raise ModelError(
            f"the inputs are of different numbers of samples: {shapes}",
            "let the first dimension of each input count samples",
        )
    (size,) = {*sizes.values()}
    return int(size)  # type: ignore[arg-type]  # not None, as was checked


def rows(inputs: Inputs, chosen: slice) -> dict[str, Tensor]:
    """Return a part of the samples."""
    return {name: value[chosen] for name, value in named(inputs).items()}


def batches(inputs: Inputs, size: int) -> list[dict[str, Tensor]]:
    """Return views of ``size`` samples each; the last may be smaller."""
    return [rows(inputs, slice(start, start + size)) for start in range(0, count(inputs), size)]


def arguments(network: nn.Module) -> tuple[str, ...]:
    """Return the names of the arguments of ``forward``; of a wrapper, those of the network inside it.

    A wrapper passes its inputs on by position and has the names as ``forward_arguments``. ``*args`` has no name.

    Raises:
        ModelError: ``forward`` takes one by keyword alone.
    """
    inside: tuple[str, ...] | None = getattr(network, "forward_arguments", None)
    if inside is not None:
        return inside
    ordered = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    takes = inspect.signature(network.forward).parameters
    by_name = [name for name, each in takes.items() if each.kind is each.KEYWORD_ONLY and each.default is each.empty]
    if by_name:
        raise ModelError(
            f"{type(network).__name__}.forward() takes {', '.join(by_name)} by keyword alone; edgekd gives inputs in order",
            "remove the * from the arguments of forward()",
        )
    return tuple(name for name, each in takes.items() if each.kind in ordered)


def by_position(network: nn.Module, names: Iterable[str]) -> bool:
    """Return True if a network gets several inputs in their given order, because no argument has the name of one."""
    given = {*names}
    return len(given) > 1 and not given & {*arguments(network)}


def in_order(network: nn.Module, inputs: Inputs) -> dict[str, Tensor]:
    """Return inputs in the order of the network's arguments.

    By name where ``forward`` has an argument for each, as a traced network has; where it has none, in the given order.

    Raises:
        ModelError: Only some of the inputs are arguments, or an argument between two inputs is no input, so that they cannot
            be given by position.
    """
    given, takes = named(inputs), arguments(network)
    fitting = [name for name in given if name in takes]
    if not fitting:
        return given
    if len(fitting) < len(given):
        raise ModelError(
            f"{type(network).__name__}.forward() takes {', '.join(takes)}, and the inputs are {', '.join(given)}: only "
            f"{', '.join(fitting)} {'is' if len(fitting) == 1 else 'are'} in both",
            "give the arguments of forward() the names of the inputs, or rename the inputs in the data",
        )
    first = takes[: len(given)]
    if given.keys() != {*first}:
        between = ", ".join(name for name in first if name not in given)
        after = ", ".join(name for name in given if name not in first)
        raise ModelError(
            f"{type(network).__name__}.forward() takes {between} before {after}, and {between} is no input",
            "write a network around it whose forward() takes the inputs alone",
        )
    return {name: given[name] for name in first}


def call(network: nn.Module, inputs: Inputs) -> Any:
    """Call a network with its inputs, each as the argument of its name: see :func:`in_order`.

    A group of networks, each with its own order, has ``takes_names`` and gets the inputs as they are.
    """
    if getattr(network, "takes_names", False):
        return network(inputs)
    return network(*in_order(network, inputs).values())


def with_arguments(network: nn.Module, names: Iterable[str]) -> nn.Module:
    """Give the ``forward`` of a wrapper named arguments in place of ``*args``, which a graph that is traced then has."""
    own: Any = type(network)

    @wraps(own.forward)
    def forward(self: Any, *inputs: Any) -> Any:
        return own.forward(self, *inputs)

    places = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in ("self", *names)]
    forward.__signature__ = inspect.Signature(places)  # type: ignore[attr-defined]  # inspect reads it
    network.__class__ = type(own.__name__, (own,), {"forward": forward, "__module__": own.__module__})
    return network
