from dataclasses import replace
from types import MappingProxyType

import pytest
from tests.unit.report import sample

from edgekd.devices.isa import Isa
from edgekd.profiling import verdicts
from edgekd.report import speed
from edgekd.report.findings import sentence
from edgekd.results.findings import Finding
from edgekd.results.models import ModelRecord
from edgekd.results.profile import Effective, Latency, LoadTime, Memory, Operation, Operations, Part, ProfileRecord, Trust
from edgekd.results.runtime import Delegate, FloatOperation, FloatOperators, RuntimeGraph

VNNI = Isa("x86_64", frozenset({"avx2", "avx512_vnni"}))
AVX2 = Isa("x86_64", frozenset({"avx2"}))
A72 = Isa("aarch64", frozenset({"asimd"}))
CALM = Trust("trusted", (), 0.0, 0.0, 0.1, 0.2)


def profile(model, p50, ci, operations=MappingProxyType({"int8": 9}), delegates=(Delegate("CPUExecutionProvider", 9, 9),)):
    return ProfileRecord(
        model=model,
        device="host",
        emulated=False,
        effective=Effective("onnxruntime 1.31.1", 1, operations, delegates),
        load_ms=LoadTime(2.0, 1.0),
        first_ms=1.0,
        warmup_ms=300.0,
        latency_ms=Latency(p50, p50, p50, p50, p50, 100, ci),
        memory=Memory(60.0, 50.0, 10.0),
        trust=CALM,
        blocks=(p50,) * 3,
    )


def files(*own):
    """Records of int8 files and their float twins; ``own`` in place of the plain ones."""
    plain = [ModelRecord(name, "artifact", name, "int8") for name in ("onnx", "tflite", "openvino")]
    floats = [ModelRecord(f"{m.format}_float", "artifact", m.format, "float32", twin_of=m.name) for m in plain]
    return (*own, *(model for model in (*plain, *floats) if model.name not in {one.name for one in own}))


def findings(profiles, models, cpu):
    """What is said of settings and of the speed of int8."""
    models = files(*models)
    speeds = verdicts.speeds(profiles, models, cpu)
    result = replace(sample.good(), profiles=tuple(profiles), models=models, speeds=speeds)
    return (*map(sentence, verdicts.settings(profiles, models, "host")), *speed.sentences(result))


def compare(int8, float32, cpu, model=None):
    """What is said of the speed of one file."""
    models = files(*([model] if model else []))
    own = next(one for one in models if one.name == int8.model)
    return findings([int8, replace(float32, model=f"{own.name}_float")], [own], cpu)[-1]


def whole_path(profiles):
    return speed.whole_path(profiles, files(), "host")


FLOAT = profile("onnx_float", 3.0, (2.9, 3.1), {"float32": 9})
TWO_LEFT = ModelRecord(
    "tflite",
    "artifact",
    "tflite",
    "int8",
    float_ops=tuple(FloatOperation(layer, "mul", layer, "kept in float", asked=True) for layer in "ab"),
)


def test_faster():
    told = compare(profile("onnx", 2.14, (2.1, 2.2)), FLOAT, VNNI)
    assert told == "In ONNX Runtime on host int8 is 1.40× faster than float32 (p50 2.14 ms against 3.00 ms)."


def test_slower_with_all_that_is_known():
    told = compare(profile("tflite", 6.3, (6.2, 6.4), delegates=(Delegate("XNNPACK", 50, 70, 20),)), FLOAT, A72, TWO_LEFT)
    assert told == (
        "In TensorFlow Lite on host int8 is NOT faster than float32: it is 2.10× slower (p50 6.30 ms against 3.00 ms). "
        "Known: the CPU has no dot product (asimddp), so that an int8 multiply-add takes several instructions; "
        "2 operations were left in float; the graph is cut up: XNNPACK 50 of 70 operations in 20 parts."
    )


def test_what_the_runtime_alone_runs_in_float_is_a_reason():
    floats = (
        FloatOperators("QuantizeLinear", 1, "float32", True, "conversion of the input"),
        FloatOperators("Gelu", 2, "float32", False, "ONNX Runtime has no int8 kernel for Gelu", ("a", "b")),
    )
    model = ModelRecord("onnx", "artifact", "onnx", "int8", runtime_graph=RuntimeGraph("onnxruntime 1", 9, floats))
    (told,) = findings([profile("onnx", 6.3, (6.2, 6.4)), FLOAT], [model], VNNI)
    assert told.endswith(
        "Known: ONNX Runtime runs 2 Gelu (a, b) in float32 although the file is int8: "
        "ONNX Runtime has no int8 kernel for Gelu."
    )


def test_overlap_is_no_difference():
    told = compare(profile("openvino", 2.8, (2.7, 2.95)), FLOAT, AVX2)
    assert told == (
        "In OpenVINO on host int8 is NOT shown to be faster than float32: no difference shown (p50 2.80 ms against "
        "3.00 ms; the 95 % intervals [2.70 ms, 2.95 ms] and [2.90 ms, 3.10 ms] overlap). "
        "Known: the CPU has no VNNI, so that an int8 multiply-add takes several instructions."
    )


