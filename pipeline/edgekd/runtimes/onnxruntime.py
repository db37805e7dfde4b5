"""ONNX Runtime, for ``.onnx``."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekd.errors import UsageError, cause_of
from edgekd.profiling.on_device.runtimes.precision import MOVES
from edgekd.runtimes import silence
from edgekd.runtimes.base import STRING, Declared, LoadedPort, OnDevice, Session, Shape, runtimes
from edgekd.runtimes.inside import INPUT, OUTPUT, Graph, Inside, Operator, Probe, Samples, Tensor, dequantized, follow
from edgekd.runtimes.snippets import Cpp, Kotlin, Python

if TYPE_CHECKING:
    from edgekd.runtimes.base import Array

_TYPES = {"float": "float32", "double": "float64"}
"""ONNX's names of types where numpy's are others."""
_ORT_INT8 = re.compile(
    r"(Fused)?(Conv|Gemm|MatMul)$|Add$|Mul$|Sigmoid$|LeakyRelu$|Softmax$|Concat$|(Global)?AveragePool$|MaxPool$|Resize$|Where$"
)
"""Operators that ONNX Runtime has in int8."""

_LOADED = """
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(str(here / "{file}"), options, providers=["CPUExecutionProvider"])
"""
_PYTHON = (
    _LOADED
    + """

def run({sample}):  # {taken}
    return session.run(None, {{"{input}": {sample}}})[0]
"""
)
_SEVERAL = (
    _LOADED
    + """names = {outputs}


def run_file(arrays):
    return dict(zip(names, session.run(names, arrays)))
"""
)
_CPP = """
struct Model {{
  explicit Model(const std::string& file = "{file}") : session(env, file.c_str(), one_thread()) {{}}

  std::vector<float> run(const std::vector<uint8_t>& image) {{
    std::vector<{kind}> x = prepare(image);
    const int64_t shape[] = {{{shape}}};
    auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
    Ort::Value input = Ort::Value::CreateTensor<{kind}>(memory, x.data(), x.size(), shape, 4);
    const char* inputs[] = {{"{input}"}};
    const char* outputs[] = {{"{output}"}};
    auto results = session.Run(Ort::RunOptions{{nullptr}}, inputs, &input, 1, outputs, 1);
    const {out_kind}* raw = results[0].GetTensorData<{out_kind}>();
    std::vector<float> logits;
    for (size_t i = 0; i < results[0].GetTensorTypeAndShapeInfo().GetElementCount(); ++i) logits.push_back({from_output});
    return logits;
  }}

 private:
  static Ort::SessionOptions one_thread() {{
    Ort::SessionOptions options;
    options.SetIntraOpNumThreads(1);
    return options;
  }}

  Ort::Env env;
  Ort::Session session;
}};
"""
_KOTLIN = """
/** The network; `file` is the bytes of {file}, such as context.assets.open("{file}").readBytes(). */
class Model(file: ByteArray) : AutoCloseable {{
    private val environment = OrtEnvironment.getEnvironment()
    private val session =
        environment.createSession(file, OrtSession.SessionOptions().apply {{ setIntraOpNumThreads(1) }})

    fun run(image: ByteArray): FloatArray {{
        val shape = longArrayOf({shape})
        val x = prepare(image).apply {{ rewind() }}
        {tensor}.use {{ input ->
            session.run(mapOf("{input}" to input)).use {{ results ->
                val result = (results.get("{output}").get() as OnnxTensor).byteBuffer.order(ByteOrder.nativeOrder())
                return FloatArray(result.remaining() / {out_bytes}) {{ {from_output} }}
            }}
        }}
    }}

