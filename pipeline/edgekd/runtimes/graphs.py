"""The graph that a runtime makes of a file when it loads it: its operators, and which of them compute in float.

A file says how values are stored. The runtime decides which kernel computes an operator, and where it has none in int8, or
where an activation function stands in the way of a fusion, it computes in float between two conversions.
"""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

from edgekd.profiling.on_device.runtimes.precision import MOVES
from edgekd.profiling.on_device.runtimes.tflite import delegated
from edgekd.runtimes import telemetry

T = TypeVar("T")
_INPUT, _OUTPUT = "conversion of the input", "conversion of the output"
_TYPES = {"f32": "float32", "f16": "float16", "bf16": "bfloat16"}
_ORT_INT8 = re.compile(
    r"(Fused)?(Conv|Gemm|MatMul)$|Add$|Mul$|Sigmoid$|LeakyRelu$|Softmax$|Concat$|(Global)?AveragePool$|MaxPool$|Resize$|Where$"
)
"""Operators that ONNX Runtime has in int8."""


@dataclass(frozen=True)
class Operator:
    """An operator that a runtime computes in float.

    Attributes:
        kind: As the runtime names it.
        precision: ``float32``, ``float16`` or ``bfloat16``.
        scales: Scales of the int8 tensors that its result is rounded to, after other float operators too; none where the
            logits are.
        reason: Why it is in float, where the runtime's graph tells.
        edge: Whether it converts the input or the output of the file.
        does: Kind of the layer that it belongs to, where that is another one.
    """

    kind: str
    precision: str
    scales: tuple[float, ...]
    reason: str = ""
    edge: bool = False
    does: str = ""


@dataclass(frozen=True)
class Found:
    """Operators in a runtime's graph of a file: number, those in float, and those that no delegate took."""

    runtime: str
    operators: int
    floats: tuple[Operator, ...]
    delegate: str = ""
    undelegated: tuple[str, ...] = ()


def read(path: Path, format: str) -> Found:
    """Load a file as edgekd and its snippets do, with one thread, and read the graph that the runtime made of it.

    Args:
        path: The file.
        format: ``onnx``, ``tflite`` or ``openvino``.
    """
    return _READERS[format](path)


def follow(starts: Iterable[T], step: Callable[[T], Iterable[float | T]], kind: type[T]) -> tuple[float, ...]:
    """Return the scales that are reached from some tensors or nodes, each of which is visited once.

    Args:
        starts: Where to begin.
        step: Scales, and what of ``kind`` to go on with.
        kind: Of tensors or nodes.
    """
    scales: dict[float, None] = {}
    seen: set[T] = set()
    waiting = list(starts)
    while waiting:
        item = waiting.pop()
        if item not in seen:
            seen.add(item)
            for after in step(item):
                if isinstance(after, kind):
                    waiting.append(after)
                else:
                    scales[float(after)] = None  # type: ignore[arg-type]  # what is not of the kind is a scale
    return tuple(scales)


def _onnx(path: Path) -> Found:
    """Read the graph that ONNX Runtime writes when asked for what it optimized."""
    import onnx
    from onnx import numpy_helper

    runtime = telemetry.import_onnxruntime()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors only
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / "optimized.onnx"
        options.optimized_model_filepath = str(written)
        runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        graph = onnx.load(written).graph
    constants = {item.name: item for item in graph.initializer}
    ends = {value.name for value in graph.output}
    readers: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    kinds = _onnx_types(graph, set(constants))
    floats, count = [], 0

    def behind(name: str) -> Iterator[float | str]:
        for node in readers.get(name, ()):
            if node.op_type == "QuantizeLinear":
                yield float(numpy_helper.to_array(constants[node.input[1]]).ravel()[0])
            else:
                yield from node.output

    for node in graph.node:
        reads = {kinds.get(name, "constant") for name in node.input}
        if node.op_type == "QuantizeLinear" and node.input[0] in {value.name for value in graph.input}:
            floats.append(Operator(node.op_type, "float32", (), _INPUT, edge=True))
        elif node.op_type == "DequantizeLinear" and node.output[0] in ends:
            floats.append(Operator(node.op_type, "float32", (), _OUTPUT, edge=True))
        elif reads <= {"constant"} or MOVES.search(node.op_type):
            continue
        else:
            count += 1
            if "float" in reads and not _is_integer(node.op_type):
                scales = follow(node.output, behind, str)
                floats.append(Operator(node.op_type, "float32", scales, _onnx_reason(node.op_type)))
    return Found(f"onnxruntime {runtime.__version__}", count, tuple(floats))


def _onnx_types(graph: Any, constants: set[str]) -> dict[str, str]:
    """Say of each computed tensor whether it is ``float``, ``int8`` or ``constant``; its operators are in order."""
    kinds = dict.fromkeys(constants, "constant") | {value.name: "float" for value in graph.input}
    for node in graph.node:
        reads = {kinds.get(name, "constant") for name in node.input if name}
        kind = "float" if "float" in reads else "int8" if "int8" in reads else "constant"
        if kind != "constant" and (node.op_type == "DequantizeLinear" or node.op_type.endswith("ToFloat")):
            kind = "float"
        elif kind != "constant" and (node.op_type == "QuantizeLinear" or _is_integer(node.op_type)):
            kind = "int8"
        kinds |= dict.fromkeys(node.output, kind)
    return kinds


def _is_integer(kind: str) -> bool:
    return kind.startswith(("QLinear", "QGemm", "QAttention")) or "Integer" in kind


def _onnx_reason(kind: str) -> str:
    if kind.startswith("Fused"):
        return "an activation function that clips at other values than the int8 range behind it"
    if kind == "ReduceMean":
        return "ONNX Runtime has no int8 kernel for a mean over these dimensions"
    return "" if _ORT_INT8.match(kind) else f"ONNX Runtime has no int8 kernel for {kind}"


