"""Scales and shifts with constants put into the layer before them: batch norm, layer scale, ``conv(x) * 2 + 3``."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from edgekd.quantization.graph import Layer, calls, constant, only_read_by, origins, replace, shape_of

aten = torch.ops.aten


@dataclass(frozen=True)
class _Affine:
    """``x × scale + shift`` with tensors that broadcast to ``x``, made of these constants of the network."""

    x: fx.Node
    scale: Tensor
    shift: Tensor
    made_of: frozenset[str]


def fold_affines(graph_module: fx.GraphModule) -> bool:
    """Put every scale and shift of whole channels into the convolution or linear layer before it.

    A scale of each channel that has no such layer becomes a 1×1 depthwise convolution, if its input is an image.

    Returns:
        Whether there was any.
    """
    found = False
    for node in calls(graph_module):
        affine = _affine(graph_module, node)
        if affine is not None:
            found = _into_layer(graph_module, node, affine) or _as_depthwise(graph_module, node, affine) or found
    return found


def _affine(graph_module: fx.GraphModule, node: fx.Node) -> _Affine | None:
    if node.target is aten.conv2d.default:
        return _depthwise(graph_module, node)
    if node.target is operator.getitem:
        return _norm(graph_module, node)
    if node.target not in (aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor) or node.kwargs:
        return None
    left, right = (_value(graph_module, argument) for argument in node.args)
    if (left is None) == (right is None):
        return None
    x, value = (node.args[0], right) if left is None else (node.args[1], left)
    assert isinstance(x, fx.Node)
    assert value is not None
    if not node.meta["val"].is_floating_point() or shape_of(node) != shape_of(x):
        return None
    one, zero = torch.ones(()), torch.zeros(())
    made_of = origins(node.args[0]) | origins(node.args[1])
    if node.target is aten.add.Tensor:
        return _Affine(x, one, value, made_of)
    if node.target is aten.mul.Tensor:
        return _Affine(x, value, zero, made_of)
    if node.target is aten.sub.Tensor:
        return _Affine(x, one, -value, made_of) if left is None else _Affine(x, -one, value, made_of)
    return _Affine(x, 1 / value, zero, made_of) if left is None else None


def _depthwise(graph_module: fx.GraphModule, node: fx.Node) -> _Affine | None:
    layer = Layer.of(graph_module, node)
    if layer is None or layer.weight.shape[1:] != (1, 1, 1) or layer.settings[3] != len(layer.weight):
        return None
    if list(layer.settings[0]) != [1, 1] or list(layer.settings[1]) != [0, 0]:
        return None
    made_of = layer.made_of[0] | layer.made_of[1]
    return _Affine(layer.x, layer.weight.flatten(1)[..., None], layer.bias.reshape(-1, 1, 1), made_of)


def _norm(graph_module: fx.GraphModule, node: fx.Node) -> _Affine | None:
    norm = node.args[0]
    assert isinstance(norm, fx.Node)
    if norm.target is not aten._native_batch_norm_legit_no_training.default or node.args[1] != 0:
        return None  # with the statistics of the batch it has another name, and cannot be folded
    x, weight, bias, mean, variance, _, eps = norm.args
    assert isinstance(x, fx.Node)
    assert isinstance(eps, float)
    average, spread = constant(graph_module, mean), constant(graph_module, variance)
    gain, offset = constant(graph_module, weight), constant(graph_module, bias)
    if average is None or spread is None or (weight is not None and gain is None) or (bias is not None and offset is None):
        return None
    scale = torch.rsqrt(spread.detach() + eps) * (1.0 if gain is None else gain.detach())
    shift = (0.0 if offset is None else offset.detach()) - average.detach() * scale
    shape = [-1] + [1] * (len(shape_of(x)) - 2)
    made_of = frozenset[str]().union(*(origins(part) for part in (weight, bias, mean, variance)))
    return _Affine(x, scale.reshape(shape), shift.reshape(shape), made_of)


def _value(graph_module: fx.GraphModule, argument: Any) -> Tensor | None:
    if isinstance(argument, int | float):
        return torch.tensor(float(argument))
    value = constant(graph_module, argument)
    return None if value is None else value.detach()


def _into_layer(graph_module: fx.GraphModule, node: fx.Node, affine: _Affine) -> bool:
    # Dimensions may have changed places between the layer and its scale.
    moves: list[fx.Node] = []
    reader = node.args[0] if node.target is operator.getitem else node
    assert isinstance(reader, fx.Node)
    layer_node = affine.x
    while layer_node.target is aten.permute.default and only_read_by(layer_node, reader):
        moves.append(layer_node)
        reader, layer_node = layer_node, layer_node.args[0]  # type: ignore[assignment]
    layer = Layer.of(graph_module, layer_node)
    if layer is None or not only_read_by(layer_node, reader):
        return False
    dim = 1 if layer.settings else len(shape_of(layer_node)) - 1
    for move in reversed(moves):
        order: Any = move.args[1]
        dim = [size % len(order) for size in order].index(dim)
    rank, channels = len(shape_of(affine.x)), len(layer.weight)
    scale, shift = (_by_channel(value, rank, dim, channels) for value in (affine.scale, affine.shift))
    if scale is None or shift is None:
        return False
    folded = layer.scaled(scale, shift, affine.made_of)
    if all(len(step.users) == 1 for step in (layer_node, *moves)):
        folded.write(graph_module, layer_node)
        replace(graph_module, node, affine.x)
    elif not moves:  # the layer stays for the output that is a feature
        folded.write(graph_module, node)
    else:
        return False
    return True


def _by_channel(value: Tensor, rank: int, dim: int, channels: int) -> Tensor | None:
    """Return (channels,) of a tensor that broadcasts along all other dimensions; None where it does not."""
    if value.ndim > rank:
        return None
    shape = [1] * (rank - value.ndim) + list(value.shape)
    if any(size != 1 for index, size in enumerate(shape) if index != dim):
        return None
    return value.reshape(-1).expand(channels)


def _as_depthwise(graph_module: fx.GraphModule, node: fx.Node, affine: _Affine) -> bool:
    shape = shape_of(affine.x)
    if len(shape) != 4 or affine.scale.numel() == 1 or node.target is aten.conv2d.default:
        return False
    channels = int(shape[1])
    scale = _by_channel(affine.scale, 4, 1, channels)
    if scale is None:
        return False
    settings = ([1, 1], [0, 0], [1, 1], channels)
    shift = _by_channel(affine.shift, 4, 1, channels)
    assert shift is not None  # of one origin with the scale
    made_of = (affine.made_of, affine.made_of)
    Layer(affine.x, scale.reshape(-1, 1, 1, 1), shift, settings, node.name, node.name, made_of).write(graph_module, node)
    return True
