"""Operators that a format cannot have, known from the graph alone: no file has to be written to see them.

Each exporter says what it lacks: its converter's own tables, and what was seen to fail, or to be wrong, although the tables
have it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from edgekd.errors import ExportError
from edgekd.exporting.causes import operator_name, place
from edgekd.registry import exporters

if TYPE_CHECKING:
    from torch import fx


@runtime_checkable
class Refusing(Protocol):
    """An exporter that knows operators which its format cannot have."""

    @staticmethod
    def lacks(node: fx.Node) -> str:
        """Return why the format cannot have the operator at a node; empty where it can."""


@dataclass(frozen=True)
class Lack:
    """An operator of a network that a format cannot have.

    Attributes:
        format: Such as ``onnx``.
        operator: As PyTorch calls it, such as ``median``.
        place: Where in the user's network, such as `` in head.pool (net.py, line 12: x.median(-1))``.
        why: The reason.
        instead: What to do.
    """

    format: str
    operator: str
    place: str
    why: str
    instead: str

    def __str__(self) -> str:
        return f"{self.format}: {self.operator}{self.place}: {self.why}"


def lacks(graph_module: fx.GraphModule, formats: Iterable[str]) -> tuple[Lack, ...]:
    """Return the operators of a traced graph that one of ``formats`` cannot have, in the order of the graph."""
    wanted = tuple(dict.fromkeys(formats))
    found: dict[tuple[str, str], Lack] = {}
    for node in graph_module.graph.nodes:
        if node.op != "call_function" or not str(node.target).startswith("aten.") or not node.users:
            continue  # nothing reads a check of values, and converters leave it out
        for format in wanted:
            why = _why(node, format)
            if why:
                lack = _lack(node, format, why)
                found.setdefault((format, lack.operator + lack.place), lack)
    return tuple(found.values())


def require_operators(graph_module: Any, format: str, name: str) -> None:
    """Refuse a graph that a format cannot have.

    Args:
        graph_module: What is to be written; anything but a traced graph is let through.
        format: Such as ``onnx``.
        name: Of the file.

    Raises:
        ExportError: It has such an operator.
    """
    from torch import fx

    first = next(iter(lacks(graph_module, [format])), None) if isinstance(graph_module, fx.GraphModule) else None
    if first is not None:
        raise ExportError(f"writing {name} failed: {first.operator}{first.place}: {first.why}", first.instead)


def _lack(node: fx.Node, format: str, why: str) -> Lack:
    operator = operator_name(node)
    instead = _INSTEAD.get(operator, f"write {operator} with other operators of torch")
    if is_complex(node):
        instead = "compute the transform outside of the network, or as a product with a constant matrix"
    return Lack(format, operator, place(node), why, f"{instead}, or remove {format} from export")


_INSTEAD = {
    "one_hot": "compare instead, (x.unsqueeze(-1) == torch.arange(n)).float()",
    "sort": "use torch.amax or argmax where one value is enough",
    "topk": "use torch.amax or argmax where one value is enough",
    "argsort": "use argmax where one position is enough",
}


def _why(node: fx.Node, format: str) -> str:
    """Return why ``format`` cannot have the operator at ``node``; empty where it can, as far as its exporter knows."""
    exporter = exporters.get(format)
    return exporter.lacks(node) if isinstance(exporter, Refusing) else ""


def is_complex(node: fx.Node) -> bool:
    """Return whether an operator computes complex numbers."""
    value = node.meta.get("val")
    values = value if isinstance(value, list | tuple) else [value]
    return any(getattr(getattr(part, "dtype", None), "is_complex", False) for part in values)


def is_composite(operator: Any) -> bool:
    """Return whether torch itself takes an operator apart when it is traced."""
    import torch

    return bool(torch._C._dispatch_has_kernel_for_dispatch_key(operator.name(), "CompositeImplicitAutograd"))