    override fun close() = session.close()
}}
"""


def imported() -> Any:
    """Return the ``onnxruntime`` package."""
    with silence.off():
        import onnxruntime

    return onnxruntime


class _Session:
    def __init__(self, path: Path, threads: int) -> None:
        onnxruntime = imported()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = 3  # errors only
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.inputs = tuple(_spec(one) for one in self._session.get_inputs())
        self.outputs = tuple(_spec(one) for one in self._session.get_outputs())

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        feed = {one.name: inputs[one.name].astype(one.dtype, copy=False) for one in self.inputs}
        return dict(zip((one.name for one in self.outputs), self._session.run(None, feed), strict=True))


def _spec(told: Any) -> LoadedPort:
    shape: Shape = tuple(side if isinstance(side, int) else None for side in told.shape or ())
    kind = told.type.removeprefix("tensor(").removesuffix(")")
    return LoadedPort(told.name, shape, _TYPES.get(kind, kind))


def _declared(path: Path) -> Iterator[tuple[str, Declared]]:
    import onnx

    graph = onnx.load(path, load_external_data=False).graph
    constant = {tensor.name for tensor in graph.initializer}
    for value in graph.input:
        if value.name not in constant:
            kind = value.type.tensor_type
            sides = [side.dim_value if side.HasField("dim_value") else None for side in kind.shape.dim]
            yield value.name, Declared(sides if kind.HasField("shape") else None, _kind_of(value.type))


def _kind_of(declared: Any) -> str:
    import onnx

    which = declared.WhichOneof("value")
    if which != "tensor_type":  # sequence_type, map_type, optional_type
        return str(which).removesuffix("_type")
    kind = declared.tensor_type.elem_type
    return STRING if kind == onnx.TensorProto.STRING else onnx.helper.tensor_dtype_to_np_dtype(kind).name


def _check(path: Path) -> None:
    import onnx

    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # of protobuf, one of several classes
        raise UsageError(f"{path} is not an ONNX file: {cause_of(error)}", "give a file that onnx.save wrote") from error
    if not model.graph.node and not model.graph.output:
        raise UsageError(f"{path} is not an ONNX file: it has no graph", "give a file that onnx.save wrote")
    names = {
        entry.value
        for tensor in _messages(model)
        if isinstance(tensor, onnx.TensorProto) and tensor.data_location == onnx.TensorProto.EXTERNAL
        for entry in tensor.external_data
        if entry.key == "location"
    }
    if names:
        raise UsageError(
            f"{path} has its weights in other files: {', '.join(sorted(names))}",
            "write it as one file: python -c \"import onnx; onnx.save(onnx.load('IN.onnx'), 'OUT.onnx')\"",
        )


def _messages(message: Any) -> Iterator[Any]:
    """A message of protobuf and all messages inside of it: tensors are in graphs, branches, functions and attributes."""
    yield message
    for described, value in message.ListFields():
        if described.message_type:
            for part in [value] if hasattr(value, "ListFields") else value:
                yield from _messages(part)


def _external(path: Path) -> list[Path]:
    """The files that hold tensors of a model; none where it is no model, which is said when it is loaded."""
    import onnx
    from onnx import external_data_helper as helper

    try:
        model = onnx.load(path, load_external_data=False)
    except Exception:  # protobuf has its own kinds
        return []
    tensors = [each for each in helper._get_all_tensors(model) if helper.uses_external_data(each)]
    return sorted({path.parent / helper.ExternalDataInfo(each).location for each in tensors})


def _graph(path: Path) -> Graph:
    """Read the graph that ONNX Runtime writes when asked for what it optimized."""
    import onnx
    from onnx import numpy_helper

    runtime = imported()
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
    kinds = _types(graph, set(constants))
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
            floats.append(Operator(node.op_type, "float32", (), INPUT, edge=True))
        elif node.op_type == "DequantizeLinear" and node.output[0] in ends:
            floats.append(Operator(node.op_type, "float32", (), OUTPUT, edge=True))
        elif reads <= {"constant"} or MOVES.search(node.op_type):
            continue
        else:
            count += 1
            if "float" in reads and not _is_integer(node.op_type):
                scales = follow(node.output, behind, str)
                floats.append(Operator(node.op_type, "float32", scales, _reason(node.op_type)))
    return Graph(f"onnxruntime {runtime.__version__}", count, tuple(floats))


def _types(graph: Any, constants: set[str]) -> dict[str, str]:
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


def _reason(kind: str) -> str:
    if kind.startswith("Fused"):
        return "an activation function that clips at other values than the int8 range behind it"
    if kind == "ReduceMean":
        return "ONNX Runtime has no int8 kernel for a mean over these dimensions"
    return "" if _ORT_INT8.match(kind) else f"ONNX Runtime has no int8 kernel for {kind}"


def _tensors(path: Path, samples: Samples) -> Iterator[list[Tensor]]:
    import onnx
    from onnx import numpy_helper

    runtime = imported()
    model = onnx.load(path)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    clipped = {node.input[0]: node.output[0] for node in model.graph.node if node.op_type == "Clip"}
    steps: list[tuple[float, int]] = []
    for node in model.graph.node:
        if node.op_type != "QuantizeLinear" or node.input[0] in constants:
            continue
        scale, zero_point = (numpy_helper.to_array(constants[name]) for name in node.input[1:3])
        steps.append((float(scale), int(zero_point)))
        kind = constants[node.input[2]].data_type
        result = clipped.get(node.output[0], node.output[0])  # an activation function of integers belongs to the layer
        model.graph.output.append(onnx.helper.make_tensor_value_info(result, kind, None))
    options = runtime.SessionOptions()
    options.log_severity_level = 3  # errors only
    session = runtime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    given = len(session.get_outputs()) - len(steps)
    for sample in samples:
        values = session.run(None, sample)[given:]
        yield [Tensor(step[0], dequantized(value, *step)) for step, value in zip(steps, values, strict=True)]


def _instrument(path: Path, target: Path) -> tuple[Path, tuple[Probe, ...]]:
    import onnx

    model = onnx.shape_inference.infer_shapes(onnx.load(path))
    types = {info.name: info.type for info in model.graph.value_info}
    quantized = _steps_of(model)
    given = [info.name for info in model.graph.output]
    for node in model.graph.node:
        for name in node.output:
            # Of an int8 file what is rounded: a tensor in front of its rounding is part of a kernel.
            known = name in types and types[name].tensor_type.elem_type == onnx.TensorProto.FLOAT
            if known and name not in given and (name in quantized or not quantized):
                model.graph.output.append(onnx.ValueInfoProto(name=name, type=types[name]))
    makers = {name: node for node in model.graph.node for name in node.output}
    probes = [Probe(info.name, quantized.get(info.name), _layer(info.name, makers)) for info in model.graph.output]
    onnx.save(model, target)
    order = [name for node in model.graph.node for name in node.output]
    return target, tuple(sorted(probes, key=lambda probe: order.index(probe.name) if probe.name in order else -1))


def _layer(name: str, makers: Mapping[str, Any]) -> str:
    """The operator behind a tensor, in front of the rounding and the activation function that belong to it."""
    node = makers.get(name)
    while node is not None and node.op_type in ("DequantizeLinear", "QuantizeLinear", "Relu", "Clip"):
        if node.input[0] not in makers:
            break
        node = makers[node.input[0]]
    return name if node is None else f"{node.op_type} {node.name or name}"


def _steps_of(model: Any) -> dict[str, float]:
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


def _steps(path: Path) -> list[float | None]:
    import onnx

    model = onnx.load(path, load_external_data=False)
    found = _steps_of(model)
    return [found.get(output.name) for output in model.graph.output]


@runtimes.register("onnx")
class OnnxRuntime:
    """ONNX Runtime on the CPU."""

    label, format_label = "ONNX Runtime", "ONNX"
    packages = ("onnxruntime",)
    suffixes = (".onnx",)
    layout = "NCHW"
    lacks_int8 = ("hardswish", "silu", "gelu")
    inside = Inside(_graph, _tensors, _instrument, _steps)
    on_device = OnDevice.shipped("onnx", "trivial.onnx")
    python = Python("import onnxruntime", _PYTHON, several=_SEVERAL)
    cpp = Cpp(
        "#include <onnxruntime_cxx_api.h>\n", _CPP, "headers of ONNX Runtime",
        "g++ -std=c++17 -O2 -DEDGEKD_MAIN load_{name}.cc -lonnxruntime",
    )  # fmt: skip
    kotlin = Kotlin(
        'implementation("com.microsoft.onnxruntime:onnxruntime-android:1.+")', _KOTLIN,
        "import ai.onnxruntime.OnnxTensor\nimport ai.onnxruntime.OrtEnvironment\nimport ai.onnxruntime.OrtSession\n"
        "import java.nio.ByteBuffer\nimport java.nio.ByteOrder",
    )  # fmt: skip

    def load(self, path: Path, threads: int) -> Session:
        """Load a file; see ``Runtime``."""
        return _Session(path, threads)

    def files(self, path: Path) -> tuple[Path, ...]:
        """Return the file, and those that hold its tensors."""
        return (path, *_external(path))

    def check(self, path: Path) -> tuple[str, ...]:
        """Refuse what is no ONNX file, or one whose weights are in others; see ``Runtime``."""
        _check(path)
        return ()

    def declared(self, path: Path) -> Mapping[str, Declared]:
        """Read the inputs; see ``Runtime``."""
        return dict(_declared(path))
