"""Parallel convolutions of one tensor, and the tensor itself, merged into one convolution.

What RepVGG (Ding et al. 2021, §3.3), MobileOne (Vasu et al. 2023, §3.2) and FastViT (Vasu et al. 2023, §3.1) train as
several branches they run as one; a sum of int8 branches would round each of them.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, fx
from torch.nn import functional as F

from edgekd.quantization.graph import Layer, calls, only_read_by, shape_of

aten = torch.ops.aten


def merge_branches(graph_module: fx.GraphModule) -> bool:
    """Write every sum or difference of two convolutions of the same tensor as one convolution.

    The tensor itself counts as a convolution with the identity. Nothing is merged into a convolution that is larger than
    its parts together, such as a 1×1 and a depthwise 3×3 one.

    Returns:
        Whether there was any.
    """
    found = False
    for node in calls(graph_module):
        if node.target not in (aten.add.Tensor, aten.sub.Tensor) or node.kwargs:
            continue
        left, right = node.args
        if not (isinstance(left, fx.Node) and isinstance(right, fx.Node)) or shape_of(left) != shape_of(right):
            continue
        merged = _merged(graph_module, node, left, right)
        if merged is not None:
            merged.write(graph_module, node)
            found = True
    return found


def _merged(graph_module: fx.GraphModule, node: fx.Node, left: fx.Node, right: fx.Node) -> Layer | None:
    terms = [_conv(graph_module, side, node) for side in (left, right)]
    if terms[0] is None and terms[1] is not None and terms[1].x is left:
        terms[0] = _identity(terms[1])
    elif terms[1] is None and terms[0] is not None and terms[0].x is right:
        terms[1] = _identity(terms[0])
    first, second = terms
    if first is None or second is None or first.x is not second.x:
        return None
    if node.target is aten.sub.Tensor:
        second = dataclasses.replace(second, weight=-second.weight, bias=-second.bias)
    return _sum(first, second, limit=sum(term.weight.numel() for term in terms if term is not None))


def _conv(graph_module: fx.GraphModule, side: fx.Node, reader: fx.Node) -> Layer | None:
    layer = Layer.of(graph_module, side)
    return layer if layer is not None and layer.settings and only_read_by(side, reader) else None


def _identity(like: Layer) -> Layer | None:
    channels = len(like.weight)
    stride, _, dilation, _ = like.settings
    weight = like.weight.new_ones(channels, 1, 1, 1)
    return dataclasses.replace(
        like, weight=weight, bias=weight.new_zeros(channels), settings=(stride, [0, 0], dilation, channels)
    )


def _sum(first: Layer, second: Layer, limit: int) -> Layer | None:
    """Return the convolution whose result is the sum of both results, if it has at most ``limit`` weights."""
    large, small = sorted((first, second), key=lambda layer: -layer.weight.shape[2] * layer.weight.shape[3])
    stride, padding, dilation, groups = large.settings
    small_stride, small_padding, small_dilation, small_groups = small.settings
    fewer = min(groups, small_groups)
    same_dilation = list(dilation) == list(small_dilation) or all(size == 1 for size in small.weight.shape[2:])
    if list(stride) != list(small_stride) or not same_dilation or groups % fewer or small_groups % fewer:
        return None
    margins = []
    for axis in (0, 1):
        margin, rest = divmod(padding[axis] - small_padding[axis], dilation[axis])
        # As much wider on both sides as the padding is: the small kernel lies in the middle of the large one.
        if rest or margin < 0 or small.weight.shape[2 + axis] + 2 * margin != large.weight.shape[2 + axis]:
            return None
        margins.append(margin)
    weights = [_regrouped(large.weight, groups, fewer), _regrouped(small.weight, small_groups, fewer)]
    if weights[0].numel() > limit:
        return None
    weights[1] = F.pad(weights[1], (margins[1], margins[1], margins[0], margins[0]))
    settings = (stride, padding, dilation, fewer)
    weight_of, bias_of = (one | other for one, other in zip(large.made_of, small.made_of, strict=True))
    return dataclasses.replace(
        large, weight=weights[0] + weights[1], bias=large.bias + small.bias, settings=settings, made_of=(weight_of, bias_of)
    )


def _regrouped(weight: Tensor, groups: int, fewer: int) -> Tensor:
    """Return the weights, zeros among them, of the same convolution with ``fewer`` groups."""
    if groups == fewer:
        return weight
    out, inside = weight.shape[:2]
    together = groups // fewer
    wide = weight.new_zeros(out, together, inside, *weight.shape[2:])
    group = torch.arange(out) // (out // groups)
    wide[torch.arange(out), group % together] = weight
    return wide.flatten(1, 2)
