"""Shapes without arithmetic: runtimes for small devices take them as numbers."""

from __future__ import annotations

import torch
from torch import fx

from edgekd.quantization.graph import calls

aten = torch.ops.aten


def make_shapes_static(graph_module: fx.GraphModule) -> None:
    """Write reshapes with -1 for a symbolic size, so that no shape arithmetic reaches a runtime.

    A view needs values in memory order, which a graph turned to NHWC does not have; a reshape copies where it must.
    """
    for node in calls(graph_module):
        if node.target not in (aten.view.default, aten._unsafe_view.default, aten.reshape.default):
            continue
        node.target = aten.reshape.default
        sizes = [size if isinstance(size, int) else -1 for size in node.meta["val"].shape]
        if sizes.count(-1) <= 1:
            node.args = (node.args[0], sizes)
