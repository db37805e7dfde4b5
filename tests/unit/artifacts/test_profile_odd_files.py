"""``edgekd profile`` of files that others made: what is odd is refused or said, and the rest is measured."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from ai_edge_litert import schema_py_generated as schema
from onnx import TensorProto, helper, numpy_helper
from tests.unit.artifacts.test_profile_files import INFO, KEYS, conv, save
from tests.words import differences, lacking, notes

import edgekd
from edgekd.artifacts import declared, found, inputs
from edgekd.artifacts.inputs import Given
from edgekd.devices.schema import Device
from edgekd.errors import ExitCode, UsageError
from edgekd.evaluation import device_checks
from edgekd.evaluation.device_checks import Expected
from edgekd.profiling import on_device
from edgekd.profiling.inspection import Inspection
from edgekd.profiling.session import Session
from edgekd.profiling.variant import Variant
from edgekd.report.findings import sentence
from edgekd.runtimes.base import Declared
from edgekd.runtimes.tflite import flatbuffer

TRIVIAL = Path(on_device.__file__).parent / "models" / "trivial.tflite"
FLOAT = TensorProto.FLOAT


def one(folder: Path, name: str, kind: int = FLOAT, shape: Any = (1, 4), operator: str = "Identity", **more: Any) -> Path:
    """One operator, ``y`` of ``x``."""
    y = INFO("y", more.pop("gives", kind), shape)
    return save(folder / f"{name}.onnx", [helper.make_node(operator, ["x"], ["y"], **more)], [INFO("x", kind, shape)], [y])


def signatures(folder: Path) -> Path:
    """The trivial model twice, each with a signature."""
    model = flatbuffer.read(TRIVIAL.read_bytes())
    model.subgraphs.append(copy.copy(model.subgraphs[0]))
    model.signatureDefs = []
    for graph, name in enumerate(("small", "large")):
        made = schema.SignatureDefT()
        made.signatureKey, made.subgraphIndex = name, graph
        made.inputs, made.outputs = [], []
        for ends, at in ((made.inputs, model.subgraphs[0].inputs[0]), (made.outputs, model.subgraphs[0].outputs[0])):
            ends.append(schema.TensorMapT())
            ends[0].name, ends[0].tensorIndex = "t", int(at)
        model.signatureDefs.append(made)
    path = folder / "sig.tflite"
    path.write_bytes(flatbuffer.write(model))
    return path


def test_odd_files_are_measured_or_fail_alone(tmp_path: Path) -> None:
    text = one(tmp_path, "text", operator="Cast", to=TensorProto.STRING, gives=TensorProto.STRING)
    empty, huge = one(tmp_path, "empty", shape=(0, 3)), one(tmp_path, "huge", shape=(1, 10**6, 10**6))
    damaged = tmp_path / "damaged.tflite"
    damaged.write_bytes(TRIVIAL.read_bytes()[:500])
    done = edgekd.profile(text, damaged, empty, huge, signatures(tmp_path), out=tmp_path / "out", overrides=KEYS)
    assert [record.model for record in done.result.profiles] == ["text", "empty", "sig"]
    assert done.exit_code == ExitCode.DEVICE_FAILED
    assert sorted(failure.split(":")[0] for failure in done.failures) == ["damaged on host", "huge on host"]
    (huge_failed,) = (failure for failure in done.failures if failure.startswith("huge"))
    assert huge_failed == "huge on host: an input of [1, 1000000, 1000000] does not fit into the memory of this device"
    assert "output y of text on host: it is no tensor of real numbers, and is not compared" in lacking(done.result)
    assert any("sig has 2 signatures: edgekd measures small, not large" in sentence(line) for line in done.result.findings)


def test_an_open_size_is_asked_for(tmp_path: Path) -> None:
    """1×1 pixels tell nothing of the file's times."""
    path = one(tmp_path, "fcn", shape=("n", 3, "h", "w"))
    with pytest.raises(UsageError) as caught:
        edgekd.profile(path, out=tmp_path / "out", overrides=KEYS)
    assert str(caught.value) == (
        f"{path}: the size of its input x is open (?x3x?x?), and so are its times\n"
        "  → say what it gets from you: --shape x=1x3xSIZExSIZE, or --input x=FILE.npy"
    )
    done = edgekd.profile(path, out=tmp_path / "out", shapes={"x": (1, 3, 4, 4)}, overrides=KEYS)
    assert done.exit_code == ExitCode.OK
    rows = one(tmp_path, "rows", shape=("n", 4))
    assert edgekd.profile(rows, out=tmp_path / "out", overrides=KEYS).exit_code == ExitCode.OK, "one of a batch is fed"


def test_a_size_is_said_once(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.ones((5, 4), np.float32))
    with pytest.raises(UsageError, match="x has both --shape and --input"):
        edgekd.profile(
            one(tmp_path, "rows", shape=("n", 4)), out=tmp_path / "out", overrides=KEYS,
            shapes={"x": (2, 4)}, inputs={"x": tmp_path / "x.npy"},
        )  # fmt: skip


