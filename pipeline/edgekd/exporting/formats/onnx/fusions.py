"""ONNX graphs written so that ONNX Runtime keeps a layer in int8 that it would otherwise compute in float.

It makes one integer operator of a dequantize node, an operator and a quantize node right behind each other, where it has
that operator in int8. What is left in float ``optimized`` reads from the runtime. Every pass keeps the integers as they are,
and leaves a graph alone in which there is nothing for it to do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

_QUANTIZE, _DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
_WITH_ACTIVATION = {"Conv", "Gemm", "MatMul", "Add", "Mul"}
_HEIGHT, _WIDTH = 2, 3


@dataclass
class _Graph:
    """An ONNX graph with its constants, and who makes and reads each tensor."""

    constants: Mapping[str, NDArray[Any]]
    makers: Mapping[str, onnx.NodeProto]
    readers: Mapping[str, Sequence[onnx.NodeProto]]

    @classmethod
    def of(cls, graph: onnx.GraphProto) -> _Graph:
        readers: dict[str, list[onnx.NodeProto]] = {}
        for node in graph.node:
            for name in node.input:
                readers.setdefault(name, []).append(node)
        constants = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
        return cls(constants, {name: node for node in graph.node for name in node.output}, readers)

    def quantize_of(self, name: str) -> onnx.NodeProto | None:
        """The quantize node that alone reads a tensor, with one scale and a zero point."""
        readers = self.readers.get(name, ())
        if len(readers) != 1 or readers[0].op_type != _QUANTIZE or len(readers[0].input) < 3:
            return None
        return readers[0] if self.constants[readers[0].input[1]].size == 1 else None

    def is_dequantized(self, name: str) -> bool:
        """Return whether a tensor is integers times a scale, as they are or transposed."""
        node = self.makers.get(name)
        if node is not None and node.op_type == "Transpose":
            node = self.makers.get(node.input[0])
        return node is not None and node.op_type == _DEQUANTIZE


def clip_integers(model: onnx.ModelProto) -> None:
    """Clip the integers behind a layer instead of its floats, where its activation function is no part of the rounding.

    A ReLU is one with the rounding behind it where 0 is the lowest integer. It is not in front of a concatenation with a
    tensor that has negative values, for all operands share one scale. Then ONNX Runtime would compute the convolution in
    float. Rounding keeps the order of values, so to clip and round is to round and clip.
    """
    known = _Graph.of(model.graph)
    fresh: dict[str, onnx.TensorProto] = {}
    nodes: list[onnx.NodeProto] = []
    left_out: dict[str, str] = {}  # result of an activation function that is left out: its operand
    for node in model.graph.node:
        limits = _limits(node, known)
        rounding = known.quantize_of(node.output[0]) if limits else None
        if rounding is not None and limits is not None and not _is_part(limits, rounding, known):
            left_out[node.output[0]] = node.input[0]
            continue
        nodes.append(node)
        if node.op_type == _QUANTIZE and node.input[0] in left_out:
            limits = _limits(known.makers[node.input[0]], known)
            node.input[0] = left_out[node.input[0]]
            nodes += _clip(node, limits or (None, None), known, fresh)
    if left_out:
        del model.graph.node[:]
        model.graph.node.extend(nodes)
        model.graph.initializer.extend(fresh.values())


def _limits(node: onnx.NodeProto, known: _Graph) -> tuple[float | None, float | None] | None:
    """The lowest and highest value of an activation function behind an int8 layer, sum or product; None for another node."""
    before = known.makers.get(node.input[0]) if node.op_type in ("Relu", "Clip") else None
    if before is None or before.op_type not in _WITH_ACTIVATION or len(known.readers[node.input[0]]) > 1:
        return None
    if not all(known.is_dequantized(name) for name in before.input[:2]):  # a layer kept in float
        return None
    if node.op_type == "Relu":
        return 0.0, None
    ends = [name if name else None for name in [*node.input[1:3], "", ""][:2]]
    if any(end is not None and end not in known.constants for end in ends):
        return None
    low, high = (None if end is None else float(known.constants[end]) for end in ends)
    return low, high


def _integers(limits: tuple[float | None, float | None], rounding: onnx.NodeProto, known: _Graph) -> tuple[int, int]:
    """The limits rounded as the values are."""
    scale, zero_point = (known.constants[name].reshape(()) for name in rounding.input[1:3])
    range_ = np.iinfo(zero_point.dtype)
    low, high = (
        end if limit is None else int(np.clip(np.rint(np.float32(limit) / scale) + int(zero_point), range_.min, range_.max))
        for limit, end in zip(limits, (range_.min, range_.max), strict=True)
    )
    return low, high


def _is_part(limits: tuple[float | None, float | None], rounding: onnx.NodeProto, known: _Graph) -> bool:
    """Return whether all integers are within half a step of the limits: then ONNX Runtime leaves the function out."""
    scale, zero_point = (known.constants[name].reshape(()) for name in rounding.input[1:3])
    range_ = np.iinfo(zero_point.dtype)
    low, high = (float(scale) * (end - int(zero_point)) for end in (range_.min, range_.max))
    outside = (0.0 if limits[0] is None else limits[0] - low, 0.0 if limits[1] is None else high - limits[1])
    return max(outside) < 0.499 * float(scale)


def _clip(
    rounding: onnx.NodeProto, limits: tuple[float | None, float | None], known: _Graph, fresh: dict[str, onnx.TensorProto]
) -> list[onnx.NodeProto]:
    """The clip of a quantize node's integers, which takes over the result's name; none where it would change nothing."""
    zero_point = known.constants[rounding.input[2]]
    range_, (low, high) = np.iinfo(zero_point.dtype), _integers(limits, rounding, known)
    if (low, high) == (range_.min, range_.max):
        return []
    ends = []
    for end in (low, high):
        name = f"clip_{end}"
        fresh[name] = numpy_helper.from_array(np.asarray(end, zero_point.dtype), name)
        ends.append(name)
    result = rounding.output[0]
    rounding.output[0] = f"{result}_whole"
    return [helper.make_node("Clip", [rounding.output[0], *ends], [result], name=f"{rounding.name}_clip")]


def pool_means(model: onnx.ModelProto) -> None:
    """Write means over height, width or both as pools, which ONNX Runtime has in int8; ReduceMean it has not.

    A mean that keeps no dimension becomes a pool and a squeeze of its integers.
    """
    known = _Graph.of(model.graph)
    means = [node for node in model.graph.node if _is_mean(node, known)]
    if not means:
        return
    shapes = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in onnx.shape_inference.infer_shapes(model).graph.value_info
    }
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        nodes.append(node)
        shape = shapes.get(node.input[0], []) if node in means else []
        if len(shape) != 4 or not all(shape):
            continue
        axes = sorted(int(axis) % 4 for axis in known.constants[node.input[1]].ravel())
        if not set(axes) <= {_HEIGHT, _WIDTH}:
            continue
        keeps = all(attribute.i for attribute in node.attribute if attribute.name == "keepdims")
        squeezed = node.input[1]
        node.op_type = "GlobalAveragePool" if len(axes) == 2 else "AveragePool"
        node.name = node.name.replace("ReduceMean", node.op_type)
        del node.input[1:], node.attribute[:]
        if len(axes) == 1:
            sides = [shape[axis] if axis in axes else 1 for axis in (_HEIGHT, _WIDTH)]
            node.attribute.append(helper.make_attribute("kernel_shape", sides))
        if not keeps:
            nodes += _squeeze(node, squeezed, known)
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _is_mean(node: onnx.NodeProto, known: _Graph) -> bool:
    if node.op_type != "ReduceMean" or len(node.input) < 2 or node.input[1] not in known.constants:
        return False
    return known.is_dequantized(node.input[0]) and known.quantize_of(node.output[0]) is not None


def _squeeze(pool: onnx.NodeProto, axes: str, known: _Graph) -> list[onnx.NodeProto]:
    """Round a pool's result as it is rounded behind the squeeze, so that both are integer operators."""
    rounding = known.quantize_of(pool.output[0])
    assert rounding is not None  # _is_mean found it
    result, step = pool.output[0], rounding.input[1:3]
    names = [f"{result}_{part}" for part in ("pool", "whole", "map")]
    pool.output[0] = names[0]
    return [
        helper.make_node(_QUANTIZE, [names[0], *step], [names[1]], name=f"{pool.name}_q"),
        helper.make_node(_DEQUANTIZE, [names[1], *step], [names[2]], name=f"{pool.name}_dq"),
        helper.make_node("Squeeze", [names[2], axes], [result], name=f"{pool.name}_squeeze"),
    ]
