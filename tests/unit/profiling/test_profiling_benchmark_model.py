"""benchmark_model with real inputs and outputs: the stand-in of the test phone, run on this machine."""

import copy
import sys
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from tests.words import differences, notes

from edgekd.artifacts import declared
from edgekd.data.preprocessing import Preprocessing
from edgekd.devices.schema import Device
from edgekd.errors import DeviceError
from edgekd.evaluation import device_checks
from edgekd.evaluation.device_checks import Expected
from edgekd.profiling import on_device
from edgekd.profiling.agents.benchmark_model import BenchmarkAgents
from edgekd.profiling.inspection import Wants
from edgekd.profiling.on_device.runtimes.tflite import TensorFlowLite
from edgekd.profiling.session import measure
from edgekd.profiling.transports.host import Host
from edgekd.profiling.variant import Variant
from edgekd.recipe.profile import Profile
from edgekd.runtimes.tflite import flatbuffer

STAND_IN = Path(__file__).parents[2] / "devices" / "benchmark_model.py"
TRIVIAL = Path(on_device.__file__).parent / "models" / "trivial.tflite"
QUICK = Profile(devices=("phone",), blocks=3, block_runs=1, block_ms=1, warmup_runs=1, warmup_ms=0)
LOOK = Wants(operations=False)
STEP = 0.25
SIZE = 1 << 16
"""Of a tensor: the program's unit is a microsecond, and an inference must take some."""


def tensor(like, name, kind=schema.TensorType.FLOAT32, shape=(1, SIZE), free=None, step=None):
    made = copy.copy(like)
    made.name, made.type, made.buffer = name.encode(), kind, 0
    made.shape, made.shapeSignature = np.array(shape, np.int32), None if free is None else np.array(free, np.int32)
    made.quantization = None
    if step:
        made.quantization = schema.QuantizationParametersT()
        made.quantization.scale, made.quantization.zeroPoint = np.array([step], np.float32), np.array([3], np.int64)
    return made


def operator(model, code, inputs, outputs):
    kind = schema.OperatorCodeT()
    kind.builtinCode, kind.deprecatedBuiltinCode, kind.version = code, code, 1
    model.operatorCodes.append(kind)
    made = schema.OperatorT()
    made.opcodeIndex = len(model.operatorCodes) - 1
    made.inputs, made.outputs = np.array(inputs, np.int32), np.array(outputs, np.int32)
    if code == schema.BuiltinOperator.ADD:
        made.builtinOptionsType, made.builtinOptions = schema.BuiltinOptions.AddOptions, schema.AddOptionsT()
    return made


def write(path, tensors, operators, inputs, outputs):
    model = flatbuffer.read(TRIVIAL.read_bytes())
    graph = model.subgraphs[0]
    like = graph.tensors[int(graph.inputs[0])]
    model.operatorCodes, model.signatureDefs = [], None
    graph.tensors = [tensor(like, *spec) for spec in tensors]
    graph.operators = [operator(model, *spec) for spec in operators]
    graph.inputs, graph.outputs = np.array(inputs, np.int32), np.array(outputs, np.int32)
    path.write_bytes(flatbuffer.write(model))
    return path


def add(path, first="a:0", second="b,c", free=None):
    """Two inputs, their sum and the sum in int8."""
    f, i = schema.TensorType.FLOAT32, schema.TensorType.INT8
    tensors = [(name, f, (1, SIZE), free) for name in (first, second, "sum")] + [("rounded", i, (1, SIZE), free, STEP)]
    ops = [(schema.BuiltinOperator.ADD, (0, 1), (2,)), (schema.BuiltinOperator.QUANTIZE, (2,), (3,))]
    return write(path, tensors, ops, (0, 1), (3, 2))


def test_inputs_of_one_name_are_both_fed(tmp_path):
    runtime = TensorFlowLite("ai_edge_litert", 1)
    runtime.load(str(add(tmp_path / "add.tflite", "x", "x")))
    assert list(runtime.inputs()) == list(declared.inputs(tmp_path / "add.tflite", "tflite")) == ["x", "x#1"]
    found = runtime.outputs({name: np.full((1, SIZE), value, "float32") for name, value in (("x", 1), ("x#1", 2))})
    assert (found["sum"] == 3).all()


