"""TFLite files read and rewritten: edges in float or int8, short names, nothing stored twice."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Sequence
from typing import Any

import flatbuffers  # type: ignore[import-untyped]
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

_FLOATS = {schema.TensorType.FLOAT16, schema.TensorType.FLOAT32, schema.TensorType.FLOAT64}
_INTEGERS = {schema.TensorType.INT8, schema.TensorType.INT16}
_IDENTIFIER = b"TFL3"


def read(content: bytes) -> Any:
    """Return the object form (``ModelT``) of a TFLite file."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    for graph in model.subgraphs:
        # The library hands out views of ``content``, which cannot be written to.
        graph.inputs, graph.outputs = np.array(graph.inputs), np.array(graph.outputs)
    for buffer in model.buffers:
        if buffer.offset > 1:  # ai-edge-quantizer puts large constants behind the tables; 0 and 1 mean none
            buffer.data = np.frombuffer(content, np.uint8, buffer.size, buffer.offset)
            buffer.offset = buffer.size = 0
    return model


def write(model: Any) -> bytes:
    """Return the bytes of a TFLite file; equal vectors, such as rows of zero points, are stored once."""
    builder = _SharingBuilder(1 << 20)
    builder.Finish(model.Pack(builder), file_identifier=_IDENTIFIER)
    return bytes(builder.Output())


class _SharingBuilder(flatbuffers.Builder):  # type: ignore[misc]  # flatbuffers ships no types
    """A builder that writes a vector it has already written as a reference to the first one."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self._written: dict[tuple[str, bytes], int] = {}

    def CreateNumpyVector(self, x: NDArray[Any]) -> int:  # noqa: N802  # overrides the library's name
        key = (x.dtype.str, x.tobytes())
        if key not in self._written:
            # Tensor data has to start at a multiple of 16, which the library's own method cannot do.
            alignment = 16 if x.dtype.itemsize == 1 else x.dtype.itemsize
            self.StartVector(x.itemsize, x.size, alignment)
            data = x.astype(x.dtype.newbyteorder("<"), copy=False).tobytes()
            self.head -= len(data)
            self.Bytes[self.head : self.head + len(data)] = data
            self._written[key] = self.EndVector()
        return self._written[key]


def constants(content: bytes) -> set[str]:
    """Return the names of the tensors whose values are in a TFLite file."""
    model = read(content)
    tensors = [tensor for graph in model.subgraphs for tensor in graph.tensors]
    return {_name(tensor) for tensor in tensors if model.buffers[tensor.buffer].data is not None}


def signature_inputs(content: bytes) -> tuple[str, ...]:
    """Return the names of the inputs in the signature of a TFLite file, in the order of the file's inputs."""
    model = read(content)
    names = {int(entry.tensorIndex): entry.name.decode() for entry in model.signatureDefs[0].inputs}
    return tuple(names[int(index)] for index in model.subgraphs[0].inputs)


def float_tensors(model: Any) -> tuple[str, ...]:
    """Name the float tensors of a model, apart from its inputs and outputs."""
    found = []
    for graph in model.subgraphs:
        edges = {*graph.inputs, *graph.outputs}
        found += [
            _name(tensor) for index, tensor in enumerate(graph.tensors) if tensor.type in _FLOATS and index not in edges
        ]
    return tuple(found)


def operator_name(model: Any, operator: Any) -> str:
    """Return the name of an operator's kind, such as ``CONV_2D``."""
    code = model.operatorCodes[operator.opcodeIndex]
    number = max(code.builtinCode, code.deprecatedBuiltinCode)
    return next((name for name, value in vars(schema.BuiltinOperator).items() if value == number), str(number))


def dtype(tensor: Any) -> str:
    """Return the type of a tensor's numbers as numpy calls it."""
    return str(next(name for name, value in vars(schema.TensorType).items() if value == tensor.type)).lower()


def quantization(tensor: Any) -> tuple[float, int] | None:
    """Return scale and zero point of an int8 tensor with one scale; None for any other."""
    if tensor.type != schema.TensorType.INT8 or not _has_scale(tensor):
        return None
    return float(tensor.quantization.scale[0]), int(tensor.quantization.zeroPoint[0])


