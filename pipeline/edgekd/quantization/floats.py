"""Operators that have an int8 rule and are better in float, for what is around them is float.

Rounding a value between two float operators costs two conversions, saves nothing, and may lose the epsilon of a division:
x / sqrt(mean(x²) + 1e-6) divides by 0 where the sum is rounded to 0.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

import torch
from torch import fx, nn

from edgekd.quantization.graph import constant
from edgekd.quantization.naming import source

BETWEEN = "lies between operators in float"


def between(
    graph: fx.Graph, live: set[fx.Node], floats: set[fx.Node], binary: Collection[object], light: Collection[object]
) -> dict[fx.Node, str]:
    """Return the operators that should stay in float, each with the reason.

    These are groups of light operators all of whose operands come from float operators and all of whose readers are float
    operators, and sums and products with a constant that only float operators read.

    Args:
        graph: A normalised graph.
        live: Nodes that the logits depend on.
        floats: Operators that stay in float anyhow.
        binary: Targets of sums and products.
        light: Targets of operators whose time is that of reading and writing, unlike a convolution's; with ``binary``.
    """
    found: set[fx.Node] = set()
    while True:
        known = floats | found
        candidates = {node for node in graph.nodes if node in live and node.target in light and node not in known}
        constant = {node for node in candidates if node.target in binary and _has_constant(node)}
        more = {node for node in constant if all(reader in known for reader in _readers(node, live))}
        for group in _groups(candidates):
            operands = {x for node in group for x in _operands(node) if x not in group}
            readers = {reader for node in group for reader in _readers(node, live) if reader not in group}
            if operands and operands <= known and readers <= known:
                more |= group
        if not more:
            return dict.fromkeys((node for node in graph.nodes if node in found), BETWEEN)
        found |= more


def of_integers(module: fx.GraphModule) -> set[fx.Node]:
    """Return what is computed from integer inputs and fixed constants alone, such as a mask.

    It is exact or a mask in float, and small; a table that is looked up, or any other trained weight, ends it.
    """
    found: set[fx.Node] = set()
    for node in module.graph.nodes:
        if node.op == "placeholder":
            value = node.meta.get("val")
            if isinstance(value, torch.Tensor) and not value.is_floating_point():
                found.add(node)
        elif node.op == "call_function":
            operands = [x for x in node.all_input_nodes if isinstance(x.meta.get("val"), torch.Tensor)]
            fixed = [x for x in operands if x.op == "get_attr" and not isinstance(constant(module, x), nn.Parameter)]
            if found.intersection(operands) and found.issuperset(x for x in operands if x not in fixed):
                found.add(node)
    return found


def _operands(node: fx.Node) -> list[fx.Node]:
    """Return the operators that a node takes its values from, without constants."""
    return [operator for x in node.all_input_nodes if (operator := source(x)).op != "get_attr"]


def _readers(node: fx.Node, live: set[fx.Node]) -> list[fx.Node]:
    return [reader for reader in node.users if reader in live or reader.op == "output"]


def _has_constant(node: fx.Node) -> bool:
    return len(node.all_input_nodes) == 2 and any(x.op == "get_attr" for x in node.all_input_nodes)


def _groups(nodes: set[fx.Node]) -> Iterator[set[fx.Node]]:
    """Yield the connected parts of some nodes of a graph."""
    left = set(nodes)
    while left:
        group: set[fx.Node] = set()
        waiting = [left.pop()]
        while waiting:
            node = waiting.pop()
            group.add(node)
            near = [x for x in (*node.all_input_nodes, *node.users) if x in left]
            left.difference_update(near)
            waiting.extend(near)
        yield group
