"""Find the pooling of a network's last map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import fx, nn
from torch.nn import functional as F


def last_pooled(graph: fx.Graph, modules: Mapping[str, nn.Module]) -> fx.Node | None:
    """Return the tensor that the last pooling over height and width reads; None without one.

    Args:
        graph: Of a traced network.
        modules: The network's, by path.
    """
    found = [node.all_input_nodes[0] for node in graph.nodes if _is_pooling(node, modules)]
    return found[-1] if found and found[-1].op != "placeholder" else None


def _is_pooling(node: fx.Node, modules: Mapping[str, nn.Module]) -> bool:
    if node.op == "call_module":
        return isinstance(modules[str(node.target)], nn.AdaptiveAvgPool2d | nn.AvgPool2d)
    if node.target in {torch.mean, "mean"}:
        dims = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else None)
        return isinstance(dims, Sequence) and sorted(dim % 4 for dim in cast("Sequence[int]", dims)) == [2, 3]
    return node.target in {F.adaptive_avg_pool2d, F.avg_pool2d}
