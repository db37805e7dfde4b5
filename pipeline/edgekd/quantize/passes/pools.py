"""Average pooling in the form that every runtime rounds alike."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from edgekd.quantize.graph import add_constant, calls

aten = torch.ops.aten


def write_average_pools_as_convolutions(graph_module: fx.GraphModule) -> None:
    """Write average pooling as a depthwise convolution with equal weights.

    The mean of four integers lies half-way between two of them one time in four, int8 pooling must keep the scale of its
    input, and every runtime breaks such ties its own way. A convolution has a scale of its own, and ties are rare.
    Windows that are not all of one size stay as they are.
    """
    for node in calls(graph_module):
        if node.target is not aten.avg_pool2d.default:
            continue
        x = node.args[0]
        assert isinstance(x, fx.Node)
        kernel, stride, padding, ceil, include_padding, divisor = _pool_arguments(node)
        if ceil or divisor is not None or (any(padding) and not include_padding):
            continue
        channels = int(x.meta["val"].shape[1])
        weight = torch.full((channels, 1, *kernel), 1.0 / (kernel[0] * kernel[1]))
        weight_node = add_constant(graph_module, node, f"{node.name}_weight", weight, trained=False)
        node.target = aten.conv2d.default
        node.args = (x, weight_node, None, stride, padding, [1, 1], channels)


def _pool_arguments(node: fx.Node) -> tuple[list[int], list[int], list[int], bool, bool, int | None]:
    given: list[Any] = list(node.args[1:])
    defaults: list[Any] = [None, [], [0, 0], False, True, None]
    kernel, stride, padding, ceil, include_padding, divisor = given + defaults[len(given) :]
    kernel = list(kernel) * 2 if len(kernel) == 1 else list(kernel)
    stride = list(stride) or kernel
    return kernel, stride * 2 if len(stride) == 1 else stride, list(padding), ceil, include_padding, divisor
