"""TensorFlow Lite, for ``.tflite``: LiteRT's interpreter with XNNPACK."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekd.errors import UsageError
from edgekd.profiling.on_device.runtimes.precision import MOVES
from edgekd.profiling.on_device.runtimes.tflite import as_floats, delegated, named, unique
from edgekd.runtimes.base import Declared, LoadedPort, OnDevice, Session, runtimes
from edgekd.runtimes.inside import INPUT, OUTPUT, Graph, Inside, Operator, Probe, Samples, Tensor, dequantized, follow
from edgekd.runtimes.snippets import Cpp, Kotlin, Python

if TYPE_CHECKING:
    from edgekd.runtimes.base import Array

_PYTHON = """
interpreter = Interpreter(str(here / "{file}"), num_threads=1)
interpreter.allocate_tensors()
source, result = interpreter.get_input_details()[0], interpreter.get_output_details()[0]


def run({sample}):  # {taken}{wanted}
    interpreter.set_tensor(source["index"], {to_input})
    interpreter.invoke()
    return {from_output}
"""
_SEVERAL = """
interpreter = Interpreter(str(here / "{file}"), num_threads=1)
interpreter.allocate_tensors()
places = {{part["name"]: part["index"] for part in interpreter.get_input_details() + interpreter.get_output_details()}}


def run_file(arrays):
    for name, value in arrays.items():
        interpreter.set_tensor(places[name], value)
    interpreter.invoke()
    return {{name: interpreter.get_tensor(places[name]) for name in {outputs}}}
"""
_CPP = """
struct Model {{
  explicit Model(const std::string& file = "{file}") : model(TfLiteModelCreateFromFile(file.c_str()), TfLiteModelDelete) {{
    TfLiteInterpreterOptions* options = TfLiteInterpreterOptionsCreate();
    TfLiteInterpreterOptionsSetNumThreads(options, 1);
    if (model) interpreter.reset(TfLiteInterpreterCreate(model.get(), options));
    TfLiteInterpreterOptionsDelete(options);
    if (!interpreter || TfLiteInterpreterAllocateTensors(interpreter.get()) != kTfLiteOk)
      throw std::runtime_error(file + " cannot be loaded");
  }}

  std::vector<float> run(const std::vector<uint8_t>& image) {{
    const std::vector<{kind}> x = prepare(image);
    TfLiteTensor* input = TfLiteInterpreterGetInputTensor(interpreter.get(), 0);
    TfLiteTensorCopyFromBuffer(input, x.data(), x.size() * sizeof({kind}));
    if (TfLiteInterpreterInvoke(interpreter.get()) != kTfLiteOk) throw std::runtime_error("the network does not run");
    const TfLiteTensor* output = TfLiteInterpreterGetOutputTensor(interpreter.get(), 0);
    const auto* raw = static_cast<const {out_kind}*>(TfLiteTensorData(output));
    std::vector<float> logits;
    for (size_t i = 0; i < TfLiteTensorByteSize(output) / sizeof({out_kind}); ++i) logits.push_back({from_output});
    return logits;
  }}

 private:
  std::unique_ptr<TfLiteModel, void (*)(TfLiteModel*)> model;  // before the interpreter, which needs it to its end
  std::unique_ptr<TfLiteInterpreter, void (*)(TfLiteInterpreter*)> interpreter{{nullptr, TfLiteInterpreterDelete}};
}};
"""
_KOTLIN = """
/** The network; `file` is a MappedByteBuffer of {file}: context.assets.openFd("{file}") and its channel. */
class Model(file: MappedByteBuffer) : AutoCloseable {{
    private val interpreter = Interpreter(file, Interpreter.Options().setNumThreads(1))

    fun run(image: ByteArray): FloatArray {{
        val result = ByteBuffer.allocateDirect(interpreter.getOutputTensor(0).numBytes()).order(ByteOrder.nativeOrder())
        interpreter.run(prepare(image).rewind(), result)
        return FloatArray(result.capacity() / {out_bytes}) {{ {from_output} }}
    }}

