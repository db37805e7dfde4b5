"""What a runtime runs in float of an int8 file: counted in the graph that it makes when it loads the file.

A file says how values are stored. The runtime decides which kernel computes an operator, and where it has none in int8, or
where an activation function stands in the way of a fusion, it computes in float between two conversions. Only its optimized
graph tells.

Names do not survive the converters. So an operator is brought back to its layer as in ``inside``: by the scale that its
result is rounded to.
"""

from __future__ import annotations

import math
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

from torch import fx

from edgekd.export import telemetry
from edgekd.profile import agent
from edgekd.records_runtime import FloatOperators, RuntimeGraph

T = TypeVar("T")
_INPUT, _OUTPUT = "conversion of the input", "conversion of the output"
_TYPES = {"f32": "float32", "f16": "float16", "bf16": "bfloat16"}
_KINDS = (
    ("conv", "conv"),
    ("gemm|matmul|fully", "linear|matmul|bmm"),
    ("mean|reduce", "mean|amax"),
    ("pool", "pool|mean"),
    ("sigmoid|logistic", "sigmoid"),
    ("softmax", "softmax"),
    ("tanh", "tanh"),
    ("gelu|erf", "gelu"),
    ("norm|mvn", "norm"),
    ("concat", "cat"),
    ("resize|interpolate", "upsample"),
)
"""Which operators of a runtime are which of the graph (regular expressions of their names)."""
_MOVES = re.compile(r"reshape|view|flatten|permute|transpose|squeeze|expand|pixel_shuffle|slice|pad")
_ACTIVATIONS = re.compile(r"relu|clamp")
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
    """What a runtime makes of a file: number of operators, those in float, and what no delegate took."""

    runtime: str
    operators: int
    floats: tuple[Operator, ...]
    delegate: str = ""
    undelegated: tuple[str, ...] = ()


def look(
    path: Path, format: str, graph: fx.GraphModule, float_ops: Sequence[str], modules: Mapping[str, str]
) -> RuntimeGraph:
    """Load an int8 file as edgekd and its snippets do, and return what its runtime computes in float.

    Args:
        path: The int8 file.
        format: ``onnx``, ``tflite`` or ``openvino``.
        graph: The int8 graph that was exported, ``qat.convert(module, fold_weights=True)``.
        float_ops: Operators that the int8 rules left in float, as ``"name: reason"``.
        modules: The module that a node of ``graph`` is from, by the node's name; empty for one outside of any.
    """
    found = _LOOKS[format](path)
    groups: dict[tuple[str, str, bool, str], list[tuple[Operator, tuple[_Island, ...]]]] = {}
    islands = tuple(_islands(graph, dict(text.split(": ", 1) for text in float_ops)))
    explained: Counter[tuple[_Island, str]] = Counter()
    for operator in found.floats:
        mine = () if operator.edge else _explained(operator, _of(operator, islands), explained)
        known = "; ".join(sorted({reason for island in mine for reason in island.reasons}))
        expected = operator.edge or (bool(mine) and all(island.reasons for island in mine))
        key = (operator.kind, operator.precision, expected, known if expected and known else operator.reason)
        groups.setdefault(key, []).append((operator, mine))
    floats = tuple(
        FloatOperators(kind, len(all_), precision, expected, reason, _layers(all_, modules))
        for (kind, precision, expected, reason), all_ in groups.items()
    )
    return RuntimeGraph(found.runtime, found.operators, floats, found.delegate, found.undelegated)


@dataclass(frozen=True)
class _Island:
    """Operators of the int8 graph between roundings: one operator with its activation function, or several in float."""

    nodes: tuple[fx.Node, ...]
    scale: float | None
    reasons: tuple[str, ...]