@pytest.fixture
def phone(tmp_path):
    """A phone whose transport is this machine."""
    program = tmp_path / "benchmark_model"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{STAND_IN}" "$@"\n')

    def make(kind="", **changes):
        keys = {"edgekd": 1, "name": "phone", "transport": "adb", "description": "this machine", "retries": 0}
        keys |= {"agent": "benchmark_model", "benchmark_model": str(program), "env": {"STAND_IN": kind}}
        return Device.model_validate(keys | changes)

    return make


@pytest.fixture
def two(tmp_path):
    """A file with two inputs, and two rows for them."""
    x = np.random.default_rng(1).normal(size=(2, SIZE)).astype("float32")
    np.save(tmp_path / "a.npy", x)
    np.save(tmp_path / "b.npy", x * 3)
    path = add(tmp_path / "two.tflite")
    return Variant("two", "tflite", path, {"a:0": tmp_path / "a.npy", "b,c": tmp_path / "b.npy"}), x * 4


def measured(variant, device, folder, wants=LOOK):
    session = measure([variant], QUICK, device, folder, transport=Host(), wants=wants)
    assert session.failures == ()
    return session, session.inspections[variant.model].outputs


def test_several_inputs_whatever_their_names_are_fed_and_all_outputs_come_back(phone, two, tmp_path):
    variant, total = two
    session, found = measured(variant, phone(), tmp_path)
    assert list(found.arrays) == ["rounded", "sum"]
    np.testing.assert_allclose(found.arrays["sum"][:, 0], total, rtol=1e-6)
    np.testing.assert_allclose(found.arrays["rounded"][:, 0], np.round(total / STEP) * STEP)
    host = device_checks.on_host([variant])["two"]
    assert found.kinds == host.kinds
    for name, value in host.arrays.items():
        assert found.arrays[name].dtype == value.dtype
        np.testing.assert_array_equal(found.arrays[name], value)
    (record,) = session.profiles
    assert (record.agent, record.images) == ("benchmark_model", 2)
    assert record.inputs != "random"
    assert not [note for note in notes(session.notes) if "random" in note or "outputs" in note]


def test_an_output_that_is_wrong_is_told(phone, two, tmp_path):
    variant, _ = two
    host = device_checks.on_host([variant])
    for kind, told in (("", 0), ("wrong", 1)):
        device = phone(kind)
        session, _ = measured(variant, device, tmp_path)
        checked = device_checks.check(session, [variant], device, {"two": Expected(host=host["two"])}, reached=False)
        assert len(differences(checked.profiles)) == told, kind
        (row,) = checked.profiles[0].outputs
        assert bool(row.differs) is bool(told)
        assert row.p99_lsb == told * round(1 / STEP) * STEP


@pytest.mark.parametrize(
    ("kind", "images", "reason"),
    [
        ("old", 2, "this benchmark_model writes no outputs; take a newer one"),
        ("older", 0, "this benchmark_model takes no values of inputs; take a newer one"),
        ("short", 2, "benchmark_model wrote 327679 bytes, and the outputs of the file have 327680"),
    ],
)
def test_programs_that_cannot_do_it_are_timed_and_say_why(phone, two, tmp_path, kind, images, reason):
    session, found = measured(two[0], phone(kind), tmp_path)
    assert found is None
    assert session.profiles[0].images == images
    assert (session.profiles[0].inputs == "random") is (images == 0)
    assert f"outputs of two on phone: {reason}" in notes(session.notes)
    timed = f"two on phone: it is timed with random values, not with the inputs given: {reason}"
    assert (timed in notes(session.notes)) is (images == 0)


