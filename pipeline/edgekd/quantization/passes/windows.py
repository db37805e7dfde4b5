"""Max pooling whose windows reach over the edge, or have unequal sizes, written as pooling of equal windows.

A maximum does not change when a value of its window comes twice. So a window with fewer values than the others repeats one
of them, and the rest is the plain pooling that every runtime has.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import fx

from edgekd.quantization.graph import calls, remove_unused, replace, shape_of
from edgekd.quantization.passes.selections import call_as, select

aten = torch.ops.aten

_POOLS = {aten.max_pool1d.default: 1, aten.max_pool2d.default: 2}
_ADAPTIVE = {aten.adaptive_max_pool1d.default: 1, aten.adaptive_max_pool2d.default: 2}
_PLAIN = {1: aten.max_pool1d.default, 2: aten.max_pool2d.default}


def write_max_pools_with_equal_windows(graph_module: fx.GraphModule) -> None:
    """Write max pooling with ``ceil_mode``, and adaptive max pooling, as max pooling of whole windows.

    With ``ceil_mode`` the last row and column are repeated as far as the windows hang over: TensorFlow Lite's converter
    counts other windows. Adaptive windows of equal size are plain pooling; of unequal sizes, all are gathered first.
    """
    for node in calls(graph_module):
        if node.target in _POOLS:
            _write_ceil_mode(graph_module, node, _POOLS[node.target])
        elif node.target in _ADAPTIVE:
            _write_adaptive(graph_module, node, _ADAPTIVE[node.target])


def _write_ceil_mode(graph_module: fx.GraphModule, node: fx.Node, rank: int) -> None:
    given: list[Any] = list(node.args)
    defaults: list[Any] = [[], 0, 1, False]
    x, window, stride, padding, dilation, ceil = given + defaults[len(given) - 2 :]
    if not ceil:
        return
    kernel, padding, dilation = (_each(value, rank) for value in (window, padding, dilation))
    stride = _each(stride, rank) if stride else kernel
    sides = [int(side) for side in shape_of(x)[-rank:]]
    counts = [int(count) for count in shape_of(node)[-rank:]]
    first = len(shape_of(x)) - rank
    starts = [[i * stride[a] - padding[a] for i in range(counts[a])] for a in range(rank)]
    reach = [starts[a][-1] + (kernel[a] - 1) * dilation[a] + 1 - sides[a] - padding[a] for a in range(rank)]
    if all(size <= 0 for size in reach):  # the last window ends where the padding does
        node.args = (x, kernel, stride, padding, dilation)
    elif all(size == 1 for size in dilation):
        for axis, over in enumerate(reach):
            last = sides[axis] - 1  # each window that reaches over the edge has it
            x = select(graph_module, node, x, first + axis, [*range(sides[axis]), *[last] * max(over, 0)])
        node.args = (x, kernel, stride, padding)
    else:
        windows = [[[start + step * dilation[a] for step in range(kernel[a])] for start in starts[a]] for a in range(rank)]
        inside = [[[i for i in w if 0 <= i < side] for w in ws] for ws, side in zip(windows, sides, strict=True)]
        replace(graph_module, node, _pool_windows(graph_module, node, x, inside))


def _write_adaptive(graph_module: fx.GraphModule, node: fx.Node, rank: int) -> None:
    if any(user.target is not operator.getitem or user.args[1] != 0 for user in node.users):
        return  # the positions of the maxima are read too
    x: Any = node.args[0]
    sides = [int(side) for side in shape_of(x)[-rank:]]
    counts = [int(count) for count in node.meta["val"][0].shape[-rank:]]
    windows = [
        [list(range(i * side // count, -(-(i + 1) * side // count))) for i in range(count)]
        for side, count in zip(sides, counts, strict=True)
    ]
    if all(side % count == 0 for side, count in zip(sides, counts, strict=True)):
        size = [side // count for side, count in zip(sides, counts, strict=True)]
        pooled = call_as(graph_module, node, _PLAIN[rank], (x, size))
    else:
        pooled = _pool_windows(graph_module, node, x, windows)
    for user in list(node.users):
        replace(graph_module, user, pooled)
    remove_unused(graph_module, node)


def _pool_windows(
    graph_module: fx.GraphModule, node: fx.Node, x: fx.Node, windows: Sequence[Sequence[Sequence[int]]]
) -> fx.Node:
    """Gather all windows, each filled up with its last value, side by side, and pool them.

    Args:
        graph_module: Changed in place.
        node: New nodes come before it.
        x: What is pooled.
        windows: For each pooled dimension, for each window, the indices that it holds; none is empty.
    """
    first = len(shape_of(x)) - len(windows)
    lengths = [max(len(window) for window in axis) for axis in windows]
    for axis, (row, length) in enumerate(zip(windows, lengths, strict=True)):
        gathered = [index for window in row for index in (*window, *[window[-1]] * (length - len(window)))]
        x = select(graph_module, node, x, first + axis, gathered)
    return call_as(graph_module, node, _PLAIN[len(windows)], (x, lengths))


def _each(value: Any, rank: int) -> list[int]:
    sizes = [value] if isinstance(value, int) else list(value)
    return sizes * rank if len(sizes) == 1 else sizes