def set_float_edges(model: Any) -> None:
    """Give quantized inputs and outputs a quantize or dequantize operator: the file takes and gives float32.

    Integers of the network itself, such as indices in int16, have no scale, and stay what they are.
    """
    graph = model.subgraphs[0]
    for position, index in enumerate(graph.inputs):
        if _has_scale(graph.tensors[index]):
            outside = _add_float_copy(graph, index)
            operator = _operator(model, schema.BuiltinOperator.QUANTIZE, 1, outside, index)
            graph.operators.insert(0, operator)
            graph.inputs[position] = outside
            _redirect(model, "inputs", index, outside)
    for position, index in enumerate(graph.outputs):
        if _has_scale(graph.tensors[index]):
            outside = _add_float_copy(graph, index)
            graph.operators.append(_operator(model, schema.BuiltinOperator.DEQUANTIZE, 2, index, outside))
            graph.outputs[position] = outside
            _redirect(model, "outputs", index, outside)


def set_int8_edges(model: Any) -> None:
    """Remove the quantize and dequantize operators at the edges, so that the file takes and gives int8.

    An input or output that is also read in float stays float.
    """
    graph = model.subgraphs[0]
    read = [int(index) for operator in graph.operators for index in operator.inputs]
    codes = [code.builtinCode for code in model.operatorCodes]
    for operator in list(graph.operators):
        code = codes[operator.opcodeIndex]
        source, target = int(operator.inputs[0]), int(operator.outputs[0])
        if code == schema.BuiltinOperator.QUANTIZE and source in graph.inputs and read.count(source) == 1:
            graph.inputs[list(graph.inputs).index(source)] = target
            _redirect(model, "inputs", source, target)
        elif code == schema.BuiltinOperator.DEQUANTIZE and target in graph.outputs and target not in read:
            graph.outputs[list(graph.outputs).index(target)] = source
            _redirect(model, "outputs", target, source)
        else:
            continue
        graph.operators.remove(operator)


def drop_unused(model: Any) -> None:
    """Take out the tensors that no operator reads or writes, as the edges that another took the place of."""
    for graph in model.subgraphs:
        lists = [graph.inputs, graph.outputs, *(part for op in graph.operators for part in (op.inputs, op.outputs))]
        used = sorted({int(index) for part in lists for index in part if index >= 0})
        new = {old: position for position, old in enumerate(used)} | {-1: -1}  # -1: an optional operand that is not there

        def moved(indices: Any, new: dict[int, int] = new) -> Any:
            return np.array([new[int(index)] for index in indices], np.int32)

        graph.tensors = [graph.tensors[index] for index in used]
        graph.inputs, graph.outputs = moved(graph.inputs), moved(graph.outputs)
        for operator in graph.operators:
            operator.inputs, operator.outputs = moved(operator.inputs), moved(operator.outputs)
        for signature in model.signatureDefs or []:
            if signature.subgraphIndex == model.subgraphs.index(graph):
                for entry in (*signature.inputs, *signature.outputs):
                    entry.tensorIndex = new[entry.tensorIndex]


def pad_with_zero(model: Any) -> None:
    """Write padding with the integer that stands for 0.0 as PAD, which XNNPACK has; it has no PADV2, which names the value.

    Such is the padding of a max-pool behind a ReLU: the converter pads with the lowest integer, and that is its zero.
    """
    graph = model.subgraphs[0]
    for operator in graph.operators:
        if model.operatorCodes[operator.opcodeIndex].builtinCode != schema.BuiltinOperator.PADV2:
            continue
        step, value = quantization(graph.tensors[operator.inputs[0]]), graph.tensors[operator.inputs[2]]
        data = model.buffers[value.buffer].data
        if step is None or data is None or int(np.asarray(data).view(np.int8)[0]) != step[1]:
            continue
        operator.opcodeIndex = _opcode_index(model, schema.BuiltinOperator.PAD, 2)
        operator.inputs = np.array(operator.inputs[:2], np.int32)
        operator.builtinOptionsType, operator.builtinOptions = schema.BuiltinOptions.PadOptions, schema.PadOptionsT()


