"""Operators that return what they are given: removed."""

from __future__ import annotations

import torch
from torch import fx

from edgekd.quantization.graph import calls, replace, shape_of

aten = torch.ops.aten

_ALWAYS = {
    aten.alias.default,
    aten.clone.default,
    aten.contiguous.default,
    aten.detach.default,
    aten.dropout.default,
    aten.lift_fresh_copy.default,
}
# With equal shapes before and after they select everything.
_WHEN_WHOLE = {
    aten.slice.Tensor,
    aten.expand.default,
    aten.constant_pad_nd.default,
    aten.reshape.default,
    aten.squeeze.dim,
    aten.squeeze.dims,
}
_VIEWS = {aten.view.default, aten._unsafe_view.default}


def drop_identities(graph_module: fx.GraphModule) -> None:
    """Remove copies, dropout, and slices, paddings and reshapes that change nothing.

    A view becomes a reshape: the copy that has made its tensor contiguous may be gone, as in a channel shuffle or in the
    windows of Swin.
    """
    for node in calls(graph_module):
        if node.target in _VIEWS:
            node.target = aten.reshape.default
        same = _same_as(node)
        if same is not None:
            replace(graph_module, node, same)


def _same_as(node: fx.Node) -> fx.Node | None:
    source = node.args[0] if node.args else None
    if not isinstance(source, fx.Node):
        return None
    if node.target in _ALWAYS:
        return source
    if node.target in _WHEN_WHOLE and shape_of(node) == shape_of(source):
        # A slice with a step reverses nothing, so equal length is the whole; padding may cut one side and add to another.
        return source if node.target is not aten.constant_pad_nd.default or not any(node.args[1]) else None  # type: ignore[arg-type]
    if node.target in (aten.slice_scatter.default, aten.copy.default):  # what is written over all of another
        part = node.args[1]
        assert isinstance(part, fx.Node)
        return part if shape_of(part) == shape_of(source) else None
    return None