    override fun close() = interpreter.close()
}}
"""


class _Session:
    def __init__(self, path: Path, threads: int) -> None:
        try:
            from ai_edge_litert import interpreter as runtime
        except ImportError:  # the only one that old devices have
            from tflite_runtime import interpreter as runtime
        self._interpreter = runtime.Interpreter(model_path=str(path), num_threads=threads)
        self._interpreter.allocate_tensors()
        self._inputs = named(self._interpreter.get_input_details())
        self._outputs = named(self._interpreter.get_output_details())
        self.inputs = tuple(_spec(*one) for one in self._inputs)
        self.outputs = tuple(_spec(*one) for one in self._outputs)

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        for name, details in self._inputs:
            self._interpreter.set_tensor(details["index"], _to_integers(inputs[name], details))
        self._interpreter.invoke()
        return {
            name: as_floats(self._interpreter.get_tensor(details["index"]), *details["quantization"])
            for name, details in self._outputs
        }


def _spec(name: str, details: Any) -> LoadedPort:
    dtype = "float32" if details["quantization"][0] > 0 else details["dtype"].__name__
    return LoadedPort(name, tuple(int(side) for side in details["shape"]), dtype)


def _to_integers(x: Array, details: Any) -> Array:
    import numpy as np

    scale, zero_point = details["quantization"]
    if scale <= 0 or details["dtype"] == np.float32:
        return x.astype(details["dtype"], copy=False)
    limits = np.iinfo(details["dtype"])
    integers: Array = np.clip(np.rint(x / np.float32(scale)) + zero_point, limits.min, limits.max)
    return integers.astype(details["dtype"])


def _declared(path: Path) -> Iterator[tuple[str, Declared]]:
    from ai_edge_litert import schema_py_generated as schema

    graph = schema.Model.GetRootAs(path.read_bytes(), 0).Subgraphs(0)
    kinds = {number: kind.lower() for kind, number in vars(schema.TensorType).items() if isinstance(number, int)}
    tensors = [graph.Tensors(graph.Inputs(number)) for number in range(graph.InputsLength())]
    names = unique([tensor.Name().decode(errors="replace") for tensor in tensors])
    for name, tensor in zip(names, tensors, strict=True):
        free = tensor.ShapeSignatureLength()
        read = tensor.ShapeSignature if free else tensor.Shape
        sides = [read(at) for at in range(free or tensor.ShapeLength())]
        kind, grid = kinds[tensor.Type()], tensor.Quantization()
        quantized = kind in ("int8", "uint8") and grid is not None and grid.ScaleLength() == 1 and grid.Scale(0) > 0
        yield name, Declared([None if side < 0 else side for side in sides], kind, quantized)


def _graph(path: Path) -> Graph:
    """Read the operators of a file, and which of them XNNPACK takes, from the interpreter."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path), num_threads=1)
    interpreter.allocate_tensors()
    nodes, taken, delegates = delegated(interpreter._get_ops_details())  # not public; as in the agent
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
            floats.append(Operator(name, "float32", (), INPUT, edge=True))
        elif name == "DEQUANTIZE" and outputs[0] in ends:
            floats.append(Operator(name, "float32", (), OUTPUT, edge=True))
        elif not MOVES.search(name):
            count += 1
            if any(_is_float(tensors[index]) for index in outputs if index in tensors):
                floats.append(Operator(name, "float32", follow(outputs, behind, int)))
    left = Counter(node["op_name"] for node in nodes if node not in taken)
    undelegated = tuple(f"{number} {name}" for name, number in sorted(left.items()))
    return Graph(f"ai-edge-litert {metadata.version('ai-edge-litert')}", count, tuple(floats), tuple(delegates), undelegated)


def _is_float(tensor: Mapping[str, Any]) -> bool:
    return str(tensor["dtype"].__name__).startswith("float")


def _tensors(path: Path, samples: Samples) -> Iterator[list[Tensor]]:
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter

    from edgekd.runtimes.tflite import flatbuffer

    model = flatbuffer.read(path.read_bytes())
    graph = model.subgraphs[0]
    computed = [int(index) for operator in graph.operators for index in operator.outputs]
    kept = {index: step for index in computed if (step := flatbuffer.quantization(graph.tensors[index]))}
    graph.outputs = np.array([*graph.outputs, *(index for index in kept if index not in graph.outputs)], np.int32)
    interpreter = Interpreter(model_content=flatbuffer.write(model), num_threads=1)
    interpreter.allocate_tensors()
    for sample in samples:
        for taken in interpreter.get_input_details():
            interpreter.set_tensor(taken["index"], _to_integers(sample[taken["name"]], taken))
        interpreter.invoke()
        yield [
            Tensor(step[0], dequantized(value, *step))
            for index, step in kept.items()
            if (value := interpreter.get_tensor(index)).ndim
        ]