def test_no_device_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no device is named"):
        edgekd.profile(TRIVIAL, devices=[], out=tmp_path / "out")


def test_random_outputs_are_no_difference_of_a_device(tmp_path: Path) -> None:
    nodes = [helper.make_node("RandomNormalLike", ["x"], ["noise"]), helper.make_node("Neg", ["x"], ["y"])]
    ends = [INFO(name, FLOAT, [1, 4]) for name in ("x", "noise", "y")]
    path = save(tmp_path / "random.onnx", nodes, ends[:1], ends[1:])
    done = edgekd.profile(path, out=tmp_path / "out", overrides=KEYS)
    variant = Variant("random", "onnx", path)
    host, again = (device_checks.on_host([variant])["random"] for _ in range(2))
    assert host.varying == ("noise",)
    far = Device(name="far", transport="ssh", host="far")
    session = Session(done.result.profiles, done.result.devices[0], inspections={"random": Inspection(again)})
    checked = device_checks.check(session, [variant], far, {"random": Expected(host)}, reached=False)
    assert checked.findings == ()
    why = "not compared: the model gives other outputs each time, on the host too"
    assert notes(checked.notes) == [f"output noise of random on far: {why}"]
    assert [row.differs for row in checked.profiles[0].outputs] == [()], "the other output is compared"
    wrong = replace(again, arrays={**again.arrays, "y": again.arrays["y"] + 1})
    session = replace(session, inspections={"random": Inspection(wrong)})
    checked = device_checks.check(session, [variant], far, {"random": Expected(host)}, reached=False)
    assert "y is off by" in differences(checked.profiles)[0]


def external(model: Any, tensor: Any) -> Any:
    """Say of a tensor of a model that its values are in another file."""
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.data")
    return model


@pytest.mark.parametrize("place", ["initializer", "constant", "branch", "function"])
def test_values_in_other_files_are_refused_wherever_they_stand(tmp_path: Path, place: str) -> None:
    values = numpy_helper.from_array(np.ones(4, "float32"), "c")
    constant = helper.make_node("Constant", [], ["c"], value=values)
    x, y = INFO("x", FLOAT, [4]), INFO("y", FLOAT, [4])
    add = helper.make_node("Add", ["x", "c"], ["y"])
    if place == "branch":
        graphs = {key: helper.make_graph([add], key, [], [y], [values]) for key in ("then_branch", "else_branch")}
        condition = numpy_helper.from_array(np.array(True), "b")
        graph = helper.make_graph([helper.make_node("If", ["b"], ["y"], **graphs)], "net", [x], [y], [condition])
    elif place == "function":
        graph = helper.make_graph([helper.make_node("F", ["x"], ["y"], domain="mine")], "net", [x], [y])
    else:
        nodes = [add] if place == "initializer" else [constant, add]
        graph = helper.make_graph(nodes, "net", [x], [y], [values] if place == "initializer" else [])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("mine", 1)]
    functions = [helper.make_function("mine", "F", ["x"], ["y"], [constant, add], opsets[:1])]
    model = helper.make_model(graph, opset_imports=opsets, functions=functions if place == "function" else [])
    tensors = {
        "initializer": lambda: model.graph.initializer[0],
        "constant": lambda: model.graph.node[0].attribute[0].t,
        "branch": lambda: model.graph.node[0].attribute[0].g.initializer[0],
        "function": lambda: model.functions[0].node[0].attribute[0].t,
    }
    onnx.save(model, tmp_path / "whole.onnx")
    assert len(found.files([tmp_path / "whole.onnx"])) == 1
    (tmp_path / "outside.onnx").write_bytes(external(model, tensors[place]()).SerializeToString())
    with pytest.raises(UsageError, match=r"has its weights in other files: weights\.data"):
        found.files([tmp_path / "outside.onnx"])


def prepared(folder: Path, path: Path, x: Any) -> inputs.Prepared:
    """What a file is fed of an array."""
    np.save(folder / "x.npy", x)
    return inputs.prepare(found.files([path]), Given(inputs={"x": folder / "x.npy"}), folder)


@pytest.mark.parametrize(
    ("kind", "x", "told"),
    [
        (FLOAT, np.zeros((0, 4), "float32"), "0x4 has no values"),
        (FLOAT, np.zeros((1, 4), "complex64"), "complex64 does not fit .*, which takes float32"),
        (FLOAT, np.full((1, 4), "a"), "<U1 does not fit .*, which takes float32"),
        (FLOAT, np.array([[1.0, 1e300, 0, 0]]), "it has values that float32 does not have, such as 1e\\+300"),
        (TensorProto.INT8, np.array([[1, 200, 0, 0]]), "it has values that int8 does not have, such as 200"),
        (TensorProto.INT64, np.zeros((1, 4), "float32"), "float32 does not fit .*, which takes int64"),
        (TensorProto.STRING, np.zeros((1, 4), "float32"), "which takes strings"),
        (FLOAT, np.array([[1, None, 2, 3]], object), "is not an .npy file"),
    ],
)
def test_inputs_of_another_type_are_refused_before_a_device_is_used(tmp_path: Path, kind: int, x: Any, told: str) -> None:
    path = one(tmp_path, "net", kind)
    with pytest.raises(UsageError, match=told):
        prepared(tmp_path, path, x)


