"""Operators that a format cannot have, known from the graph alone: no file has to be written to see them.

The converters' own tables say which operators they write; beside them stands what was seen to fail, or to be wrong, although
the tables have it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from edgekd.errors import ExportError
from edgekd.exporting.causes import operator_name, place
from edgekd.runtimes import base

if TYPE_CHECKING:
    from torch import fx


@dataclass(frozen=True)
class Lack:
    """An operator of a network that a format cannot have.

    Attributes:
        format: ``onnx``, ``tflite`` or ``openvino``.
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
        format: ``onnx``, ``tflite`` or ``openvino``.
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
    if _is_complex(node):
        instead = "compute the transform outside of the network, or as a product with a constant matrix"
    return Lack(format, operator, place(node), why, f"{instead}, or remove {format} from export")


_INSTEAD = {
    "one_hot": "compare instead, (x.unsqueeze(-1) == torch.arange(n)).float()",
    "sort": "use torch.amax or argmax where one value is enough",
    "topk": "use torch.amax or argmax where one value is enough",
    "argsort": "use argmax where one position is enough",
}
_TFLITE = {
    "one_hot": "its values are checked while it runs, which TensorFlow Lite cannot",
    "sort": "TensorFlow Lite has no sort, and its converter writes one that no runtime has",
    "argsort": "TensorFlow Lite has no sort, and its converter writes one that no runtime has",
}
_OPENVINO = {"linalg_det": "OpenVINO cannot read ONNX's Det", "det": "OpenVINO cannot read ONNX's Det"}


def _why(node: fx.Node, format: str) -> str:
    """Return why ``format`` cannot have the operator at ``node``; empty where it can, as far as is known."""
    name = operator_name(node)
    if format in ("tflite", "openvino") and _is_complex(node):
        return f"{base.format_label(format)} computes in real numbers only"
    if format == "tflite":
        return _TFLITE.get(name) or ("" if _litert_has(node.target) else f"the TensorFlow Lite converter has no {name}")
    if format == "openvino" and name in _OPENVINO:
        return _OPENVINO[name]
    if format in ("onnx", "openvino") and not _onnx_has(node.target):
        return f"torch's ONNX exporter has no {name}"
    return ""


def _is_complex(node: fx.Node) -> bool:
    value = node.meta.get("val")
    values = value if isinstance(value, list | tuple) else [value]
    return any(getattr(getattr(part, "dtype", None), "is_complex", False) for part in values)


def _is_composite(operator: Any) -> bool:
    """Return whether torch itself takes an operator apart when it is traced."""
    import torch

    return bool(torch._C._dispatch_has_kernel_for_dispatch_key(operator.name(), "CompositeImplicitAutograd"))


@cache
def _onnx_has(operator: Any) -> bool:
    from edgekd.exporting.formats.onnx.torchlib import registry

    return bool(registry().is_registered(operator)) or operator in _onnx_decompositions() or _is_composite(operator)


@cache
def _onnx_decompositions() -> frozenset[Any]:
    from torch.onnx._internal.exporter import _decomp

    from edgekd.exporting.formats.onnx.torchlib import registry

    implemented = set(_decomp.get_onnx_implemented_overloads(registry()))
    return frozenset(_decomp.create_onnx_friendly_decomposition_table(implemented))


@cache
def _litert_has(operator: Any) -> bool:
    return any(has(operator) for has in _litert_tables()) or _is_composite(operator)


@cache
def _litert_tables() -> tuple[Callable[[Any], bool], ...]:
    """Return what the converter knows: its lowerings, what it takes apart, and what it writes as one operator."""
    from litert_torch._convert.fx_passes import build_aten_composite_pass
    from litert_torch.backend import lowerings
    from litert_torch.fx_infra import decomp

    tables = (build_aten_composite_pass._composite_builders, decomp.pre_convert_decomp(), decomp.pre_lower_decomp())
    return (lambda operator: lowerings.lookup(operator) is not None, *(table.__contains__ for table in tables))
