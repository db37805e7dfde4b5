"""Name of a graph's node for a user: its module and operator, then its name for ``keep_float``."""

from __future__ import annotations

import operator
from collections.abc import Iterable

from torch import fx

from edgekd.results.runtime import where


def layer_path(node: fx.Node) -> str:
    """Path of the module whose ``forward`` made a node of an exported graph, as the student's own modules are named."""
    stack = node.meta.get("nn_module_stack") or {"": ("", None)}
    path: str = list(stack.values())[-1][0]
    return path.removeprefix("network").removeprefix(".")  # Tapped puts the student there


def source(node: fx.Node) -> fx.Node:
    """Return the operator behind a node: of one of several results, the operator that has them."""
    while node.target is operator.getitem and isinstance(node.args[0], fx.Node):
        node = node.args[0]
    return node


def operator_name(node: fx.Node) -> str:
    """Name of the operator, such as ``conv2d`` or ``topk``; of the input ``input``."""
    node = source(node)
    if node.op == "placeholder":
        return "input"
    parts = str(node.target).split(".")
    name = parts[1] if len(parts) > 2 else str(getattr(node.target, "__name__", node.target))
    return name.removeprefix("_").removeprefix("native_").removesuffix("_legit")  # as torch.nn.functional calls it


def describe(node: fx.Node) -> str:
    """Name a node by the module it is in. What only moves or rounds values without a module is named as it is."""
    return where(layer_path(source(node)), operator_name(node), source(node).name)


def describe_several(nodes: Iterable[fx.Node], most: int = 3) -> str:
    """Name the first few nodes, and count the rest."""
    names = list(dict.fromkeys(describe(node) for node in nodes))
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{', '.join(names[:most])}{more}"