@pytest.mark.parametrize(
    ("kind", "x", "becomes"),
    [
        (FLOAT, np.full((2, 4), 0.5), "float32"),
        (FLOAT, np.full((2, 4), 3), "float32"),
        (TensorProto.FLOAT16, np.full((2, 4), 0.5), "float16"),
        (TensorProto.INT8, np.full((2, 4), -3), "int8"),
        (TensorProto.INT64, np.ones((2, 4), bool), "int64"),
    ],
)
def test_inputs_whose_values_fit_are_converted_and_it_is_said(tmp_path: Path, kind: int, x: Any, becomes: str) -> None:
    fed = prepared(tmp_path, one(tmp_path, "net", kind), x)
    value = np.load(fed.variants[0].inputs["x"])
    assert (value.dtype, (value == x).all()) == (becomes, True)
    assert notes(fed.notes)[0] == f"net: the values of x are converted from {x.dtype} to {becomes}"


def test_inputs_of_the_right_type_are_fed_as_they_are_and_nan_is_said(tmp_path: Path) -> None:
    fed = prepared(tmp_path, one(tmp_path, "net"), np.full((2, 4), np.nan, "float32"))
    assert fed.variants[0].inputs == {"x": tmp_path / "x.npy"}
    assert notes(fed.notes)[0].startswith("net: the values of x have NaN")
    strings = prepared(tmp_path, one(tmp_path, "text", TensorProto.STRING), np.full((1, 4), "é"))
    assert strings.variants[0].inputs == {"x": tmp_path / "x.npy"}
    np.savez(tmp_path / "x.npz", np.zeros(1))
    with pytest.raises(UsageError, match="an archive of several arrays"):
        inputs.prepare(found.files([conv(tmp_path)]), Given(inputs={"x": tmp_path / "x.npz"}), tmp_path)


def test_inputs_that_edgekd_cannot_feed_are_refused(tmp_path: Path) -> None:
    sequence = helper.make_tensor_sequence_value_info("x", FLOAT, [1, 4])
    zero = numpy_helper.from_array(np.array(0), "i")
    nodes = [helper.make_node("SequenceAt", ["x", "i"], ["y"])]
    paths = {
        "is of type sequence": save(tmp_path / "seq.onnx", nodes, [sequence], [INFO("y", FLOAT, [1, 4])], zero),
        "is of type bfloat16": one(tmp_path, "b", TensorProto.BFLOAT16),
        "takes strings, which edgekd does not make up": one(tmp_path, "s", TensorProto.STRING),
    }
    for told, path in paths.items():
        with pytest.raises(UsageError, match=told):
            inputs.prepare(found.files([path]), Given(), tmp_path)


def test_types_are_read_from_every_format(tmp_path: Path) -> None:
    import openvino

    for kind, called in ((TensorProto.FLOAT16, "float16"), (TensorProto.UINT8, "uint8"), (TensorProto.BOOL, "bool")):
        path = one(tmp_path, called, kind)
        openvino.save_model(openvino.convert_model(path), path.with_suffix(".xml"))
        for form, suffix in (("onnx", ".onnx"), ("openvino", ".xml")):
            assert declared.inputs(path.with_suffix(suffix), form) == {"x": Declared([1, 4], called)}
    assert [spec.kind for spec in declared.inputs(TRIVIAL, "tflite").values()] == ["float32"]
    model = flatbuffer.read(TRIVIAL.read_bytes())
    taken = model.subgraphs[0].tensors[int(model.subgraphs[0].inputs[0])]
    taken.type, taken.quantization = schema.TensorType.INT8, schema.QuantizationParametersT()
    taken.quantization.scale, taken.quantization.zeroPoint = np.array([0.5], np.float32), np.array([0], np.int64)
    (tmp_path / "int8.tflite").write_bytes(flatbuffer.write(model))
    ((name, spec),) = declared.inputs(tmp_path / "int8.tflite", "tflite").items()
    assert (spec.kind, spec.quantized) == ("int8", True)
    (file,) = found.files([tmp_path / "int8.tflite"])
    values = np.zeros((1, *(side or 1 for side in spec.sides[1:])))  # type: ignore[index]
    assert declared.check(file, {}, {name: values}) == declared.Fed(), "put on its grid on the device"
    with pytest.raises(UsageError, match="there is NaN, which int8 does not have"):
        declared.check(file, {}, {name: values + np.nan})


def test_cores_of_every_device_of_this_machine_are_checked(tmp_path: Path) -> None:
    (tmp_path / "here.yaml").write_text("transport: host\ncores: [4095]\n")
    with pytest.raises(UsageError, match="cores 4095 of here: this machine has no such cores"):
        edgekd.profile(conv(tmp_path), devices=[str(tmp_path / "here.yaml")], out=tmp_path / "out", overrides=KEYS)
    assert not (tmp_path / "out").exists()
