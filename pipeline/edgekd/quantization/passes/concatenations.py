"""Concatenations of few tensors: XNNPACK has none of more than five, and leaves its int8 graph for each."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from edgekd.quantization.graph import add_call, calls

aten = torch.ops.aten

_MOST = 5


def chain_concatenations(graph_module: fx.GraphModule) -> None:
    """Write a long concatenation as one of an earlier one and the rest, or as several of at most five tensors.

    The layers of a DenseNet each read all before them: each concatenation begins with all of the one before it.
    """
    done: list[tuple[list[fx.Node], Any, fx.Node]] = []
    for node in calls(graph_module):
        if node.target is not aten.cat.default:
            continue
        operands, dim = _arguments(node)
        rest = list(operands)
        if len(operands) > _MOST:
            for known, known_dim, result in reversed(done):
                if known_dim == dim and 1 < len(known) < len(operands) and operands[: len(known)] == known:
                    rest = [result, *operands[len(known) :]]
                    break
            while len(rest) > _MOST:
                rest = [add_call(graph_module, node, aten.cat.default, (rest[:_MOST], dim)), *rest[_MOST:]]
            node.args = (rest, dim)
        done.append((operands, dim, node))


def _arguments(node: fx.Node) -> tuple[list[fx.Node], Any]:
    operands: Any = node.args[0]
    return list(operands), node.args[1] if len(node.args) > 1 else 0
