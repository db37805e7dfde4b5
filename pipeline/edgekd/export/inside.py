"""What a runtime computes inside of an int8 file, layer by layer, against the float network.

A quantized tensor is found in a file by its scale: to five digits no two layers have the same one by chance, and names do
not survive the converters. Where layers share a scale, as in front of a concatenation, the tensor that fits best is taken.

To look inside costs what makes the runtimes fast: ONNX Runtime and OpenVINO do not fuse across a value that is asked for,
and TensorFlow Lite runs its own kernels in the place of XNNPACK's. The logits of parity are from the files as they are used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.export import telemetry
from edgekd.rundir import EXACT_DB

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Tensor:
    """A quantized tensor: its scale, and its values as floats, (N, C, H, W) or any other shape."""

    scale: float
    values: Array


def sqnr(exact: Mapping[str, Tensor], path: Path, format: str, inputs: Array) -> dict[str, float]:
    """Return signal to quantization noise in dB of every layer that is found in a file.

    Args:
        exact: By layer, the scale that its output has in int8 and its values in the float network, for ``inputs``.
        path: The int8 file.
        format: ``onnx``, ``tflite`` or ``openvino``.
        inputs: (N, C, H, W), float32, as the network takes them.
    """
    found = _LOOKS[format](path, inputs)
    return {name: db for name, tensor in exact.items() if (db := _best(tensor, found)) is not None}


def _best(exact: Tensor, found: Sequence[Tensor]) -> float | None:
    fitting = [
        _db(exact.values, values)
        for tensor in found
        if abs(tensor.scale / exact.scale - 1) < 1e-5 and tensor.values.size == exact.values.size
        for values in _layouts(tensor.values, exact.values.shape)
    ]
    return max(fitting, default=None)


def _layouts(values: Array, shape: tuple[int, ...]) -> Iterator[Array]:
    if values.shape == shape:
        yield values
    if values.ndim == 4 and (channels_first := values.transpose(0, 3, 1, 2)).shape == shape:
        yield channels_first
    if values.ndim != len(shape):  # a flattened map, or one of a single pixel
        yield values.reshape(shape)


def _db(exact: Array, values: Array) -> float:
    signal = float(np.square(exact, dtype=np.float64).sum())
    noise = float(np.square(exact.astype(np.float64) - values).sum())
    if noise == 0:
        return EXACT_DB
    return min(EXACT_DB, 10 * float(np.log10(signal / noise))) if signal else -EXACT_DB


def _onnx(path: Path, inputs: Array) -> list[Tensor]:
    import onnx
    from onnx import numpy_helper

    runtime = telemetry.import_onnxruntime()
    model = onnx.load(path)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    steps: list[tuple[float, int]] = []
    for node in model.graph.node:
        if node.op_type != "QuantizeLinear" or node.input[0] in constants:
            continue
        scale, zero_point = (numpy_helper.to_array(constants[name]) for name in node.input[1:3])
        steps.append((float(scale), int(zero_point)))
        kind = constants[node.input[2]].data_type
        model.graph.output.append(onnx.helper.make_tensor_value_info(node.output[0], kind, None))
    options = runtime.SessionOptions()
    options.log_severity_level = 3  # errors only
    session = runtime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    rows = [session.run(None, {name: row[None]})[1:] for row in inputs]
    return [
        Tensor(scale, _dequantized(np.concatenate(parts), scale, zero_point))
        for (scale, zero_point), parts in zip(steps, zip(*rows, strict=True), strict=True)
    ]


def _tflite(path: Path, inputs: Array) -> list[Tensor]:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    interpreter = Interpreter(
        str(path),
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        experimental_preserve_all_tensors=True,
    )
    interpreter.allocate_tensors()
    (taken,) = interpreter.get_input_details()
    kept = [
        detail
        for detail in interpreter.get_tensor_details()
        if detail["dtype"] is np.int8 and len(detail["quantization_parameters"]["scales"]) == 1
    ]
    rows = []
    for row in inputs:
        x = row.transpose(1, 2, 0)[None]
        if taken["dtype"] is np.int8:
            scale, zero_point = taken["quantization"]
            x = np.clip(np.round(x / scale) + zero_point, -128, 127).astype(np.int8)
        interpreter.set_tensor(taken["index"], x)
        interpreter.invoke()
        rows.append([interpreter.get_tensor(detail["index"]) for detail in kept])
    found = []
    for detail, parts in zip(kept, zip(*rows, strict=True), strict=True):
        if all(part.ndim for part in parts):
            scale, zero_point = detail["quantization"]
            found.append(Tensor(float(scale), _dequantized(np.concatenate(parts), scale, zero_point)))
    return found


def _openvino(path: Path, inputs: Array) -> list[Tensor]:
    openvino = telemetry.import_openvino()
    core = openvino.Core()
    model = core.read_model(path)
    roundings = [node for node in model.get_ordered_ops() if node.get_type_name() == "FakeQuantize"]
    given = [result.input_value(0).get_node().get_friendly_name() for result in model.get_results()]
    roundings.sort(key=lambda node: node.get_friendly_name() not in given)  # the logits are an output already, the first
    scales, shifts = [], []
    for node in roundings:
        in_low, in_high, low, high = (
            float(node.input_value(port).get_node().get_data().reshape(-1)[0]) for port in range(1, 5)
        )
        scales.append((high - low) / (int(node.get_attributes()["levels"]) - 1))
        # Where zero points are in the biases, a rounding begins at 0; its operand still tells where 0 was.
        shifts.append(np.float32(in_low * (high - low) / (in_high - in_low) - low))
    model.add_outputs([node.output(0) for node in roundings if node.get_friendly_name() not in given])
    extra = len(model.outputs) - len(roundings)  # logits in float
    request = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}).create_infer_request()
    rows = []
    for row in inputs:
        request.infer([row[None]])
        rows.append([request.get_output_tensor(extra + index).data.copy() for index in range(len(roundings))])
    return [
        Tensor(scale, np.concatenate(parts) + shift)
        for scale, shift, parts in zip(scales, shifts, zip(*rows, strict=True), strict=True)
    ]


def _dequantized(values: NDArray[Any], scale: float, zero_point: int) -> Array:
    return ((values.astype(np.float32) - np.float32(zero_point)) * np.float32(scale)).astype(np.float32)


_LOOKS: Mapping[str, Callable[[Path, Array], list[Tensor]]] = {"onnx": _onnx, "tflite": _tflite, "openvino": _openvino}
