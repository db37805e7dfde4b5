"""Transposed convolutions that TensorFlow Lite's converter cannot write, as a convolution and a pixel shuffle."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, fx
from torch.nn import functional as F

from edgekd.quantization.graph import add_constant, calls, constant, remove_unused, replace, shape_of
from edgekd.quantization.passes.selections import call_as

aten = torch.ops.aten


def write_transposed_convolutions_as_convolutions(graph_module: fx.GraphModule) -> None:
    """Write transposed convolutions with output padding, dilation, or groups that are not one a channel, as convolutions.

    Each output pixel of one phase of the stride s is a sum over every s-th weight: so all s² phases are channels of one
    convolution of the input, and a pixel shuffle puts them side by side (Shi et al. 2016, arXiv:1609.07009, §2). Only where
    height and width have the same stride.
    """
    for node in calls(graph_module):
        if node.target is not aten.conv_transpose2d.input:
            continue
        given: list[Any] = list(node.args)
        defaults: list[Any] = [None, [1, 1], [0, 0], [0, 0], 1, [1, 1]]
        x, weight_node, bias_node, *settings = given + defaults[len(given) - 2 :]
        stride, padding, more, dilation = (_pair(settings[index]) for index in (0, 1, 2, 4))
        groups = settings[3]
        weight, bias = constant(graph_module, weight_node), constant(graph_module, bias_node)
        channels = int(shape_of(x)[1])
        native = not any(more) and dilation == [1, 1] and groups in (1, channels)
        if native or weight is None or stride[0] != stride[1]:
            continue
        phases, taps = _phases(weight.detach(), stride[0], dilation, more, groups)
        margins = [size - 1 for size in taps]
        out = len(phases) // stride[0] ** 2
        values = torch.zeros(out) if bias is None else bias.detach()
        name = str(weight_node.target).rpartition(".")[0] or node.name
        kernel = add_constant(graph_module, node, f"{name}.phases", phases, trained=True)
        offset = add_constant(graph_module, node, f"{name}.offsets", values.repeat_interleave(stride[0] ** 2), trained=True)
        made = call_as(graph_module, node, aten.conv2d.default, (x, kernel, offset, [1, 1], margins, [1, 1], groups))
        if stride[0] > 1:
            made = call_as(graph_module, node, aten.pixel_shuffle.default, (made, stride[0]))
        for axis in (2, 3):
            start, size = padding[axis - 2], int(shape_of(node)[axis])
            if (start, size) != (0, int(shape_of(made)[axis])):
                made = call_as(graph_module, node, aten.slice.Tensor, (made, axis, start, start + size))
        replace(graph_module, node, made)
        remove_unused(graph_module, *(part for part in (weight_node, bias_node) if isinstance(part, fx.Node)))


def _phases(
    weight: Tensor, stride: int, dilation: list[int], more: list[int], groups: int
) -> tuple[Tensor, tuple[int, int]]:
    """Return the weights (out × stride², in / groups, taps, taps) of all phases, and the taps of each axis.

    Args:
        weight: (in, out / groups, kernel, kernel).
        stride: Of both axes.
        dilation: Of each axis; zeros are put between the weights.
        more: Output padding of each axis: as many zero weights at the end.
        groups: Of the convolution.
    """
    inside, outside, *kernel = weight.shape
    reach = [dilation[axis] * (kernel[axis] - 1) + 1 for axis in (0, 1)]
    wide = weight.new_zeros(inside, outside, *reach)
    wide[:, :, :: dilation[0], :: dilation[1]] = weight
    height, width = (math.ceil((reach[axis] + more[axis]) / stride) for axis in (0, 1))
    wide = F.pad(wide, (0, width * stride - reach[1], 0, height * stride - reach[0]))
    split = wide.reshape(groups, inside // groups, outside, height, stride, width, stride)
    phases = split.permute(0, 2, 4, 6, 1, 3, 5).flip(5, 6)
    return phases.reshape(groups * outside * stride**2, inside // groups, height, width), (height, width)


def _pair(value: Any) -> list[int]:
    sizes = [value] if isinstance(value, int) else list(value)
    return sizes * 2 if len(sizes) == 1 else sizes