def _islands(graph: fx.GraphModule, float_ops: Mapping[str, str]) -> Iterator[_Island]:
    """Yield what is computed between roundings, with the scale of its result; the logits in float have none."""
    roundings = [node for node in graph.graph.nodes if _name(node).startswith("quantize_per_tensor")]
    ends = [(node.all_input_nodes[0], float(node.args[1])) for node in roundings]
    output = graph.graph.output_node().all_input_nodes[0]
    for end, scale in (*ends, (output, None)):
        nodes: list[fx.Node] = []
        waiting = [end]
        while waiting:
            node = waiting.pop()
            if node.op == "call_function" and "quantize_per" not in _name(node) and node not in nodes:
                nodes.append(node)
                waiting += node.all_input_nodes
        if any(not _MOVES.search(str(node.target)) for node in nodes):
            reasons = tuple(dict.fromkeys(float_ops[node.name] for node in nodes if node.name in float_ops))
            yield _Island(tuple(nodes), scale, reasons)


def _name(node: fx.Node) -> str:
    return str(node.target).removeprefix("quantized_decomposed.") if node.op == "call_function" else ""


def _of(operator: Operator, islands: Iterable[_Island]) -> tuple[_Island, ...]:
    """What of the graph an operator can be: its result has the same scale, and it does the same where that tells."""
    near = [
        island for island in islands
        if (island.scale is None and not operator.scales)
        or any(island.scale and math.isclose(scale, island.scale, rel_tol=1e-5) for scale in operator.scales)
    ]  # fmt: skip
    alike = [island for island in near if any(_same(operator.does or operator.kind, node) for node in island.nodes)]
    if operator.kind.startswith("Fused"):  # with its activation function
        alike = [island for island in alike if any(_ACTIVATIONS.search(str(node.target)) for node in island.nodes)]
    return tuple(alike or [island for island in near if island.reasons] or near)


def _explained(
    operator: Operator, islands: tuple[_Island, ...], explained: Counter[tuple[_Island, str]]
) -> tuple[_Island, ...]:
    """Give an operator to what the rules left in float, to as many as there are of it, and else to what they did not.

    Args:
        operator: In float.
        islands: What it can be, by its scale.
        explained: How many operators of a kind an island was given so far; changed.
    """
    kind = operator.does or operator.kind
    for island in islands:
        alike = sum(_same(kind, node) for node in island.nodes)  # none of one that is written with other operators
        if island.reasons and (not alike or explained[island, kind] < alike):
            explained[island, kind] += 1
            return (island,)
    return tuple(island for island in islands if not island.reasons) or islands


def _same(kind: str, node: fx.Node) -> bool:
    names = [graph for runtime, graph in _KINDS if re.search(runtime, kind, re.IGNORECASE)]
    return any(re.search(name, str(node.target)) for name in names)


def _layers(found: Sequence[tuple[Operator, tuple[_Island, ...]]], modules: Mapping[str, str]) -> tuple[str, ...]:
    """Name the layers of several operators; none where more layers could be meant than there are operators."""
    meant: Counter[tuple[str, ...]] = Counter()
    for operator, islands in found:
        names = set()
        for island in islands:
            node = next((node for node in island.nodes if _same(operator.does or operator.kind, node)), island.nodes[0])
            names.add(modules.get(node.name) or node.name)
        meant[tuple(sorted(names))] += 1
    if any(len(names) > count for names, count in meant.items()):
        return ()
    return tuple(sorted({name for names in meant for name in names}))


def _follow(starts: Iterable[T], step: Callable[[T], Iterable[float | T]], kind: type[T]) -> tuple[float, ...]:
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
        elif reads <= {"constant"} or agent.MOVES.search(node.op_type):
            continue
        else:
            count += 1
            if "float" in reads and not _is_integer(node.op_type):
                scales = _follow(node.output, behind, str)
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
    nodes, taken, delegate = agent.delegated(interpreter._get_ops_details())  # not public; as in the agent
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
        elif not agent.MOVES.search(name):
            count += 1
            if any(_is_float(tensors[index]) for index in outputs if index in tensors):
                floats.append(Operator(name, "float32", _follow(outputs, behind, int)))
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
        if agent.MOVES.search(kind) or before <= {"Const"}:
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
    return _follow(last, behind, str)


_LOOKS: Mapping[str, Callable[[Path], Found]] = {"onnx": _onnx, "tflite": _tflite, "openvino": _openvino}
