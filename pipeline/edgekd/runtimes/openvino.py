"""OpenVINO, for ``.xml`` with the ``.bin`` beside it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from edgekd.errors import UsageError
from edgekd.profiling.on_device.runtimes.openvino import WITHOUT_INT8
from edgekd.profiling.on_device.runtimes.precision import MOVES
from edgekd.runtimes import silence
from edgekd.runtimes.base import Declared, LoadedPort, OnDevice, Session, runtimes
from edgekd.runtimes.inside import INPUT, Graph, Inside, Operator, Probe, Samples, Tensor, follow
from edgekd.runtimes.snippets import Cpp, Python

if TYPE_CHECKING:
    from edgekd.runtimes.base import Array

_FLOATS = {"f32": "float32", "f16": "float16", "bf16": "bfloat16"}
_TYPES = {
    "boolean": "bool", **{f"f{bits}": f"float{bits}" for bits in (16, 32, 64)},
    **{f"{sign}{bits}": f"{kind}{bits}" for sign, kind in (("i", "int"), ("u", "uint")) for bits in (8, 16, 32, 64)},
}  # fmt: skip
"""Types as numpy calls them, by what an .xml file has."""

_LOADED = """
# Without the precision hint OpenVINO computes float layers in bfloat16 or float16 where the CPU has it: other outputs.
settings = {{"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}}
try:
    compiled = openvino.Core().compile_model(str(here / "{file}"), "CPU", settings)
except RuntimeError as error:  # OpenVINO 2026.4 on Arm refuses some int8 convolutions: the same values in float
    print(f"not loaded as int8, trying in float: {{error}}")
    compiled = openvino.Core().compile_model(str(here / "{file}"), "CPU", {{**settings, "{without_int8}": False}})
"""
_PYTHON = (
    _LOADED
    + """

def run({sample}):  # {taken}
    return compiled({sample})[0]
"""
)
_SEVERAL = (
    _LOADED
    + """

def run_file(arrays):
    found = compiled(arrays)
    return {{name: found[name] for name in {outputs}}}
"""
)
_CPP = """
struct Model {{
  explicit Model(const std::string& file = "{file}") {{
    ov::Core core;
    // Without the precision hint OpenVINO computes float layers in bfloat16 or float16 where the CPU has it: other outputs.
    ov::AnyMap settings{{ov::hint::inference_precision(ov::element::f32), ov::inference_num_threads(1)}};
    ov::CompiledModel compiled;
    try {{
      compiled = core.compile_model(file, "CPU", settings);
    }} catch (const ov::Exception& error) {{  // OpenVINO 2026.4 on Arm refuses some int8 convolutions
      std::fprintf(stderr, "not loaded as int8, trying in float: %s\\n", error.what());
      settings["{without_int8}"] = false;
      compiled = core.compile_model(file, "CPU", settings);
    }}
    request = compiled.create_infer_request();
  }}

  std::vector<float> run(const std::vector<uint8_t>& image) {{
    const std::vector<{kind}> x = prepare(image);
    std::copy(x.begin(), x.end(), request.get_input_tensor().data<{kind}>());
    request.infer();
    const ov::Tensor output = request.get_output_tensor();
    const {out_kind}* raw = output.data<{out_kind}>();
    std::vector<float> logits;
    for (size_t i = 0; i < output.get_size(); ++i) logits.push_back({from_output});
    return logits;
  }}

 private:
  ov::InferRequest request;
}};
"""


def imported() -> Any:
    """Return the ``openvino`` package."""
    with silence.off():
        import openvino

    return openvino


def load_without_hint(path: Path, threads: int = 1) -> tuple[Session, str]:
    """Load a file without ``INFERENCE_PRECISION_HINT``, and name the precision that OpenVINO chose for floats.

    Returns:
        The session, and ``float32``, ``float16`` or ``bfloat16``.
    """
    session = _Session(path, threads, hint=False)
    return session, session.precision


class _Session:
    def __init__(self, path: Path, threads: int, hint: bool = True) -> None:
        self._openvino = imported()
        # Without the hint some processors compute in 16 bits, silently.
        settings = {
            **({"INFERENCE_PRECISION_HINT": "f32"} if hint else {}),
            "INFERENCE_NUM_THREADS": str(threads),
            "NUM_STREAMS": "1",
            "PERFORMANCE_HINT": "LATENCY",
        }
        model = self._openvino.Core().compile_model(str(path), "CPU", settings)
        self._request = model.create_infer_request()
        self.inputs = tuple(_spec(index, one) for index, one in enumerate(model.inputs))
        self.outputs = tuple(_spec(index, one) for index, one in enumerate(model.outputs))
        name = model.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        self.precision = _FLOATS.get(name, name)

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        import numpy as np

        for index, spec in enumerate(self.inputs):
            x = np.ascontiguousarray(inputs[spec.name], dtype=spec.dtype)
            self._request.set_input_tensor(index, self._openvino.Tensor(x))
        self._request.infer()
        return {
            spec.name: np.array(self._request.get_output_tensor(index).data, dtype=spec.dtype)
            for index, spec in enumerate(self.outputs)
        }


def _spec(index: int, port: Any) -> LoadedPort:
    shape = port.get_partial_shape()
    sides = () if shape.rank.is_dynamic else tuple(side.get_length() if side.is_static else None for side in shape)
    kind = port.get_element_type().to_dtype()
    return LoadedPort(min(port.get_names(), default=str(index)), sides, "float32" if kind.kind == "f" else kind.name)


def _declared(path: Path) -> Iterator[tuple[str, Declared]]:
    layers = ElementTree.parse(path).iterfind("layers/layer")  # those of a branch are further inside
    parameters = [layer for layer in layers if layer.get("type") == "Parameter"]
    for number, layer in enumerate(parameters):
        data, port = layer.find("data"), layer.find("output/port")
        text = "..." if data is None else data.get("shape", "")
        sides = [int(side) if side.isdigit() else None for side in text.split(",")] if text else []
        names = re.split(r"(?<!\\),", (port.get("names") or "") if port is not None else "")
        kind = "" if data is None else data.get("element_type", "")
        spec = Declared(None if "..." in text else sides, _TYPES.get(kind, kind))
        for name in names if names != [""] else [str(number)]:
            yield name.replace("\\,", ","), spec


def _graph(path: Path) -> Graph:
    """Read each layer's kind and precision from the compiled model, and its scale from the file."""
    openvino = imported()
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
        if precision not in _FLOATS:
            continue
        if kind == "Subgraph" and "Input" in before:  # the quantization of the input, fused into a kernel
            floats.append(Operator(kind, _FLOATS[precision], (), INPUT, edge=True))
            continue
        nodes = list(_written(layer.get_rt_info()["originalLayersNames"].astype(str), written))
        types = list(dict.fromkeys(node.get_type_name() for node in nodes))
        rounding = kind == "Subgraph" and set(types) <= {"FakeQuantize", "Relu", "Clamp"}
        reason = "the rounding is not one with the layer before it, whose result is stored in float" if rounding else ""
        label = f"{kind} ({' + '.join(types)})" if kind == "Subgraph" and types else kind
        scales = _roundings(nodes, written)
        floats.append(Operator(label, _FLOATS[precision], scales, reason, does=_layer_before(nodes) if rounding else ""))
    return Graph(f"openvino {openvino.__version__.split('-')[0]}", count, tuple(floats))


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


def _tensors(path: Path, samples: Samples) -> Iterator[list[Tensor]]:
    import numpy as np

    openvino = imported()
    core = openvino.Core()
    model = core.read_model(path)
    roundings = [node for node in model.get_ordered_ops() if node.get_type_name() == "FakeQuantize"]
    given = [result.input_value(0).get_node().get_friendly_name() for result in model.get_results()]
    scales, shifts = [], []
    for node in roundings:
        in_low, in_high, low, high = (
            float(node.input_value(port).get_node().get_data().reshape(-1)[0]) for port in range(1, 5)
        )
        step = (high - low) / (int(node.get_attributes()["levels"]) - 1)
        # Where zero points are in the biases, a rounding begins at 0; its operand still tells where 0 was, in whole steps.
        # Other operands may lack a bias that OpenVINO has taken into the rounding, as it does with a scalar.
        shift = 0 if low else in_low * (high - low) / (in_high - in_low)
        scales.append(step)
        shifts.append(np.float32(shift if abs(shift / step - round(shift / step)) < 1e-2 else 0))
    model.add_outputs([node.output(0) for node in roundings if node.get_friendly_name() not in given])
    made = [result.input_value(0).get_node().get_friendly_name() for result in model.get_results()]
    places = [made.index(node.get_friendly_name()) for node in roundings]
    request = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}).create_infer_request()
    for sample in samples:
        request.infer(sample)
        outputs = (request.get_output_tensor(place).data for place in places)
        yield [Tensor(scale, values + shift) for scale, shift, values in zip(scales, shifts, outputs, strict=True)]