def _instrument(path: Path, target: Path) -> tuple[Path, tuple[Probe, ...]]:
    import numpy as np

    from edgekd.runtimes.tflite import flatbuffer

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
    return target, tuple(_probe(graph.tensors[at], makers[at]) for at in kept)


def _probe(tensor: Any, kind: str) -> Probe:
    from edgekd.runtimes.tflite import flatbuffer

    step = flatbuffer.quantization(tensor)
    name = tensor.name.decode() if isinstance(tensor.name, bytes) else str(tensor.name)
    return Probe(name, step[0] if step else None, f"{kind} {name}")


def _steps(path: Path) -> list[float | None]:
    from edgekd.runtimes.tflite import flatbuffer

    graph = flatbuffer.read(path.read_bytes()).subgraphs[0]
    before = {int(operator.outputs[0]): int(operator.inputs[0]) for operator in graph.operators if len(operator.inputs) == 1}
    found: list[float | None] = []
    for at in map(int, graph.outputs):
        own = flatbuffer.quantization(graph.tensors[at])
        step = own or (flatbuffer.quantization(graph.tensors[before[at]]) if at in before else None)
        found.append(step[0] if step else None)
    return found


def _other_signatures(path: Path) -> Iterator[str]:
    """Say which signatures are not measured: each is a graph of its own."""
    from ai_edge_litert import schema_py_generated as schema

    try:
        model = schema.Model.GetRootAs(path.read_bytes(), 0)
        found = [model.SignatureDefs(at) for at in range(model.SignatureDefsLength())]
        called = [(one.SubgraphIndex(), one.SignatureKey().decode(errors="replace")) for one in found]
    except Exception:  # of a damaged file, of many classes: its runtime says what is wrong with it
        return
    if others := [key for graph, key in called if graph]:
        first = ", ".join(key for graph, key in called if not graph) or "its first graph"
        yield (
            f"has {len(called)} signatures: edgekd measures {first}, not {', '.join(others)}; to measure another, "
            "convert it to a file with this signature only"
        )


@runtimes.register("tflite")
class TensorFlowLite:
    """LiteRT on the CPU."""

    label, format_label = "TensorFlow Lite", "TFLite"
    packages = ("ai-edge-litert",)
    suffixes = (".tflite", ".lite")
    layout = "NHWC"
    lacks_int8 = ("hardswish", "silu", "gelu")  # XNNPACK's
    inside = Inside(_graph, _tensors, _instrument, _steps)
    on_device = OnDevice.shipped("tflite", "trivial.tflite")
    python = Python(
        "from ai_edge_litert.interpreter import Interpreter", _PYTHON, 'interpreter.get_tensor(result["index"])', _SEVERAL
    )
    cpp = Cpp(
        '#include "tensorflow/lite/c/c_api.h"  // LiteRT: "tflite/c/c_api.h"\n', _CPP,
        "library of TensorFlow Lite for C", "g++ -std=c++17 -O2 -DEDGEKD_MAIN load_{name}.cc -ltensorflowlite_c",
    )  # fmt: skip
    kotlin = Kotlin(
        'implementation("com.google.ai.edge.litert:litert:1.+")', _KOTLIN,
        "import java.nio.ByteBuffer\nimport java.nio.ByteOrder\nimport java.nio.MappedByteBuffer\n"
        "import org.tensorflow.lite.Interpreter",
    )  # fmt: skip

    def load(self, path: Path, threads: int) -> Session:
        """Load a file; see ``Runtime``."""
        return _Session(path, threads)

    def files(self, path: Path) -> tuple[Path, ...]:
        """Return the file alone."""
        return (path,)

    def check(self, path: Path) -> tuple[str, ...]:
        """Refuse what has not a TensorFlow Lite file's mark; see ``Runtime``."""
        with path.open("rb") as file:
            if file.read(8)[4:] != b"TFL3":
                raise UsageError(f"{path} is not a TensorFlow Lite file", "its bytes 5 to 8 have to be TFL3")
        return tuple(_other_signatures(path))

    def declared(self, path: Path) -> Mapping[str, Declared]:
        """Read the inputs; see ``Runtime``."""
        return dict(_declared(path))
