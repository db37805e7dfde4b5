"""The tensors inside of a file, made its outputs, so that two machines can be compared layer by layer.

A runtime then does not fuse across them, but runs the kernels that the file as it is used runs. A file that edgekd did not
make is looked into, too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.errors import ExportError, cause_of
from edgekd.evaluation.device_outputs import FLOAT_ERROR, error_share
from edgekd.exporting.formats.tflite import flatbuffer
from edgekd.profiling.inspection import Given
from edgekd.runtimes import telemetry

LAYER_STEPS = 1.0
"""Steps that a layer may be off from the same input: a value half-way between two, which either may round to either side."""


@dataclass(frozen=True)
class Probe:
    """A tensor inside of a file, in the order of computation.

    Attributes:
        name: Of the output that it has become.
        step: Its int8 step; None where it is float.
        layer: The operator that computes it, in words.
    """

    name: str
    step: float | None = None
    layer: str = ""


def instrument(path: Path, format: str, folder: Path) -> tuple[Path, tuple[Probe, ...]]:
    """Write a file whose outputs are those of the given one, and after them its inner tensors.

    Args:
        path: The file; of OpenVINO the .xml.
        format: ``onnx``, ``tflite`` or ``openvino``.
        folder: Where the new file goes.

    Returns:
        The file, and its outputs in order.

    Raises:
        ExportError: It cannot be read.
    """
    try:
        return _INSTRUMENTS[format](path, folder / f"probed{path.suffix}")
    except Exception as error:  # each library raises its own kinds
        raise ExportError(f"{path.name} cannot be looked into: {cause_of(error)}") from error


def steps(path: Path, format: str) -> tuple[float | None, ...]:
    """One int8 step of each output of a file, in order, whatever type it leaves it in; None where it is float inside."""
    try:
        return tuple(_STEPS[format](path))
    except Exception:  # a file that no library but its runtime reads is compared in absolute figures
        return ()


def first_difference(probes: Sequence[Probe], expected: Given, found: Given) -> str:
    """Name the first layer that two machines compute differently; empty where none is more than a rounding apart.

    Args:
        probes: Of the file.
        expected: Its outputs on one machine.
        found: On the other.
    """
    for probe in probes:
        if probe.name not in expected.arrays or probe.name not in found.arrays:
            continue
        wanted, got = (given.arrays[probe.name].astype(np.float64) for given in (expected, found))
        if wanted.shape != got.shape or not np.isfinite(wanted).all() or not np.isfinite(got).all():
            return probe.layer
        if probe.step is None:
            if error_share(wanted, got) > FLOAT_ERROR:
                return probe.layer
        elif float(np.percentile(np.abs(wanted - got), 99)) > (LAYER_STEPS + 0.01) * probe.step:
            return probe.layer
    return ""


def _onnx(path: Path, target: Path) -> tuple[Path, tuple[Probe, ...]]:
    import onnx

    model = onnx.shape_inference.infer_shapes(onnx.load(path))
    types = {info.name: info.type for info in model.graph.value_info}
    quantized = _onnx_steps(model)
    given = [info.name for info in model.graph.output]
    for node in model.graph.node:
        for name in node.output:
            # Of an int8 file what is rounded: a tensor in front of its rounding is part of a kernel.
            known = name in types and types[name].tensor_type.elem_type == onnx.TensorProto.FLOAT
            if known and name not in given and (name in quantized or not quantized):
                model.graph.output.append(onnx.ValueInfoProto(name=name, type=types[name]))
    makers = {name: node for node in model.graph.node for name in node.output}
    probes = [Probe(info.name, quantized.get(info.name), _onnx_layer(info.name, makers)) for info in model.graph.output]
    onnx.save(model, target)
    order = [name for node in model.graph.node for name in node.output]
    return target, tuple(sorted(probes, key=lambda probe: order.index(probe.name) if probe.name in order else -1))


def _onnx_layer(name: str, makers: Mapping[str, Any]) -> str:
    """The operator behind a tensor, in front of the rounding and the activation function that belong to it."""
    node = makers.get(name)
    while node is not None and node.op_type in ("DequantizeLinear", "QuantizeLinear", "Relu", "Clip"):
        if node.input[0] not in makers:
            break
        node = makers[node.input[0]]
    return name if node is None else f"{node.op_type} {node.name or name}"


def _onnx_steps(model: Any) -> dict[str, float]:
    """One step of each tensor that comes out of a DequantizeLinear with one scale."""
    from onnx import numpy_helper

    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    found = {}
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] not in constants and node.input[1] in constants:
            scale = numpy_helper.to_array(constants[node.input[1]])
            if scale.size == 1:
                found[node.output[0]] = float(scale)
    return found


def _tflite(path: Path, target: Path) -> tuple[Path, tuple[Probe, ...]]:
    model = flatbuffer.read(path.read_bytes())
    graph = model.subgraphs[0]
    computed = [int(index) for operator in graph.operators for index in operator.outputs if index >= 0]
    floats = {0}  # TensorType.FLOAT32
    kept = [at for at in computed if flatbuffer.quantization(graph.tensors[at]) or graph.tensors[at].type in floats]
    graph.outputs = np.array([*graph.outputs, *(at for at in kept if at not in graph.outputs)], np.int32)
    model.signatureDefs = None  # they name the outputs there were
    names = set()
    for at in graph.outputs:
        tensor = graph.tensors[int(at)]
        name = tensor.name.decode() if isinstance(tensor.name, bytes) else str(tensor.name)
        if name in names:  # outputs are told apart by their names
            tensor.name = f"{name}#{at}".encode()
        names.add(name)
    target.write_bytes(flatbuffer.write(model))
    makers = {int(at): flatbuffer.operator_name(model, operator) for operator in graph.operators for at in operator.outputs}
    return target, tuple(_tflite_probe(graph.tensors[at], makers[at]) for at in kept)


def _tflite_probe(tensor: Any, kind: str) -> Probe:
    step = flatbuffer.quantization(tensor)
    name = tensor.name.decode() if isinstance(tensor.name, bytes) else str(tensor.name)
    return Probe(name, step[0] if step else None, f"{kind} {name}")


def _openvino(path: Path, target: Path) -> tuple[Path, tuple[Probe, ...]]:
    openvino = telemetry.import_openvino()
    model = openvino.Core().read_model(path)
    given = {result.input_value(0).get_node().get_friendly_name() for result in model.get_results()}
    nodes = _computed(model)
    roundings = [node for node in nodes if node.get_type_name() == "FakeQuantize"]
    inner, probes = [], []
    for node in nodes:
        name, output = node.get_friendly_name(), node.output(0)
        if name not in given and roundings and node not in roundings:
            continue  # in front of its rounding it is part of a kernel
        if not output.get_names():
            output.get_tensor().set_names({f"{name}:0"})
        layer = node.input_value(0).get_node() if node in roundings else node
        label = f"{layer.get_type_name()} {layer.get_friendly_name()}"
        probes.append(Probe(output.get_any_name(), _openvino_step(node), label))
        if name not in given:
            inner.append(output)
    model.add_outputs(inner)
    openvino.save_model(model, target, compress_to_fp16=False)
    return target, tuple(probes)


def _computed(model: Any) -> list[Any]:
    """The nodes with one float output that depends on the model's inputs, in order."""
    depends: set[str] = set()
    found = []
    for node in model.get_ordered_ops():
        sources = [value.get_node().get_friendly_name() for value in node.input_values()]
        if node.get_type_name() == "Parameter" or depends.intersection(sources):
            depends.add(node.get_friendly_name())
            is_float = node.get_output_size() == 1 and node.get_output_element_type(0).to_string() == "f32"
            if is_float and node.get_type_name() not in ("Parameter", "Result"):
                found.append(node)
    return found


