"""Average pooling in the form that every runtime rounds alike."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx
from torch.nn import functional as F

from edgekd.quantization.graph import add_call, add_constant, calls, shape_of

aten = torch.ops.aten


def write_average_pools_as_convolutions(graph_module: fx.GraphModule) -> None:
    """Write average pooling as a depthwise convolution with equal weights.

    The mean of four integers lies half-way between two of them one time in four, int8 pooling must keep the scale of its
    input, and every runtime breaks such ties its own way. A convolution has a scale of its own, and ties are rare.
    Where windows at the edge have fewer values, because padding is not counted or the last one hangs over, the sums are
    multiplied by a constant map.
    """
    for node in calls(graph_module):
        if node.target is not aten.avg_pool2d.default:
            continue
        x = node.args[0]
        assert isinstance(x, fx.Node)
        kernel, stride, padding, ceil, include_padding, divisor = _pool_arguments(node)
        _, channels, height, width = shape_of(x)
        ones = torch.ones(1, 1, height, width)
        means = F.avg_pool2d(ones, kernel, stride, padding, ceil, include_padding, divisor)
        over = [_overhang(*sizes) for sizes in zip((height, width), means.shape[2:], kernel, stride, padding, strict=True)]
        one = torch.full((1, 1, *kernel), 1.0 / (kernel[0] * kernel[1]))
        factors = means / F.conv2d(F.pad(ones, (0, over[1], 0, over[0])), one, None, stride, padding)
        if any(over):
            x = _padded(graph_module, node, x, over)
        if _is_one_value(factors):  # a divisor of the user's own
            one = one * factors.flatten()[0]
        weight = one.repeat(int(channels), 1, 1, 1)
        weight_node = add_constant(graph_module, node, f"{node.name}_weight", weight, trained=False)
        arguments = (x, weight_node, None, stride, padding, [1, 1], int(channels))
        if _is_one_value(factors):
            node.target, node.args = aten.conv2d.default, arguments
        else:
            sums = add_call(graph_module, node, aten.conv2d.default, arguments)
            factor_node = add_constant(graph_module, node, f"{node.name}_factors", factors, trained=False)
            node.target, node.args = aten.mul.Tensor, (sums, factor_node)


def write_average_pools_without_ceil_mode(graph_module: fx.GraphModule) -> None:
    """Write average pooling with ``ceil_mode`` or a divisor of its own as plain pooling, and a product with a constant map.

    OpenVINO counts other values than torch in a window that hangs over padding, TensorFlow Lite's converter pads by a
    negative number where the last window ends early, and the ONNX exporter does not read the divisor.
    """
    for node in calls(graph_module):
        if node.target is not aten.avg_pool2d.default:
            continue
        kernel, stride, padding, ceil, include_padding, divisor = _pool_arguments(node)
        if not ceil and divisor is None:
            continue
        x = node.args[0]
        assert isinstance(x, fx.Node)
        sides = tuple(int(side) for side in shape_of(x)[2:])
        ones = torch.ones(1, 1, *sides)
        means = F.avg_pool2d(ones, kernel, stride, padding, ceil, include_padding, divisor)
        over = [_overhang(*sizes) for sizes in zip(sides, means.shape[2:], kernel, stride, padding, strict=True)]
        plain = F.avg_pool2d(F.pad(ones, (0, over[1], 0, over[0])), kernel, stride, padding)
        if any(over):
            x = _padded(graph_module, node, x, over)
        factors = means / plain
        if torch.allclose(factors, torch.ones(()), rtol=1e-6, atol=0):
            node.args = (x, kernel, stride, padding)
            continue
        pooled = add_call(graph_module, node, aten.avg_pool2d.default, (x, kernel, stride, padding))
        factor_node = add_constant(graph_module, node, f"{node.name}_factors", factors, trained=False)
        node.target, node.args = aten.mul.Tensor, (pooled, factor_node)


def _padded(graph_module: fx.GraphModule, node: fx.Node, x: fx.Node, over: list[int]) -> fx.Node:
    """Insert zeros below and on the right of ``x``, in front of ``node``."""
    with graph_module.graph.inserting_before(node):
        padded = graph_module.graph.call_function(aten.constant_pad_nd.default, (x, [0, over[1], 0, over[0]], 0.0))
    # Its shape by hand: to work it out, torch would fix the batch size.
    batch, channels, height, width = shape_of(x)
    padded.meta["val"] = x.meta["val"].new_empty((batch, channels, height + over[0], width + over[1]))
    return padded


def _overhang(size: int, count: int, kernel: int, stride: int, padding: int) -> int:
    """How far the last of ``count`` windows reaches over the padded end."""
    return max((count - 1) * stride + kernel - size - 2 * padding, 0)


def _is_one_value(values: Tensor) -> bool:
    return torch.allclose(values, values.flatten()[0], rtol=1e-6, atol=0)


def _pool_arguments(node: fx.Node) -> tuple[list[int], list[int], list[int], bool, bool, int | None]:
    given: list[Any] = list(node.args[1:])
    defaults: list[Any] = [None, [], [0, 0], False, True, None]
    kernel, stride, padding, ceil, include_padding, divisor = given + defaults[len(given) :]
    kernel = list(kernel) * 2 if len(kernel) == 1 else list(kernel)
    stride, padding = list(stride) or kernel, list(padding)
    stride, padding = (sizes * 2 if len(sizes) == 1 else sizes for sizes in (stride, padding))
    return kernel, stride, padding, ceil, include_padding, divisor