def _tflite(path: Path) -> Found:
    """Read the operators of a file, and which of them XNNPACK takes, from the interpreter."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path), num_threads=1)
    interpreter.allocate_tensors()
    nodes, taken, delegate = delegated(interpreter._get_ops_details())  # not public; as in the agent
    tensors = {tensor["index"]: tensor for tensor in interpreter.get_tensor_details()}
    starts = {tensor["index"] for tensor in interpreter.get_input_details()}
    ends = {tensor["index"] for tensor in interpreter.get_output_details()}
    readers: dict[int, list[Any]] = {}
    for node in nodes:
        for index in map(int, node["inputs"]):
            readers.setdefault(index, []).append(node)

    def behind(index: int) -> Iterator[float | int]:
        for node in readers.get(index, ()):
            outputs = [int(index) for index in node["outputs"]]
            if node["op_name"] == "QUANTIZE":
                yield float(tensors[outputs[0]]["quantization"][0])
            else:
                yield from outputs

    floats, count = [], 0
    for node in nodes:
        name, outputs = node["op_name"], [int(index) for index in node["outputs"]]
        if name == "QUANTIZE" and int(node["inputs"][0]) in starts and _is_float(tensors[int(node["inputs"][0])]):
            floats.append(Operator(name, "float32", (), _INPUT, edge=True))
        elif name == "DEQUANTIZE" and outputs[0] in ends:
            floats.append(Operator(name, "float32", (), _OUTPUT, edge=True))
        elif not MOVES.search(name):
            count += 1
            if any(_is_float(tensors[index]) for index in outputs if index in tensors):
                floats.append(Operator(name, "float32", follow(outputs, behind, int)))
    left = Counter(node["op_name"] for node in nodes if node not in taken)
    undelegated = tuple(f"{number} {name}" for name, number in sorted(left.items()))
    return Found(f"ai-edge-litert {metadata.version('ai-edge-litert')}", count, tuple(floats), delegate, undelegated)


def _is_float(tensor: Mapping[str, Any]) -> bool:
    return str(tensor["dtype"].__name__).startswith("float")


def _openvino(path: Path) -> Found:
    """Read each layer's kind and precision from the compiled model, and its scale from the file."""
    openvino = telemetry.import_openvino()
    core = openvino.Core()
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": "1", "NUM_STREAMS": "1"}
    compiled = core.compile_model(str(path), "CPU", {**settings, "PERFORMANCE_HINT": "LATENCY"})
    written = {node.get_friendly_name(): node for node in core.read_model(str(path)).get_ordered_ops()}
    floats, count = [], 0
    for layer in compiled.get_runtime_model().get_ordered_ops():
        kind, precision = (layer.get_rt_info()[key].astype(str) for key in ("layerType", "runtimePrecision"))
        before = {value.get_node().get_rt_info()["layerType"].astype(str) for value in layer.input_values()}
        if MOVES.search(kind) or before <= {"Const"}:
            continue
        count += 1
        if precision not in _TYPES:
            continue
        if kind == "Subgraph" and "Input" in before:  # the quantization of the input, fused into a kernel
            floats.append(Operator(kind, _TYPES[precision], (), _INPUT, edge=True))
            continue
        nodes = list(_written(layer.get_rt_info()["originalLayersNames"].astype(str), written))
        types = list(dict.fromkeys(node.get_type_name() for node in nodes))
        rounding = kind == "Subgraph" and set(types) <= {"FakeQuantize", "Relu", "Clamp"}
        reason = "the rounding is not one with the layer before it, whose result is stored in float" if rounding else ""
        label = f"{kind} ({' + '.join(types)})" if kind == "Subgraph" and types else kind
        scales = _roundings(nodes, written)
        floats.append(Operator(label, _TYPES[precision], scales, reason, does=_layer_before(nodes) if rounding else ""))
    return Found(f"openvino {openvino.__version__.split('-')[0]}", count, tuple(floats))


def _written(names: str, written: Mapping[str, Any]) -> Iterator[Any]:
    """Yield the nodes of the file that a layer is made of; the plugin adds endings, and nodes of its own."""
    for name in names.split(","):
        node = written.get(name) or written.get(re.sub(r"(/.*|_\d+)$", "", name))
        if node is not None:
            yield node


def _layer_before(nodes: Sequence[Any]) -> str:
    """Kind of the layer whose result some nodes round."""
    node = nodes[0] if nodes else None
    while node is not None and node.get_type_name() in ("FakeQuantize", "Relu", "Clamp", "Add"):
        node = node.input_value(0).get_node()
    return node.get_type_name() if node is not None else ""


def _roundings(nodes: Sequence[Any], written: Mapping[str, Any]) -> tuple[float, ...]:
    """Return the scales that the results of some nodes are rounded to, in them or behind them."""
    inside = {node.get_friendly_name() for node in nodes}

    def after(node: Any) -> list[str]:
        ports = (port for output in node.outputs() for port in output.get_target_inputs())
        return [port.get_node().get_friendly_name() for port in ports]

    def behind(name: str) -> Iterator[float | str]:
        node = written[name]
        if node.get_type_name() == "FakeQuantize":
            low, high = (float(node.input_value(port).get_node().get_data().ravel()[0]) for port in (3, 4))
            yield (high - low) / (int(node.get_attributes()["levels"]) - 1)
        else:
            yield from after(node)

    last = [node.get_friendly_name() for node in nodes if not inside & set(after(node))]
    return follow(last, behind, str)


_READERS: Mapping[str, Callable[[Path], Found]] = {"onnx": _onnx, "tflite": _tflite, "openvino": _openvino}
