"""Passes over an ONNX graph of quantize and dequantize nodes: types, size, and a look for what stayed float.

Every pass keeps the numbers exactly as they were.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

_QUANTIZE = "QuantizeLinear"
_DEQUANTIZE = "DequantizeLinear"
_LOWEST = "lowest"
_LAYERS = {"Conv", "Gemm", "MatMul", "ConvTranspose"}
# One with the layer before them in every runtime, so the tensor between is never stored.
_FUSED = {"Relu", "Clip"}
_FUSED_INTO = _LAYERS | {"Add", "Sub", "Mul"}


def shift_to_uint8(model: onnx.ModelProto) -> None:
    """Make every int8 activation uint8 by adding 128 to the integers and to their zero point.

    ONNX Runtime's kernels on x86 multiply unsigned activations with signed weights; signed activations cost it a
    conversion. Real values do not change: ``scale × (q - zero_point)`` has 128 on both sides. Weights keep int8.

    Args:
        model: Changed in place.
    """
    graph = model.graph
    constants = {item.name: item for item in graph.initializer}
    layer_weights = _weights(graph, constants)
    shifted: set[str] = set()
    fresh: dict[str, onnx.TensorProto] = {}

    def shift(name: str) -> str:
        # A zero point can serve weights too, so the original stays and the shifted one gets its own name.
        new = f"{name}_u8"
        if new not in fresh:
            values = numpy_helper.to_array(constants[name]).astype(np.int16) + 128
            fresh[new] = numpy_helper.from_array(values.astype(np.uint8), new)
        return new

    for node in graph.node:
        if node.op_type not in (_QUANTIZE, _DEQUANTIZE) or node.input[0] in layer_weights:
            continue
        zero_point = constants.get(node.input[2]) if len(node.input) > 2 else None
        if zero_point is None or zero_point.data_type != onnx.TensorProto.INT8:
            continue
        node.input[2] = shift(node.input[2])
        if node.op_type == _QUANTIZE:
            shifted.add(node.output[0])
        elif node.input[0] in constants:
            node.input[0] = shift(node.input[0])
    graph.initializer.extend(fresh.values())
    for info in graph.value_info:
        if info.name in shifted:
            info.type.tensor_type.elem_type = onnx.TensorProto.UINT8


def _weights(graph: onnx.GraphProto, constants: dict[str, onnx.TensorProto]) -> set[str]:
    """Return the constants that reach a layer as its weight, as they are or transposed."""
    dequantized: dict[str, str] = {}
    for node in graph.node:
        if node.op_type == _DEQUANTIZE and node.input[0] in constants:
            dequantized[node.output[0]] = node.input[0]
        elif node.op_type == "Transpose" and node.input[0] in dequantized:  # of a linear layer on tokens
            dequantized[node.output[0]] = dequantized[node.input[0]]
    return {
        dequantized[node.input[1]]
        for node in graph.node
        if node.op_type in _LAYERS and len(node.input) > 1 and node.input[1] in dequantized
    }


def drop_zero_weight_offsets(model: onnx.ModelProto) -> None:
    """Leave out the zero points of a convolution's weights where all are 0, which is the default: one byte a channel.

    Linear layers keep theirs: without them ONNX Runtime 1.31 runs a Gemm, which it also makes of a MatMul, in float and
    dequantizes its weights at each inference.
    """
    constants = {item.name: item for item in model.graph.initializer}
    of_conv = {name for node in model.graph.node if node.op_type == "Conv" for name in node.input}
    for node in model.graph.node:
        if node.op_type == _DEQUANTIZE and len(node.input) > 2 and node.input[0] in constants:
            item = constants.get(node.input[2])
            if item is None or item.data_type != onnx.TensorProto.INT8 or node.output[0] not in of_conv:
                continue
            if not numpy_helper.to_array(item).any():
                del node.input[2]


def drop_identities(model: onnx.ModelProto) -> None:
    """Take out products with a constant that leave each integer as it is and change its scale alone.

    Such is the sixth in a hard-swish: its operand and its result have the same integers. The operand's integers are read
    with the result's scale instead.
    """
    graph = model.graph
    constants = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    for product in [node for node in graph.node if node.op_type == "Mul"]:
        before, after = [makers.get(name) for name in product.input], readers.get(product.output[0], [])
        if len(after) != 1 or after[0].op_type != _QUANTIZE or any(node is None for node in before):
            continue
        value, factor = sorted((node for node in before if node), key=lambda node: node.input[0] in constants)
        if value.input[0] not in constants and _keeps_integers(value, factor, after[0], constants):
            for reader in readers[after[0].output[0]]:
                reader.input[0] = value.input[0]
            graph.node.remove(product)
            graph.node.remove(after[0])
    used = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
    for node in [node for node in graph.node if node.op_type == _DEQUANTIZE and node.output[0] not in used]:
        graph.node.remove(node)


def _keeps_integers(
    value: onnx.NodeProto, factor: onnx.NodeProto, result: onnx.NodeProto, constants: dict[str, Any]
) -> bool:
    """Tell whether (value × factor), quantized, has the integers of ``value``."""
    parts = [constants.get(name) for node in (value, factor, result) for name in node.input[1:3]]
    known = [part for part in (*parts, constants.get(factor.input[0])) if part is not None and part.size == 1]
    if value.op_type != _DEQUANTIZE or factor.op_type != _DEQUANTIZE or len(known) < 7:
        return False
    scale, offset, factor_scale, factor_offset, step, result_offset, integer = (part.astype(np.float64) for part in known)
    limits = np.iinfo(known[1].dtype)
    integers = np.arange(limits.min, limits.max + 1)
    products = (integers - offset) * scale * (integer - factor_offset) * factor_scale
    # Far from a tie, so that no runtime's arithmetic rounds to another one.
    return bool(np.abs(products / step + result_offset - integers).max() < 0.01)


def pool_globally(model: onnx.ModelProto) -> None:
    """Write means over height and width as GlobalAveragePool, which ONNX Runtime has in int8; ReduceMean it has not."""
    constants = {item.name: item for item in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type != "ReduceMean" or len(node.input) < 2 or node.input[1] not in constants:
            continue
        attributes = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
        axes = {int(axis) for axis in numpy_helper.to_array(constants[node.input[1]])}
        if axes in ({2, 3}, {-2, -1}) and attributes.get("keepdims", 1):
            node.op_type = "GlobalAveragePool"
            del node.input[1:], node.attribute[:]


def hold_float_layers(model: onnx.ModelProto) -> None:
    """Put a maximum with the lowest float, which changes nothing, behind each float layer between integers.

    ONNX Runtime takes a convolution or Gemm in float whose input and output are integers for one that was forgotten, and
    rounds its weights to 8 bits with one scale (its WeightBiasQuantization): what was kept in float would be int8 again.
    """
    graph = model.graph
    floats = {item.name for item in graph.initializer if item.data_type == onnx.TensorProto.FLOAT}
    made_by = {name: node for node in graph.node for name in node.output}
    read_by: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            read_by.setdefault(name, []).append(node)
    nodes: list[onnx.NodeProto] = []
    held: dict[str, str] = {}  # from what a layer gives to what is read of it
    for node in graph.node:
        if node.op_type == _QUANTIZE and node.input[0] in held:
            nodes.append(onnx.helper.make_node("Max", [node.input[0], _LOWEST], [held[node.input[0]]]))
            node.input[0] = held[node.input[0]]
        nodes.append(node)
        source = made_by.get(node.input[0]) if node.input else None
        if node.op_type in _LAYERS and node.input[1] in floats and source is not None and source.op_type == _DEQUANTIZE:
            out = node.output[0]
            while [reader.op_type for reader in read_by.get(out, ())] in (["Relu"], ["Clip"]):
                out = read_by[out][0].output[0]
            if [reader.op_type for reader in read_by.get(out, ())] == [_QUANTIZE]:
                held[out] = f"{out}_float"
    if held:
        del graph.node[:]
        graph.node.extend(nodes)
        graph.initializer.append(numpy_helper.from_array(np.float32(np.finfo(np.float32).min), _LOWEST))


def compact(model: onnx.ModelProto) -> None:
    """Strip paths, stack traces and long names, and store equal constants once.

    The exporter describes each node's origin in text that is larger than a small model, and that text differs from
    machine to machine. Inputs and outputs of the graph keep their names.
    """
    graph = model.graph
    _strip(model)
    _share_constants(graph)
    _drop_unused_constants(graph)
    del graph.value_info[:]
    kept = {value.name for value in (*graph.input, *graph.output)}
    names: dict[str, str] = {"": ""} | {name: name for name in kept}
    for index, item in enumerate(graph.initializer):
        item.name = names.setdefault(item.name, f"c{index}")
    for index, node in enumerate(graph.node):
        node.name = f"{node.op_type}_{index}"
        for position, name in enumerate(node.input):
            node.input[position] = names.setdefault(name, f"t{len(names)}")
        for position, name in enumerate(node.output):
            node.output[position] = names.setdefault(name, f"t{len(names)}")


def _strip(model: onnx.ModelProto) -> None:
    model.ClearField("metadata_props")
    model.ClearField("doc_string")
    model.producer_name, model.producer_version = "edgekd", ""
    graph = model.graph
    graph.name = "edgekd"
    for holder in (graph, *graph.node, *graph.initializer, *graph.input, *graph.output):
        holder.ClearField("metadata_props")
        holder.ClearField("doc_string")
    for node in graph.node:
        for index in reversed(range(len(node.attribute))):
            if _is_default(node, node.attribute[index]):
                del node.attribute[index]


def _is_default(node: onnx.NodeProto, attribute: onnx.AttributeProto) -> bool:
    if not onnx.defs.has(node.op_type):
        return False
    schema = onnx.defs.get_schema(node.op_type).attributes.get(attribute.name)
    if schema is None or not schema.default_value.name:
        return False
    return bool(onnx.helper.get_attribute_value(schema.default_value) == onnx.helper.get_attribute_value(attribute))


def _share_constants(graph: onnx.GraphProto) -> None:
    first: dict[tuple[Any, ...], str] = {}
    renamed: dict[str, str] = {}
    for item in graph.initializer:
        values = numpy_helper.to_array(item)
        # The raw form is also the shortest one.
        item.CopyFrom(numpy_helper.from_array(values, item.name))
        key = (item.data_type, tuple(item.dims), values.tobytes())
        renamed[item.name] = first.setdefault(key, item.name)
    for node in graph.node:
        for position, name in enumerate(node.input):
            node.input[position] = renamed.get(name, name)


def _drop_unused_constants(graph: onnx.GraphProto) -> None:
    used = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
    kept = [item for item in graph.initializer if item.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def float_tensors(model: onnx.ModelProto) -> tuple[str, ...]:
    """Name the float tensors that a runtime has to keep between operators, apart from inputs and outputs.

    In a fully quantized graph every operator stands between a dequantize and a quantize node, and runtimes run the
    three as one integer operator. What is listed is a value that passes from operator to operator in float.
    """
    consumers: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            consumers.setdefault(name, []).append(node)
    outputs = {value.name for value in model.graph.output}
    return tuple(_kept_in_float(model.graph, consumers, outputs))


def _kept_in_float(graph: onnx.GraphProto, consumers: dict[str, list[onnx.NodeProto]], outputs: set[str]) -> Iterator[str]:
    integers = {node.output[0] for node in graph.node if node.op_type == _QUANTIZE}
    for node in graph.node:
        if node.op_type in (_QUANTIZE, _DEQUANTIZE, "Constant") or integers & set(node.input):
            continue
        for name in node.output:
            readers = consumers.get(name, [])
            if name in outputs or all(reader.op_type == _QUANTIZE for reader in readers):
                continue
            if len(readers) == 1 and node.op_type in _FUSED_INTO and readers[0].op_type in _FUSED:
                continue
            yield name
