"""Operators that select rows and columns by fixed indices, written with selections that every runtime has.

TensorFlow Lite's converter resizes to the nearest pixel by other rules than torch, OpenVINO cannot read ONNX's circular
padding, and neither has windows of unequal sizes. The selected indices depend on shapes only. Torch computes them, and
slices, concatenations or a gather select them: the same values in every runtime, and in int8 the same integers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, fx
from torch.nn import functional as F

from edgekd.quantization.graph import add_call, add_constant, calls, replace, shape_of

aten = torch.ops.aten

_MOST = 5  # tensors of a concatenation that XNNPACK has
_NEAREST = {aten.upsample_nearest2d.vec: 2}
_MORE_NEAREST = {
    aten.upsample_nearest1d.vec: 1,
    aten._upsample_nearest_exact1d.vec: 1,
    aten._upsample_nearest_exact2d.vec: 2,
}


def write_resizes_as_selections(graph_module: fx.GraphModule) -> None:
    """Write nearest-neighbour resizing of images by any ratio but whole ones as a selection of rows and columns.

    Mode ``nearest`` takes pixel ``floor(i × in / out)``, computed in float32 with the scale that the caller gave, if he gave
    one. Enlarging by whole numbers is the same by every rule and stays as it is.
    """
    _write_resizes(graph_module, _NEAREST)


def write_more_resizes_as_selections(graph_module: fx.GraphModule) -> None:
    """Write ``nearest-exact`` resizing, and that of sequences, likewise: every runtime has it in float, none in int8."""
    _write_resizes(graph_module, _MORE_NEAREST)


def _write_resizes(graph_module: fx.GraphModule, ranks: dict[Any, int]) -> None:
    for node in calls(graph_module):
        if node.target not in ranks:
            continue
        x, size, scales = [*node.args, None, None][:3]
        assert isinstance(x, fx.Node)
        rank = ranks[node.target]
        picked = _picked(node, shape_of(x)[-rank:], partial(_resized, node.target, size, scales))
        if rank == 2 and all(_is_repeated(indices) for indices in picked.values()):
            if node.target not in _NEAREST:
                node.args = (x, [int(side) for side in shape_of(node)[-2:]], None)
                node.target = aten.upsample_nearest2d.vec
        else:
            _select_all(graph_module, node, x, picked)


def write_circular_padding_as_slices(graph_module: fx.GraphModule) -> None:
    """Write circular padding as a concatenation of slices: OpenVINO cannot read ONNX's."""
    _write_paddings(graph_module, ("circular",))


def write_paddings_as_selections(graph_module: fx.GraphModule) -> None:
    """Write reflecting and replicating padding likewise: every runtime has it in float, none in int8."""
    _write_paddings(graph_module, ("reflect", "replicate"))


def _write_paddings(graph_module: fx.GraphModule, modes: Sequence[str]) -> None:
    for node in calls(graph_module):
        if node.target is not aten.pad.default:
            continue
        x, pad, mode = [*node.args, "constant"][:3]
        mode = node.kwargs.get("mode", mode)
        if mode not in modes or not isinstance(pad, list | tuple) or not all(isinstance(width, int) for width in pad):
            continue
        assert isinstance(x, fx.Node)
        rank = len(pad) // 2
        if rank <= 2:
            picked = _picked(node, shape_of(x)[-rank:], partial(F.pad, pad=list(pad), mode=mode))  # type: ignore[arg-type]
            _select_all(graph_module, node, x, picked)


def write_repeats_as_selections(graph_module: fx.GraphModule) -> None:
    """Write ``repeat`` and ``tile`` as concatenations: TensorFlow Lite's converter repeats other dimensions of a map."""
    for node in calls(graph_module):
        if node.target not in (aten.repeat.default, aten.tile.default):
            continue
        x, times = node.args[:2]
        assert isinstance(x, fx.Node)
        rank = len(shape_of(x))
        times = [1] * (rank - len(times)) + list(times)  # type: ignore[arg-type]
        if len(times) > rank or times[0] != 1 or not all(isinstance(count, int) for count in times):
            continue  # new dimensions, or more images than there were
        for dim in range(1, rank):
            if times[dim] != 1:
                x = select(graph_module, node, x, dim, list(range(int(shape_of(x)[dim]))) * times[dim])
        replace(graph_module, node, x)