def _instrument(path: Path, target: Path) -> tuple[Path, tuple[Probe, ...]]:
    openvino = imported()
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
        probes.append(Probe(output.get_any_name(), _step(node), label))
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


def _step(node: Any) -> float | None:
    if node.get_type_name() != "FakeQuantize":
        return None
    low, high = (float(node.input_value(port).get_node().get_data().reshape(-1)[0]) for port in (3, 4))
    return (high - low) / (int(node.get_attributes()["levels"]) - 1)


def _steps(path: Path) -> list[float | None]:
    openvino = imported()
    model = openvino.Core().read_model(path)
    return [_step(result.input_value(0).get_node()) for result in model.get_results()]


@runtimes.register("openvino")
class OpenVino:
    """OpenVINO's CPU plugin."""

    label, format_label = "OpenVINO", "OpenVINO"
    packages = ("openvino",)
    suffixes = (".xml",)
    layout = "NCHW"
    lacks_int8 = ("hardswish", "silu")
    inside = Inside(_graph, _tensors, _instrument, _steps)
    on_device = OnDevice.shipped("openvino", "trivial.xml", "trivial.bin")
    python = Python("import openvino", *(text.replace("{without_int8}", WITHOUT_INT8) for text in (_PYTHON, "", _SEVERAL)))
    cpp = Cpp(
        "#include <openvino/openvino.hpp>\n", _CPP.replace("{without_int8}", WITHOUT_INT8), "",
        "g++ -std=c++17 -O2 -DEDGEKD_MAIN load_{name}.cc -lopenvino (with OpenVINO's -I and -L)",
    )  # fmt: skip
    kotlin = None

    def load(self, path: Path, threads: int) -> Session:
        """Load a file; see ``Runtime``."""
        return _Session(path, threads)

    def files(self, path: Path) -> tuple[Path, ...]:
        """Return the ``.xml`` and the ``.bin`` beside it."""
        return (path, path.with_suffix(".bin"))

    def check(self, path: Path) -> tuple[str, ...]:
        """Refuse what is no OpenVINO model, or has no ``.bin``; see ``Runtime``."""
        if path.suffix != ".xml":
            raise UsageError(f"{path}: OpenVINO's files end in .xml and .bin, in small letters", "name them so")
        with path.open("rb") as file:
            head = file.read(512)
        if b"<net" not in head:
            raise UsageError(f"{path} is not an OpenVINO model", "give the .xml file that openvino.save_model wrote")
        if not path.with_suffix(".bin").is_file():
            raise UsageError(f"{path.with_suffix('.bin')} does not exist", "an OpenVINO model is two files, .xml and .bin")
        return ()

    def declared(self, path: Path) -> Mapping[str, Declared]:
        """Read the inputs; see ``Runtime``."""
        return dict(_declared(path))
