"""Attention as torch's ONNX exporter takes it: N×heads×tokens×features, and no other dimensions."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx, nn

from edgekd.models.copies import copied
from edgekd.quantization.graph import calls

aten = torch.ops.aten
_ATTENTION = aten.scaled_dot_product_attention.default
_OPERANDS = 3  # query, key, value; behind them may stand a mask


def with_heads(module: nn.Module) -> nn.Module:
    """Return the network with its attention in four dimensions: a copy where there is something to change.

    Attention without heads (N×T×C) gets an axis of one, and axes in front of N×heads×T×C become one with N.
    """
    if not isinstance(module, fx.GraphModule) or not any(map(_other, calls(module))):
        return module
    own = copied(module)
    for node in filter(_other, calls(own)):
        with own.graph.inserting_before(node):
            _write(own.graph, node)
    own.graph.lint()
    own.recompile()
    return own


def _other(node: fx.Node) -> bool:
    """Return whether this is attention of other dimensions than four, which can be written in four."""
    if node.target is not _ATTENTION:
        return False
    ranks = {len(_shape(operand)) for operand in node.args[:_OPERANDS]}
    mask = node.args[_OPERANDS] if len(node.args) > _OPERANDS else None
    dims = 2 if mask is None else len(_shape(mask))
    if ranks == {3}:
        return dims in (2, 3)
    fronts = [_shape(operand)[1:-3] for operand in node.args[:_OPERANDS]]
    return (
        len(ranks) == 1 and min(ranks) > 4 and dims == 2 and all(isinstance(size, int) for front in fronts for size in front)
    )


def _write(graph: fx.Graph, node: fx.Node) -> None:
    def call(operator: Any, *args: Any) -> fx.Node:
        made = graph.call_function(operator, args)
        made.meta = {key: value for key, value in node.meta.items() if key != "val"}  # where it stands in the source
        return made

    operands, rest = node.args[:_OPERANDS], node.args[_OPERANDS:]
    shape = _shape(node)
    if len(shape) == 3:
        operands = tuple(call(aten.unsqueeze.default, operand, 1) for operand in operands)
        if rest and rest[0] is not None and len(_shape(rest[0])) == 3:
            rest = (call(aten.unsqueeze.default, rest[0], 1), *rest[1:])
    else:
        operands = tuple(call(aten.flatten.using_ints, operand, 0, len(shape) - 4) for operand in operands)
    attention = call(_ATTENTION, *operands, *rest)
    attention.kwargs = node.kwargs
    if len(shape) == 3:
        result = call(aten.squeeze.dim, attention, 1)
    else:
        result = call(aten.unflatten.int, attention, 0, [-1, *shape[1:-3]])
    node.replace_all_uses_with(result)
    graph.erase_node(node)


def _shape(node: Any) -> tuple[Any, ...]:
    return tuple(node.meta["val"].shape)
