"""Operands of several types: torch converts truth values and integers beside floats on its own, a file says so."""

from __future__ import annotations

import torch
from torch import Tensor, fx

from edgekd.quantization.graph import add_call, add_constant, calls, constant, origins, remove_unused, value_of

aten = torch.ops.aten
_MIXING = {
    aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.pow.Tensor_Tensor, aten.cat.default, aten.stack.default,
}  # fmt: skip


def write_conversions(graph_module: fx.GraphModule) -> None:
    """Write ``x * mask`` as ``x * mask.to(x.dtype)``, and sums, differences, powers and concatenations the same way.

    Truth values and integers have no int8 scale; what they are converted to has one. The values stay.
    """
    for node in calls(graph_module):
        if node.target not in _MIXING:
            continue
        values = {operand: value_of(graph_module, operand, node) for operand in node.all_input_nodes}
        tensors = {operand: value for operand, value in values.items() if isinstance(value, Tensor)}
        others = [operand for operand, value in tensors.items() if not value.is_floating_point()]
        if len(others) == len(tensors):
            continue  # integers with integers, or with a number
        for operand in others:
            node.replace_input_with(operand, _converted(graph_module, operand, node))
            remove_unused(graph_module, operand)


def _converted(graph_module: fx.GraphModule, operand: fx.Node, before: fx.Node) -> fx.Node:
    dtype, stored = before.meta["val"].dtype, constant(graph_module, operand)
    if stored is not None:
        name = str(operand.target)
        return add_constant(graph_module, before, name, stored.to(dtype), trained=False, made_of=origins(operand))
    converted = add_call(graph_module, before, aten._to_copy.default, (operand,))
    converted.kwargs, converted.meta["val"] = {"dtype": dtype}, converted.meta["val"].to(dtype)
    return converted
