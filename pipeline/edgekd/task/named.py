"""Inputs of a network: one tensor, or several by name."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
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


def in_order(network: nn.Module, inputs: Inputs) -> dict[str, Tensor]:
    """Return inputs in the order of the network's arguments.

    By name where ``forward`` has an argument for each, as a traced network has; else the order is the given one.

    Raises:
        ModelError: An argument between two inputs is no input, so that they cannot be given by position.
    """
    given = named(inputs)
    arguments = list(inspect.signature(network.forward).parameters)
    if not given.keys() <= {*arguments}:
        return given
    first = arguments[: len(given)]
    if given.keys() != {*first}:
        between = ", ".join(name for name in first if name not in given)
        after = ", ".join(name for name in given if name not in first)
        raise ModelError(
            f"{type(network).__name__}.forward() takes {between} before {after}, and {between} is no input",
            "write a network around it whose forward() takes the inputs alone",
        )
    return {name: given[name] for name in first}


def call(network: nn.Module, inputs: Inputs) -> Any:
    """Call a network with its inputs by position."""
    return network(*in_order(network, inputs).values())
