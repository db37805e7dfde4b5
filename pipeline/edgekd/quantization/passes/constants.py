"""Values that do not depend on the input: computed once, and scalars stored as tensors, which can have a scale."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx, nn

from edgekd.quantization.graph import add_constant, calls, constant, origins, remove_unused

aten = torch.ops.aten

# They read of their operand only type and device.
_NEW = {aten.new_zeros.default, aten.new_ones.default, aten.new_full.default, aten.new_empty.default}
_SCALAR_OPS = {aten.add.Tensor, aten.mul.Tensor, aten.sub.Tensor, aten.div.Tensor}


def compute_constants(graph_module: fx.GraphModule) -> None:
    """Compute what depends on constants alone; the result is trained where one of them is."""
    values: dict[fx.Node, Any] = {}
    made_of: dict[fx.Node, frozenset[str]] = {}
    trained: set[fx.Node] = set()
    for node in graph_module.graph.nodes:
        stored = constant(graph_module, node)
        if stored is not None:
            values[node], made_of[node] = stored.detach(), origins(node)
            trained |= {node} if isinstance(stored, nn.Parameter) else set()
        elif node.op == "call_function" and _is_constant(node, values):
            arguments = fx.node.map_arg(node.args, lambda argument: values.get(argument, torch.empty(0)))
            values[node] = node.target(*arguments, **node.kwargs)
            made_of[node] = frozenset[str]().union(*(made_of.get(source, frozenset()) for source in node.all_input_nodes))
            trained |= {node} if trained.intersection(node.all_input_nodes) else set()
    computed = [node for node in values if node.op == "call_function"]
    for node in computed:
        readers = [user for user in node.users if user not in values]
        if readers and isinstance(values[node], Tensor):
            value = values[node]
            name = f"{node.name}_constant"
            is_trained = node in trained and value.is_floating_point()
            held = add_constant(graph_module, node, name, value, trained=is_trained, made_of=made_of[node])
            for reader in readers:
                reader.replace_input_with(node, held)
    remove_unused(graph_module, *reversed(computed))


def _is_constant(node: fx.Node, values: dict[fx.Node, Any]) -> bool:
    if any(isinstance(argument, fx.Node) for argument in node.kwargs.values()):
        return False
    if node.target in _NEW:
        return all(isinstance(size, int) for size in node.args[1])  # type: ignore[union-attr]
    if torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()):
        return False
    return all(source in values for source in node.all_input_nodes)


def make_operands_constant(graph_module: fx.GraphModule) -> None:
    """Give every scalar operand a buffer, and write subtraction and division by a constant as addition and product."""
    for node in calls(graph_module):
        if node.target not in _SCALAR_OPS or len(node.args) != 2 or node.kwargs or not _is_float(node):
            continue
        given = node.args[1]
        value = constant(graph_module, given)
        if isinstance(given, int | float):
            # As many dimensions as the map: with a scalar the TensorFlow Lite converter turns every map to NCHW and back.
            value = torch.full([1] * node.meta["val"].ndim, float(given))
        if value is None or (isinstance(given, fx.Node) and node.target not in (aten.sub.Tensor, aten.div.Tensor)):
            continue
        if node.target is aten.sub.Tensor:
            node.target, value = aten.add.Tensor, -value
        elif node.target is aten.div.Tensor:
            node.target, value = aten.mul.Tensor, 1 / value
        name = f"{node.name}_constant"
        node.args = (node.args[0], add_constant(graph_module, node, name, value, trained=isinstance(value, nn.Parameter)))
        if isinstance(given, fx.Node):
            remove_unused(graph_module, given)


def _is_float(node: fx.Node) -> bool:
    return bool(node.meta["val"].is_floating_point())
