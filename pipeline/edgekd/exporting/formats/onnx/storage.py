"""ONNX constants stored in fewer bits than they are computed with.

A constant and its cast are folded when the file is loaded: the file is smaller, the model is as fast as in float. A
DequantizeLinear in their place would run at every inference (in ONNX Runtime 1.31 that doubles the time).
"""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

_LAYERS = {"Conv", "ConvTranspose", "Gemm", "MatMul"}
_INT4_OPSET, _INT4_IR = 21, 10  # the first with 4-bit integers


def store_float16(model: onnx.ModelProto) -> None:
    """Store every float constant of more than one value in 16 bits.

    Args:
        model: Changed in place; its constants are float16 values already.
    """
    graph = model.graph
    casts = []
    for item in [item for item in graph.initializer if item.data_type == TensorProto.FLOAT]:
        values = numpy_helper.to_array(item)
        if values.size > 1:
            name, half = item.name, f"{item.name}_half"
            item.CopyFrom(numpy_helper.from_array(values.astype(np.float16), half))
            casts.append(_node("Cast", [half], name, to=TensorProto.FLOAT))
    _prepend(graph, casts)


def store_integers(model: onnx.ModelProto, bits: int) -> None:
    """Store the weights of layers as integers of 8 or 4 bits, with one scale an output channel.

    Args:
        model: Changed in place. Weights that are not on the grid (``weights.rounded``) stay as they are.
        bits: 8 or 4.
    """
    graph = model.graph
    constants = {item.name: item for item in graph.initializer}
    nodes: list[onnx.NodeProto] = []
    done: set[str] = set()
    for layer in graph.node:
        name = layer.input[1] if layer.op_type in _LAYERS and len(layer.input) > 1 else ""
        if name not in constants or name in done:
            continue
        values = numpy_helper.to_array(constants[name])
        found = _integers(values, _channel_axis(layer, values.ndim), bits)
        if found is None:
            continue
        done.add(name)
        integers, scale = found
        stored = integers.astype(np.int8 if bits == 8 else ml_dtypes.int4)
        constants[name].CopyFrom(numpy_helper.from_array(stored, f"{name}_int"))
        graph.initializer.append(numpy_helper.from_array(scale, f"{name}_scale"))
        nodes.append(_node("Cast", [f"{name}_int"], f"{name}_float", to=TensorProto.FLOAT))
        nodes.append(_node("Mul", [f"{name}_float", f"{name}_scale"], name))
    _prepend(graph, nodes)
    if bits == 4:
        model.opset_import[0].version = max(_INT4_OPSET, model.opset_import[0].version)
        model.ir_version = max(_INT4_IR, model.ir_version)


def _channel_axis(layer: onnx.NodeProto, ndim: int) -> int:
    transposed = any(attribute.name == "transB" and attribute.i for attribute in layer.attribute)
    return 0 if layer.op_type == "Conv" or transposed else 1 if layer.op_type == "ConvTranspose" else ndim - 1


def _integers(values: NDArray[Any], axis: int, bits: int) -> tuple[NDArray[Any], NDArray[np.float32]] | None:
    """Return (integers, scale that spreads over them), or None where the values are not on such a grid."""
    top = 2 ** (bits - 1) - 1
    others = tuple(index for index in range(values.ndim) if index != axis)
    scale = np.abs(values).max(axis=others, keepdims=True).astype(np.float32) / np.float32(top)
    scale[scale == 0] = 1.0
    integers = np.rint(values / scale)
    return (integers, scale) if np.allclose(integers * scale, values, rtol=1e-5, atol=0) else None


def _node(op: str, inputs: list[str], output: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op, inputs, [output], name=f"{op}_{output}", **attributes)


def _prepend(graph: onnx.GraphProto, nodes: list[onnx.NodeProto]) -> None:
    for position, node in enumerate(nodes):
        graph.node.insert(position, node)
