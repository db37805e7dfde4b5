"""Shared weights: what a network uses several times is one parameter of the graph, and stays one when it is trained."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import torch
from torch import fx, nn

from edgekd.quantization.graph import constant, origins, replace

aten = torch.ops.aten
_LAYERS = (aten.conv2d.default, aten.linear.default)


def share_weights(graph_module: fx.GraphModule) -> None:
    """Let parameters that were made of the same ones, and have the same values, be one parameter.

    Folding writes a weight of its own for each use of a shared layer. The copies are equal where the same batch norm, scale
    or sum stands behind each use; else they are different weights, and stay apart. Weights that are equal by chance, such
    as the biases of two new layers, are not made of the same parameters.
    """
    kept: dict[frozenset[str], list[fx.Node]] = {}
    for node in sorted(_parameters(graph_module), key=lambda node: len(str(node.target))):  # the user's own name is shortest
        alike = kept.setdefault(origins(node), [])
        same = next((other for other in alike if _equal(graph_module, node, other)), None)
        if same is None:
            alike.append(node)
            continue
        first = next(iter(graph_module.graph.nodes))
        if same is not first:
            first.prepend(same)  # in front of all uses
        replace(graph_module, node, same)


def separate_copies(live: Collection[fx.Node]) -> tuple[str, ...]:
    """Name the weights that the network uses several times and the graph stores several times, each as a sentence.

    ``live`` are the nodes that the logits depend on: a layer may be kept beside its folded one for a feature.
    """
    stored: dict[str, set[str]] = {}
    for node in live:
        if node.target in _LAYERS and isinstance(node.args[1], fx.Node) and node.args[1].op == "get_attr":
            source = node.args[1].meta.get("source", str(node.args[1].target))
            stored.setdefault(source, set()).add(str(node.args[1].target))
    return tuple(
        f"{source.removeprefix('network.')} is one weight in the network and {len(copies)} in int8: different batch norms, "
        "scales or sums behind its uses are folded into it"
        for source, copies in sorted(stored.items())
        if len(copies) > 1
    )


def _parameters(graph_module: fx.GraphModule) -> Iterator[fx.Node]:
    for node in graph_module.graph.nodes:
        if node.op == "get_attr" and isinstance(constant(graph_module, node), nn.Parameter):
            yield node


def _equal(graph_module: fx.GraphModule, node: fx.Node, other: fx.Node) -> bool:
    one, two = constant(graph_module, node), constant(graph_module, other)
    assert one is not None
    assert two is not None
    return one.shape == two.shape and one.dtype == two.dtype and torch.equal(one, two)