def write_flips_one_by_one(graph_module: fx.GraphModule) -> None:
    """Flip one dimension after the other: in TensorFlow Lite those of one flip must be neighbours, which NHWC may part."""
    for node in calls(graph_module):
        if node.target is not aten.flip.default:
            continue
        x, dims = (cast(Any, argument) for argument in node.args)
        for dim in dims[:-1]:
            x = call_as(graph_module, node, aten.flip.default, (x, [dim]))
        node.args = (x, [dims[-1]])


def select(graph_module: fx.GraphModule, node: fx.Node, x: fx.Node, dim: int, indices: Sequence[int]) -> fx.Node:
    """Return ``x`` with the slices ``indices`` of dimension ``dim``, in this order; each may come several times.

    Args:
        graph_module: New nodes are inserted right before ``node``.
        node: What is written anew: the new nodes are said to be of its module and its line.
        x: Any tensor whose size along ``dim`` is known.
        dim: From the front.
        indices: Each in [0, size).
    """
    length = int(shape_of(x)[dim])
    runs = _runs(indices)
    if [(0, length, 1)] == runs:
        return x
    if len(runs) > _MOST:
        name = f"{node.name}_indices"
        held = add_constant(graph_module, node, name, torch.tensor(list(indices)), trained=False)
        return call_as(graph_module, node, aten.index_select.default, (x, dim, held))
    parts = [x if run == (0, length, 1) else call_as(graph_module, node, aten.slice.Tensor, (x, dim, *run)) for run in runs]
    return parts[0] if len(parts) == 1 else call_as(graph_module, node, aten.cat.default, (parts, dim))


def call_as(graph_module: fx.GraphModule, node: fx.Node, target: Any, args: tuple[Any, ...]) -> fx.Node:
    """Insert a call right before ``node``, of the same module and the same line of the user's code."""
    made = add_call(graph_module, node, target, args)
    made.meta |= {key: node.meta[key] for key in ("nn_module_stack", "stack_trace") if key in node.meta}
    return made


def _resized(target: Any, size: Any, scales: Any, ramp: Tensor) -> Tensor:
    resized: Tensor = target(ramp, size, scales)
    return resized


def _select_all(graph_module: fx.GraphModule, node: fx.Node, x: fx.Node, picked: dict[int, list[int]]) -> None:
    for dim, indices in picked.items():
        x = select(graph_module, node, x, dim, indices)
    replace(graph_module, node, x)


def _picked(node: fx.Node, sides: Sequence[Any], apply: Callable[[Tensor], Tensor]) -> dict[int, list[int]]:
    """What an operator selects along each of its last dimensions: torch is asked with an image that holds its indices.

    Args:
        node: The operator.
        sides: Sizes of its operand along these dimensions.
        apply: The operator as a function of a map (1, 1, *sides).
    """
    first = len(shape_of(node)) - len(sides)
    picked = {}
    for axis, side in enumerate(sides):
        shape = [1] * len(sides)
        shape[axis] = int(side)
        ramp = torch.arange(float(side)).reshape(shape).expand([int(size) for size in sides])
        result = apply(ramp[None, None].contiguous())[0, 0]
        picked[first + axis] = result.movedim(axis, -1).reshape(-1, result.shape[axis])[0].round().int().tolist()
    return picked


def _is_repeated(indices: Sequence[int]) -> bool:
    """Return whether each index comes in order and the same number of times."""
    length = max(indices) + 1
    times, rest = divmod(len(indices), length)
    return rest == 0 and all(index == place // times for place, index in enumerate(indices))


def _runs(indices: Sequence[int]) -> list[tuple[int, int, int]]:
    """The indices as slices: (start, end, step), with the greatest step that each takes.

    Example:
        >>> _runs([7, 0, 1, 2])
        [(7, 8, 1), (0, 3, 1)]
        >>> _runs([0, 2, 4])
        [(0, 5, 2)]
    """
    runs: list[list[int]] = []
    for index in indices:
        last = runs[-1] if runs else []
        step = index - last[-1] if last else 0
        if last and step > 0 and (len(last) == 1 or step == last[-1] - last[-2]):
            last.append(index)
        else:
            runs.append([index])
    return [(run[0], run[-1] + 1, run[1] - run[0] if len(run) > 1 else 1) for run in runs]
