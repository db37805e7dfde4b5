"""Self-attention in a traced graph: where it is, and its queries, keys and values as one more output."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

SUFFIX = ":qkv"
"""Behind the path of an attention: its queries, keys and values instead of its output."""


@dataclass(frozen=True)
class Attention:
    """Queries, keys and values, or, of an ``nn.MultiheadAttention``, what they are made from.

    Attributes:
        sources: The nodes of queries, keys and values; or of the module's input.
        module: Path of the ``nn.MultiheadAttention``, or "".
        scale: What the products of queries and keys are multiplied with; None: one over the root of their width.
    """

    sources: tuple[fx.Node, ...]
    module: str = ""
    scale: float | None = None


def find(graph: fx.Graph, modules: Mapping[str, nn.Module], paths: Mapping[fx.Node, str]) -> dict[str, Attention]:
    """Find self-attention without mask or position bias, by path, in the order of the network.

    What is known: ``nn.MultiheadAttention``, ``scaled_dot_product_attention`` and ``softmax(q @ k.transpose(-2, -1)) @ v``.

    Args:
        graph: Of the traced network.
        modules: The network's modules by path.
        paths: Where each node is. An attention that is written as operators is known by the module around them.
    """
    found = {}
    for node in graph.nodes:
        attention = _multihead(node, modules) or _fused(node) or _written_out(node, modules)
        if attention is not None:
            around = paths[node] if attention.module else paths[node].rpartition(".")[0]
            found[around or paths[node]] = attention
    return found


def add(graph: fx.Graph, attention: Attention, modules: Mapping[str, nn.Module]) -> fx.Node:
    """Add a node that gives N×3×heads×L×C: queries, keys and values, whose scores are ``q kᵀ / √C``."""
    with graph.inserting_before(graph.output_node()):
        if not attention.module:
            return graph.call_function(_stacked, (*attention.sources, attention.scale))
        module = modules[attention.module]
        assert isinstance(module, nn.MultiheadAttention)  # _multihead found it by its type
        weight = graph.get_attr(f"{attention.module}.in_proj_weight")
        bias = None if module.in_proj_bias is None else graph.get_attr(f"{attention.module}.in_proj_bias")
        return graph.call_function(_projected, (*attention.sources, weight, bias, module.num_heads, module.batch_first))


def _stacked(query: Tensor, key: Tensor, value: Tensor, scale: float | None) -> Tensor:
    return torch.stack([query if scale is None else query * (scale * query.shape[-1] ** 0.5), key, value], 1)


def _projected(x: Tensor, weight: Tensor, bias: Tensor | None, heads: int, batch_first: bool) -> Tensor:
    """What ``nn.MultiheadAttention`` computes first, and does not return."""
    x = x if batch_first else x.transpose(0, 1)
    projected = F.linear(x, weight, bias)
    return projected.reshape(*x.shape[:2], 3, heads, -1).permute(0, 2, 3, 1, 4)


def _multihead(node: fx.Node, modules: Mapping[str, nn.Module]) -> Attention | None:
    module = modules[str(node.target)] if node.op == "call_module" else None
    if not isinstance(module, nn.MultiheadAttention):
        return None
    given: dict[str, Any] = dict(
        zip(("query", "key", "value", "key_padding_mask", "need_weights", "attn_mask"), node.args, strict=False)
    )
    given |= dict(node.kwargs)
    x = given["query"]
    plain = (
        isinstance(x, fx.Node) and given["key"] is x and given["value"] is x
        and _absent(given.get("key_padding_mask")) and _absent(given.get("attn_mask")) and _absent(given.get("is_causal"))
        and module.in_proj_weight is not None and module.bias_k is None and not module.add_zero_attn
    )  # fmt: skip
    return Attention((x,), str(node.target)) if plain else None


def _fused(node: fx.Node) -> Attention | None:
    if node.target is not F.scaled_dot_product_attention:
        return None
    given: dict[str, Any] = dict(
        zip(("query", "key", "value", "attn_mask", "dropout_p", "is_causal", "scale"), node.args, strict=False)
    )
    given |= node.kwargs
    sources = tuple(given[name] for name in ("query", "key", "value"))
    scale = given.get("scale")
    plain = _absent(given.get("attn_mask")) and _absent(given.get("is_causal")) and isinstance(scale, float | int | None)
    return Attention(sources, scale=scale) if plain and all(isinstance(source, fx.Node) for source in sources) else None


def _written_out(node: fx.Node, modules: Mapping[str, nn.Module]) -> Attention | None:
    """``softmax(q @ k.transpose(-2, -1) * scale) @ v``, with the scale anywhere in front of the softmax, or nowhere."""
    if not _is(node, _PRODUCTS):
        return None
    weights, value = _behind_dropout(node.args[0], modules), node.args[1]
    if not (isinstance(weights, fx.Node) and _softmax(weights, modules) and isinstance(value, fx.Node)):
        return None
    scores, outer = _unscaled(weights.args[0])
    if not _is(scores, _PRODUCTS):
        return None
    query, inner = _unscaled(scores.args[0])
    turned, last = _unscaled(scores.args[1])
    key = turned.args[0] if _is(turned, _TRANSPOSES) and set(turned.args[1:]) in ({-2, -1}, {2, 3}) else None
    if not (isinstance(query, fx.Node) and isinstance(key, fx.Node)):
        return None
    return Attention((query, key, value), scale=outer * inner * last)


_PRODUCTS = (operator.matmul, torch.matmul, "matmul")
_TRANSPOSES = (torch.transpose, "transpose")
_FACTORS = {operator.mul: 1, torch.mul: 1, "mul": 1, operator.truediv: -1, torch.div: -1, "div": -1}


def _is(node: Any, targets: tuple[Any, ...]) -> bool:
    return isinstance(node, fx.Node) and node.op in ("call_function", "call_method") and node.target in targets


def _softmax(node: fx.Node, modules: Mapping[str, nn.Module]) -> bool:
    if node.op == "call_module":
        return isinstance(modules[str(node.target)], nn.Softmax)
    return _is(node, (F.softmax, torch.softmax, "softmax"))


def _behind_dropout(node: Any, modules: Mapping[str, nn.Module]) -> Any:
    while isinstance(node, fx.Node) and (
        (node.op == "call_module" and isinstance(modules[str(node.target)], nn.Dropout | nn.Identity))
        or _is(node, (F.dropout,))
    ):
        node = node.args[0]
    return node


def _unscaled(node: Any) -> tuple[Any, float]:
    """The value in front of multiplications by numbers, and their product."""
    scale = 1.0
    while _is(node, tuple(_FACTORS)):
        value, factor = node.args if isinstance(node.args[0], fx.Node) else reversed(node.args)
        if not isinstance(factor, int | float):
            break
        node, scale = value, scale * factor ** _FACTORS[node.target]
    return node, scale


def _absent(argument: Any) -> bool:
    """None or False, also as the default of an argument of the network that is not given."""
    if isinstance(argument, fx.Node) and argument.op == "placeholder":
        return argument.args in ((None,), (False,))
    return argument is None or argument is False