def test_nothing_is_invented_where_nothing_is_known():
    assert compare(profile("onnx", 3.5, (3.4, 3.6)), FLOAT, VNNI).endswith("(p50 3.50 ms against 3.00 ms).")


def test_tiny_model_and_float_operations_are_named():
    tiny = profile("onnx_float", 0.0412, (0.041, 0.042), {"float32": 9})
    told = compare(profile("onnx", 0.05, (0.049, 0.051), {"int8": 3, "float32": 1}), tiny, VNNI)
    assert "the runtime computed int8 3, float32 1 of 4 operations" in told
    assert "the model is so small (float32 0.041 ms) that the cost of a call weighs in" in told


DRIFTED = Trust("untrusted", (Finding("drift", figures={"change": 0.4}),), 0.4, 0.2, 0.1, 0.2)


def in_rounds(model, blocks, **more):
    return replace(profile(model, blocks[0], (blocks[0], blocks[-1])), trust=DRIFTED, blocks=tuple(blocks), **more)


PACES = (1.0, 1.1, 1.2, 1.2, 1.3, 1.4)


def test_a_winner_in_every_round_is_told_though_the_times_drift():
    slow = in_rounds("onnx_float", [3.0 * pace for pace in PACES])
    told = compare(in_rounds("onnx", [2.0 * pace for pace in PACES]), slow, VNNI)
    assert told == (
        "In ONNX Runtime on host int8 is faster than float32 in each of 6 rounds: 1.50× in the median, 1.50× to 1.50×. "
        "The times themselves are untrusted."
    )
    told = compare(in_rounds("onnx", [6.0 * pace for pace in PACES[:-1]] + [9.0]), slow, AVX2)
    assert told == (
        "In ONNX Runtime on host int8 is NOT faster than float32: it is slower in each of 6 rounds, 2.00× in the median, "
        "2.00× to 2.14×. The times themselves are untrusted. "
        "Known: the CPU has no VNNI, so that an int8 multiply-add takes several instructions."
    )


@pytest.mark.parametrize("blocks", [[2.0] * 5 + [4.3], [2.0] * 5])  # one round the other way; too few
def test_no_claim_without_a_winner_in_every_round(blocks):
    told = compare(in_rounds("onnx", blocks), in_rounds("onnx_float", [3.0 * pace for pace in PACES]), VNNI)
    assert "nothing can be said" in told


def test_too_few_rounds_are_named_where_they_are_the_reason():
    told = compare(in_rounds("onnx", [2.0] * 3), in_rounds("onnx_float", [3.0] * 3), VNNI)
    assert told.endswith("and 3 rounds are too few to compare the winners; 6 are enough (profile: {blocks: 6}).")
    split = compare(in_rounds("onnx", [2.0, 2.0, 4.0]), in_rounds("onnx_float", [3.0] * 3), VNNI)
    assert split.endswith("the times are untrusted.")


def test_untrusted_figures_carry_no_claim():
    def doubt(record, *codes):
        return replace(record, trust=replace(CALM, verdict="untrusted", reasons=tuple(map(Finding, codes))))

    told = compare(doubt(profile("onnx", 1.0, (0.9, 1.1)), "busy", "drift"), doubt(FLOAT, "busy"), VNNI)
    nothing = "In ONNX Runtime on host nothing can be said about the speed of int8 against float32: the times are untrusted"
    assert told.startswith(nothing)


@pytest.mark.parametrize("reverse", [False, True])
def test_findings_pair_int8_with_float_of_the_same_runtime(reverse):
    profiles = [FLOAT, profile("onnx", 2.0, (1.9, 2.1)), profile("tflite", 1.0, (0.9, 1.1))]
    models = [
        ModelRecord(
            "onnx", "artifact", "onnx", "int8", float_ops=(FloatOperation("", "softmax", "softmax", "not quantized"),)
        )
    ]
    told = findings(profiles[::-1] if reverse else profiles, models, VNNI)
    assert len(told) == 1
    assert told[0].startswith("In ONNX Runtime on host int8 is 1.50× faster")


def test_nothing_is_said_of_the_speed_of_an_emulated_device():
    pair = [replace(record, emulated=True) for record in (FLOAT, profile("onnx", 9.0, (8.9, 9.1)))]
    assert findings(pair, [], A72) == ()


def test_settings_that_were_not_taken_as_asked_are_a_warning():
    used = Effective("openvino 2026.4.1", 4, {"float16": 9}, asked_threads=1)
    record = replace(profile("openvino", 2.0, (1.9, 2.1)), effective=used)
    model = ModelRecord("openvino", "artifact", "openvino", "int8")
    assert findings([record], [model], A72) == (
        "In OpenVINO on host openvino ran with 4 threads instead of 1.",
        "In OpenVINO on host openvino was computed in float16, although the file is int8.",
    )