def test_without_inputs_the_times_are_of_random_values_and_the_outputs_of_the_hosts(phone, tmp_path):
    variant = Variant("two", "tflite", add(tmp_path / "two.tflite"))
    session, found = measured(variant, phone(), tmp_path)
    assert (session.profiles[0].images, session.profiles[0].inputs) == (0, "random")
    host = device_checks.on_host([variant])["two"]
    np.testing.assert_array_equal(found.arrays["sum"], host.arrays["sum"])
    assert np.ptp(found.arrays["sum"]) > 0


def test_sizes_that_the_file_leaves_open_are_those_given(phone, tmp_path):
    path = add(tmp_path / "two.tflite", free=(1, -1))
    variant = Variant("two", "tflite", path, shapes={"a:0": (1, SIZE + 2), "b,c": (1, SIZE + 2)})
    _, found = measured(variant, phone(), tmp_path)
    assert found.arrays["sum"].shape == (1, 1, SIZE + 2)


def test_an_output_whose_size_only_an_inference_tells(phone, tmp_path):
    kinds = schema.TensorType
    places = write(
        tmp_path / "where.tflite", [("x", kinds.BOOL, (1, SIZE)), ("at", kinds.INT64, (1, 2), (-1, 2))],
        [(schema.BuiltinOperator.WHERE, (0,), (1,))], (0,), (1,),
    )  # fmt: skip
    session, found = measured(Variant("where", "tflite", places), phone(), tmp_path)
    assert found is None
    assert "outputs of where on phone: the size of its output at is known only after an inference" in notes(session.notes)


def test_an_input_without_dimensions_and_an_inference_of_no_time(phone, tmp_path):
    kinds = schema.TensorType
    number = write(
        tmp_path / "number.tflite", [("x", kinds.FLOAT32, ()), ("y", kinds.FLOAT32, ())],
        [(schema.BuiltinOperator.ADD, (0, 0), (1,))], (0,), (1,),
    )  # fmt: skip
    np.save(tmp_path / "x.npy", np.float32(2))
    with Host() as way:
        agent = BenchmarkAgents(phone("fast"), way).start(
            Variant("number", "tflite", number, {"x": tmp_path / "x.npy"}), "it"
        )
        asked = {"runtime": "tflite", "path": way.put(number), "threads": 1, "inputs": {"x": str(tmp_path / "x.npy")}}
        assert agent.ask("start", 60, **asked)["feeds"] == 0
        (note,) = agent.ask("effective", 60)["notes"]
        assert note.endswith("benchmark_model takes no values of an input without dimensions")
        agent.ask("warmup", 60, runs=1, ms=0)
        with pytest.raises(DeviceError, match="it: an inference takes less than a microsecond"):
            agent.ask("block", 60, runs=100, ms=0)


def test_what_is_not_looked_at_says_so(phone, two, tmp_path):
    variant = Variant("two", "tflite", two[0].path, two[0].inputs, layout="NHWC")
    np.save(tmp_path / "split.npy", np.zeros((2, 3, 4, 4), np.uint8))
    wants = Wants(False, False, Preprocessing((0.5,), (0.5,), 3), (tmp_path / "split.npy",), tmp_path / "split.npy")
    session, _ = measured(variant, phone(), tmp_path, wants)
    assert "the whole path of two on phone: benchmark_model runs only the network" in notes(session.notes)
    assert any(
        note.startswith("accuracy of two on phone: benchmark_model takes one image a process")
        for note in notes(session.notes)
    )


def test_a_file_that_ends_the_runtime_ends_nothing_else(phone, tmp_path):
    path = tmp_path / "damaged.tflite"
    content = bytearray(TRIVIAL.read_bytes())
    content[:4] = b"\xff" * 4
    path.write_bytes(content)
    with Host() as way:
        agent = BenchmarkAgents(phone(), way).start(Variant("damaged", "tflite", path), "damaged on phone")
        with pytest.raises(DeviceError, match="damaged on phone: benchmark_model (ended|died)"):
            agent.ask("start", 60, runtime="tflite", path=way.put(path), threads=1, inputs={"x": [1, 4]})
