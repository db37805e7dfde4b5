"""Advice: what a student has that int8 is slow at, on the targets of the recipe."""

import pytest

from edgekd.devices.schema import Device
from edgekd.profiling.advice import advise as found
from edgekd.profiling.advice import lacks
from edgekd.recipe.student import Rewrite
from edgekd.report.findings import sentence

HOST = Device(edgekd=1, name="box", transport="host", description="a box", arch="x86_64", isa=("avx2", "avx512_vnni"))
NPU = HOST.model_copy(update={"name": "npu", "io": "int8", "lacks": {"tflite": ()}})


def advise(*args, **options):
    """Return the advice in words."""
    return tuple(map(sentence, found(*args, **options)))


def test_mobilenet_v3_is_told_the_cure():
    assert advise({"hardswish": 19, "relu": 5, "hardsigmoid": 9}, 9, ["tflite"], [HOST]) == (
        "Advice: hardswish (19×) has no int8 kernel in TensorFlow Lite: student.rewrite: {hardswish: relu6}.",
        "Advice: squeeze-excite (9×) is slow in int8 next to the convolutions: student.rewrite: {se: drop}, if the accuracy "
        "allows.",
    )


def test_what_it_advises_can_be_written():
    for kind in ("hardswish", "silu", "gelu"):
        assert f"student.rewrite: {{{kind}: relu6}}" in advise({kind: 1}, 0, ["onnx"], [HOST])[0]
        assert Rewrite.model_validate({kind: "relu6"}).activations() == {kind: "relu6"}


def test_each_runtime_that_lacks_it_is_named():
    line = advise({"silu": 2}, 0, ["onnx", "tflite", "openvino"], [HOST])[0]
    assert "in ONNX Runtime, TensorFlow Lite and OpenVINO:" in line
    line = advise({"gelu": 2}, 0, ["onnx", "tflite", "openvino"], [HOST])[0]
    assert "in ONNX Runtime and TensorFlow Lite:" in line, "OpenVINO has it in its convolution"
    assert advise({"gelu": 2}, 0, ["tflite"], [NPU], "int8") == ()
    assert len(advise({"gelu": 2}, 0, ["tflite"], [NPU, HOST], "int8")) == 1, "one target that lacks it is enough"


@pytest.mark.parametrize("formats", [[], ["onnx"], ["onnx", "tflite", "openvino"]])
def test_a_student_that_int8_is_good_at_needs_no_advice(formats):
    assert advise({"relu6": 35, "relu": 3, "sigmoid": 1}, 0, formats, [HOST]) == ()


def test_a_target_without_float_is_told_of():
    assert advise({}, 0, ["tflite"], [HOST, NPU]) == (
        "Advice: npu takes int8 input and output: export: [{format: tflite, io: int8}].",
    )
    assert advise({}, 0, ["tflite"], [HOST, NPU], "int8") == ()
    assert advise({}, 0, ["onnx"], [NPU]) == ()


def test_a_device_file_has_the_last_word():
    assert lacks(NPU, "tflite") == ()
    assert "hardswish" in lacks(NPU, "onnx")


def test_a_rewrite_of_a_given_network_needs_a_training() -> None:
    (line,) = advise({"gelu": 2}, 0, ["onnx"], [HOST], trained=False)
    assert line.endswith("student.rewrite: {gelu: relu6} and distill: {epochs: 8, losses: [{kind: task}]} to train it.")