@pytest.mark.parametrize(
    ("operations", "warned"),
    [({"int8": 3, "float32": 11}, True), ({"float32": 9}, True), ({"int8": 11, "float32": 3}, False)],
)
def test_an_int8_file_that_is_computed_in_float_is_a_warning(operations, warned):
    used = Effective("onnxruntime 1.31.1", 1, operations)
    record = replace(profile("onnx", 2.0, (1.9, 2.1)), effective=used)
    told = findings([record], [ModelRecord("onnx", "artifact", "onnx", "int8")], A72)
    assert any("was computed mostly in float" in line for line in told) == warned


def test_tensorflow_lite_without_its_delegate_is_a_warning():
    record = replace(profile("tflite", 2.0, (1.9, 2.1)), effective=Effective("tflite-runtime 2.14.0", 1, {"int8": 9}, ()))
    told = findings([record], [ModelRecord("tflite", "artifact", "tflite", "int8")], A72)
    assert told == ("In TensorFlow Lite on host tflite ran without XNNPACK: no delegate took any operation.",)


PATH = (Part("decode", 5.0), Part("preprocess", 3.0), Part("network", 3.0), Part("postprocess", 0.0))


def test_the_whole_path_shows_what_int8_changes_for_the_user():
    int8 = replace(
        profile("onnx", 2.25, (2.2, 2.3)),
        path=tuple(replace(p, ms=p.ms * 0.75 if p.name == "network" else p.ms) for p in PATH),
    )
    told = whole_path([int8, replace(FLOAT, path=PATH)])
    assert told == ("In ONNX Runtime on host int8 makes the network 25 % shorter and the whole 7 % shorter.",)
    assert whole_path([replace(int8, trust=DRIFTED), replace(FLOAT, path=PATH)]) == ()
    overlapping = replace(int8, latency_ms=replace(int8.latency_ms, ci=(2.0, 3.0)))
    assert whole_path([overlapping, replace(FLOAT, path=PATH)]) == ()


def timed(rows, overhead=0.05):
    operations = tuple(Operation(name, kind, ms, precision) for name, kind, ms, precision in rows)
    whole = sum(row.ms for row in operations)
    return Operations(operations, "ONNX Runtime profiler", whole / 0.9, 0.9, overhead)


FLOATS = timed([("c1_nchwc", "Conv", 1.0, "float32"), ("c2_nchwc", "Conv", 1.0, "float32"), ("g", "Gelu", 0.5, "float32"),
                ("m", "Gemm", 0.2, "float32")])  # fmt: skip
INT8 = timed([("q", "QuantizeLinear", 0.4, ""), ("Conv_5_token_1", "QLinearConv", 1.8, "int8"),
              ("Conv_9_token_4", "QLinearConv", 0.9, "int8"), ("g", "Gelu", 0.5, "float32"),
              ("d", "DequantizeLinear", 0.2, ""), ("Gemm_1", "QGemm", 0.1, "int8")])  # fmt: skip


def test_why_int8_is_not_faster_operation_by_operation():
    slow = replace(profile("onnx", 4.0, (3.9, 4.1)), operations=INT8)
    _, told = findings([replace(FLOAT, operations=FLOATS), slow], [], VNNI)
    assert told == (
        "In ONNX Runtime on host, operation by operation (runs of their own; recording adds 5 % in int8 and 5 % in "
        "float32): converting and moving values takes 0.600 ms in 2 operations, against none in float32; "
        "1 operation computed in float takes 0.500 ms: g (Gelu) 0.500 ms; "
        "1 of 3 int8 operations takes longer than the float twin, 1.80 ms against 1.00 ms: "
        "Conv_5_token_1 (QLinearConv) 1.80 ms against 1.00 ms."
    )


def test_operations_are_not_blamed_where_int8_is_faster_or_nothing_can_be_said():
    fast = replace(profile("onnx", 2.0, (1.9, 2.1)), operations=INT8)
    with_ops = replace(FLOAT, operations=FLOATS)
    assert len(findings([with_ops, fast], [], VNNI)) == 1
    untrusted = replace(profile("onnx", 4.0, (3.9, 4.1)), operations=INT8, trust=DRIFTED)
    assert len(findings([with_ops, untrusted], [], VNNI)) == 1
    silent = replace(profile("onnx", 4.0, (3.9, 4.1)), operations=replace(INT8, attributed=0.3))
    assert len(findings([with_ops, silent], [], VNNI)) == 1
    heavy = replace(profile("onnx", 4.0, (3.9, 4.1)), operations=replace(INT8, overhead=2.0))
    assert len(findings([with_ops, heavy], [], VNNI)) == 1


def test_kinds_are_compared_as_a_whole_where_twins_cannot_be_told():
    rows = [(f"Conv_{n}", "QLinearConv", 0.9, "int8") for n in range(3)]
    slow = replace(profile("onnx", 4.0, (3.9, 4.1)), operations=timed(rows))
    _, told = findings([replace(FLOAT, operations=FLOATS), slow], [], VNNI)
    assert told.endswith("3 operations of the kind convolution take 2.70 ms, against 2.00 ms for 2 in float32.")