def drop_double_negations(model: Any) -> None:
    """Take out the product with -1 of a product with -1, in float32: it is the value itself, bit for bit."""
    graph = model.subgraphs[0]
    read = Counter(int(index) for part in (*(op.inputs for op in graph.operators), graph.outputs) for index in part)
    negated = {int(op.outputs[0]): (op, value) for op in graph.operators if (value := _negated(model, op)) is not None}
    for again in tuple(negated):
        outer, middle = negated[again]
        if middle not in negated or read[middle] != 1 or again in graph.outputs:
            continue
        del negated[again]
        inner, value = negated.pop(middle)
        for operator in graph.operators:
            operator.inputs = np.where(np.asarray(operator.inputs) == again, value, operator.inputs).astype(np.int32)
        graph.operators.remove(outer)
        graph.operators.remove(inner)


def _negated(model: Any, operator: Any) -> int | None:
    """Return the tensor that a product with -1 negates; None for any other operator."""
    graph = model.subgraphs[0]
    if model.operatorCodes[operator.opcodeIndex].builtinCode != schema.BuiltinOperator.MUL:
        return None
    if operator.builtinOptions is not None and operator.builtinOptions.fusedActivationFunction:
        return None
    for factor, value in (map(int, operator.inputs), reversed([int(index) for index in operator.inputs])):
        data, kind = model.buffers[graph.tensors[factor].buffer].data, graph.tensors[factor].type
        if data is not None and kind == schema.TensorType.FLOAT32 and (np.asarray(data).view(np.float32) == -1).all():
            same = list(graph.tensors[value].shape) == list(graph.tensors[operator.outputs[0]].shape)
            return value if same else None
    return None


def compact(model: Any, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Replace long generated names by short ones, and those of inputs and outputs, in order, by these."""
    model.description = b"edgekd"
    for graph in model.subgraphs:
        graph.name = b"main"
        for index, tensor in enumerate(graph.tensors):
            tensor.name = b"t%d" % index
    graph = model.subgraphs[0]
    for indices, names in ((graph.inputs, inputs), (graph.outputs, outputs)):
        for index, name in zip(indices, names, strict=True):
            graph.tensors[index].name = name.encode()
    for signature in model.signatureDefs or []:
        for entry in (*signature.inputs, *signature.outputs):
            entry.name = graph.tensors[entry.tensorIndex].name


def _has_scale(tensor: Any) -> bool:
    parameters = tensor.quantization
    return tensor.type in _INTEGERS and parameters is not None and parameters.scale is not None and len(parameters.scale) > 0


def _add_float_copy(graph: Any, index: int) -> int:
    tensor = copy.copy(graph.tensors[index])
    tensor.type = schema.TensorType.FLOAT32
    tensor.quantization = None
    tensor.buffer = 0  # the empty buffer: the value is computed
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def _operator(model: Any, code: int, version: int, source: int, target: int) -> Any:
    operator = schema.OperatorT()
    operator.opcodeIndex = _opcode_index(model, code, version)
    operator.inputs = np.array([source], np.int32)
    operator.outputs = np.array([target], np.int32)
    return operator


def _opcode_index(model: Any, code: int, version: int) -> int:
    for index, known in enumerate(model.operatorCodes):
        if known.builtinCode == code:
            return index
    operator_code = schema.OperatorCodeT()
    operator_code.builtinCode = operator_code.deprecatedBuiltinCode = code
    operator_code.version = version
    model.operatorCodes.append(operator_code)
    return len(model.operatorCodes) - 1


def _redirect(model: Any, side: str, old: int, new: int) -> None:
    for signature in model.signatureDefs or []:
        for entry in getattr(signature, side):
            if entry.tensorIndex == old:
                entry.tensorIndex = new


def _name(tensor: Any) -> str:
    name = tensor.name
    return name.decode(errors="replace") if isinstance(name, bytes) else str(name)
