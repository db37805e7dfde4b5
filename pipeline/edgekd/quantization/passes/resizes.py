"""Resizing by interpolation, written as products with constant matrices where a runtime interpolates otherwise."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from edgekd.quantization.graph import add_constant, calls, replace, shape_of
from edgekd.quantization.passes.selections import call_as

aten = torch.ops.aten

_SCALED = {aten.upsample_bilinear2d.vec, aten.upsample_bicubic2d.vec}
_ANTIALIASED = {aten._upsample_bilinear2d_aa.vec, aten._upsample_bicubic2d_aa.vec}


def write_interpolations_as_products(graph_module: fx.GraphModule) -> None:
    """Write interpolation along height and width as two products with constant matrices: it is linear and separable.

    Only where a converter computes something else than torch: with a ``scale_factor`` that is not the ratio of the sizes,
    which TensorFlow Lite's converter does not read, and with ``antialias``, where OpenVINO has other weights.
    """
    for node in calls(graph_module):
        if node.target in _ANTIALIASED or (node.target in _SCALED and _is_scaled(node)):
            x: Any = node.args[0]
            sides = [int(side) for side in shape_of(x)[-2:]]
            rows, columns = (_matrix(node, sides, axis) for axis in (0, 1))
            x = _product(graph_module, node, x, columns, "columns")
            x = call_as(graph_module, node, aten.transpose.int, (x, 2, 3))
            x = _product(graph_module, node, x, rows, "rows")
            replace(graph_module, node, call_as(graph_module, node, aten.transpose.int, (x, 2, 3)))


def _is_scaled(node: fx.Node) -> bool:
    x, _, align_corners, scales = [*node.args, None][:4]
    assert isinstance(x, fx.Node)
    if not isinstance(scales, list | tuple) or align_corners:  # the corners fix the scale
        return False
    ratios = [after / before for before, after in zip(shape_of(x)[-2:], shape_of(node)[-2:], strict=True)]
    return any(abs(float(scale) - ratio) > 1e-6 * ratio for scale, ratio in zip(scales, ratios, strict=True))


def _matrix(node: fx.Node, sides: list[int], axis: int) -> Tensor:
    """Return (in, out): what each value of one axis gives to each value of the result.

    Torch is asked: the weights of a value sum to 1 along the other axis, so a map that is constant along it stays so.
    """
    size = sides[axis]
    units = torch.eye(size).reshape(1, size, *([size, 1] if axis == 0 else [1, size])).expand(1, size, *sides)
    result: Any = node.target(units.contiguous(), *node.args[1:])  # type: ignore[operator]
    matrix: Tensor = result[0, :, :, 0] if axis == 0 else result[0, :, 0, :]
    return matrix


def _product(graph_module: fx.GraphModule, node: fx.Node, x: fx.Node, matrix: Tensor, name: str) -> fx.Node:
    held = add_constant(graph_module, node, f"{node.name}_{name}", matrix, trained=False)
    return call_as(graph_module, node, aten.matmul.default, (x, held))