def _openvino_step(node: Any) -> float | None:
    if node.get_type_name() != "FakeQuantize":
        return None
    low, high = (float(node.input_value(port).get_node().get_data().reshape(-1)[0]) for port in (3, 4))
    return (high - low) / (int(node.get_attributes()["levels"]) - 1)


def _steps_onnx(path: Path) -> list[float | None]:
    import onnx

    model = onnx.load(path, load_external_data=False)
    found = _onnx_steps(model)
    return [found.get(output.name) for output in model.graph.output]


def _steps_tflite(path: Path) -> list[float | None]:
    graph = flatbuffer.read(path.read_bytes()).subgraphs[0]
    before = {int(operator.outputs[0]): int(operator.inputs[0]) for operator in graph.operators if len(operator.inputs) == 1}
    found: list[float | None] = []
    for at in map(int, graph.outputs):
        own = flatbuffer.quantization(graph.tensors[at])
        step = own or (flatbuffer.quantization(graph.tensors[before[at]]) if at in before else None)
        found.append(step[0] if step else None)
    return found


def _steps_openvino(path: Path) -> list[float | None]:
    openvino = telemetry.import_openvino()
    model = openvino.Core().read_model(path)
    return [_openvino_step(result.input_value(0).get_node()) for result in model.get_results()]


_INSTRUMENTS: Mapping[str, Callable[[Path, Path], tuple[Path, tuple[Probe, ...]]]] = {
    "onnx": _onnx,
    "tflite": _tflite,
    "openvino": _openvino,
}
_STEPS: Mapping[str, Callable[[Path], list[float | None]]] = {
    "onnx": _steps_onnx,
    "tflite": _steps_tflite,
    "openvino": _steps_openvino,
}
