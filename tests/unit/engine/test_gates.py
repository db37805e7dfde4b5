from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from edgekd.engine import gates
from edgekd.recipe import Recipe
from edgekd.results.fidelity import Fidelity, Figure, LostClasses, WorstAgreement, WorstValue
from edgekd.results.findings import Finding
from edgekd.results.gates import QUALITY, GateRecord, Limit, Verdict
from edgekd.results.models import Estimate, Metrics, ModelRecord, OutputParity, Parity
from edgekd.results.profile import Effective, Latency, LoadTime, Memory, ProfileRecord, Trust
from edgekd.statistics import wilson


def recipe(limits: dict[str, Any], quantize: bool = True) -> Recipe:
    return Recipe.model_validate({
        "edgekd": 1, "data": {"source": "fashion-mnist-mini"}, "student": {"model": "edgekd:resnet10"},
        "distill": {"epochs": 1, "losses": [{"kind": "task"}]}, "export": ["onnx"], "gates": limits,
        **({"quantize": {}} if quantize else {}),
    })  # fmt: skip


def close(drop: float | None, n: int = 2000, sure: bool = True) -> Fidelity:
    """Against the float student; ``sure``: with intervals as narrow as of many images."""
    near = 1e-6 if sure else 0.02

    def figure(value: float, room: float = near) -> Figure:
        return Figure(value, n, value - room, value + room)

    drops = {} if drop is None else {"top1": figure(drop)}
    worst = WorstValue("box", 2, figure(12.0)), WorstAgreement("second", None, figure(0.94))
    return Fidelity("distilled", figure(20.0), figure(0.95), figure(0.004), drops, *worst, LostClasses(10))


def measured(split: Any, n: int, top1: float) -> Metrics:
    return Metrics(split, n, {"top1": Estimate(top1, *wilson(top1, n))})


def model(name: str, top1: float | None = None, agreement: float | None = 1.0, p99: float | None = 1.0,
          size: int | None = 1000, role: Any = "artifact", near: Fidelity | None = None) -> ModelRecord:  # fmt: skip
    metrics = () if top1 is None else (measured("val", 10, 0.123), measured("test", 2000, top1))
    own = OutputParity(0.1, 0.005, agreement, mean_lsb=0.1, p99_lsb=p99, max_lsb=3.0)
    parity = None if agreement is None else Parity("qat", 2000, {"logits": own})
    precision = "float32" if name.endswith("_float") or role == "student" else "int8"
    twin = "onnx" if name == "onnx_float" else None
    return ModelRecord(
        name=name, role=role, format="onnx", precision=precision, twin_of=twin, bytes=size, metrics=metrics, parity=parity,
        fidelity=near,
    )  # fmt: skip


def profile(name: str = "onnx", device: str = "host", trusted: bool = True, emulated: bool = False) -> ProfileRecord:
    trust = Trust(
        "trusted" if trusted else "untrusted",
        () if trusted else (Finding("drift", figures={"change": 0.2}),),
        0.0,
        0.0,
        0.1,
        0.1,
    )
    return ProfileRecord(
        name, device, emulated, Effective("onnxruntime", 1, {"int8": 9}), LoadTime(9.0, 5.0), 4.0, 300.0,
        Latency(p50=2.0, p90=3.0, p99=4.0, min=1.0, mean=2.5, n=100, ci=(1.9, 2.1)),
        Memory(peak=80.0, runtime=60.0, model=20.0), trust, (2.0, 2.0, 2.0),
    )  # fmt: skip


OF_METRICS = {"drop": {"metric": "top1"}, "metric": {"name": "top1"}}


def gate_names() -> list[str]:
    """The gates that are no gates of a metric."""
    fields = type(recipe({}).gates).model_fields
    return [name for name, field in fields.items() if "Gate" in str(field.annotation) and name not in OF_METRICS]


MODELS = (
    model("distilled", 0.90, role="student"),
    model("onnx_float", 0.90, size=4000),
    model("onnx", 0.89, agreement=0.996, p99=1.5, size=1100, near=close(0.01 - 1e-6)),
)


def one(name: str, gate: dict[str, Any], models: Any = MODELS, profiles: Any = (profile(),), **options: Any) -> GateRecord:
    found = [g for g in gates.judge(recipe({name: gate}, **options), models, profiles) if g.name == name]
    assert len(found) == 1
    return found[0]


def test_steps_of_the_output_are_asked_of_int8_files_alone() -> None:
    """A file of float16 weights in the same run has no steps; it is held by top-1 and by its error."""
    half = replace(model("tflite_float16", 0.89, p99=None, near=close(0.001)), precision="float16")
    found = gates.judge(recipe({}), (*MODELS, half), ())
    names = [gate.name for gate in found if gate.model == "tflite_float16"]
    assert names == ["accuracy_drop", "lost_classes", "worst_sqnr_db", "worst_agreement", "parity_top1", "parity_error"]
    assert gates.passed(found)
    assert gates.verdict(found) == "pass"


@pytest.mark.parametrize(
    ("name", "passes", "fails", "measured", "limit"),
    [
        ("accuracy_drop", {"max": 0.01}, {"max": 0.009}, 0.01, "<= 0.01"),
        ("expected_drop", {"max": 0.005}, {"max": 0.003}, 0.004, "<= 0.005"),
        ("agreement", {"min": 0.94}, {"min": 0.96}, 0.95, ">= 0.94"),
        ("sqnr_db", {"min": 19}, {"min": 21}, 20.0, ">= 19"),
        ("lost_classes", {"max": 0}, {"max": -1}, 0, "<= 0"),
        ("worst_sqnr_db", {"min": 11}, {"min": 13}, 12.0, ">= 11"),
        ("worst_agreement", {"min": 0.93}, {"min": 0.95}, 0.94, ">= 0.93"),
        ("top1", {"min": 0.87}, {"min": 0.91}, 0.89, ">= 0.87"),
        ("parity_top1", {"min": 0.996}, {"min": 0.997}, 0.996, ">= 0.996"),
        ("parity_lsb_p99", {"max": 1.5}, {"max": 1.4}, 1.5, "<= 1.5"),
        ("size_ratio", {"max": 0.275}, {"max": 0.27}, 0.275, "<= 0.275"),
        ("latency_p50_ms", {"max": 2.1}, {"max": 1.8}, 2.0, "<= 2.1"),
        ("latency_p90_ms", {"max": 3}, {"max": 2.9}, 3.0, "<= 3"),
        ("peak_memory_mib", {"max": 80}, {"max": 79.9}, 80.0, "<= 80"),
    ],
)
def test_each_gate_at_its_boundary(
    name: str, passes: dict[str, float], fails: dict[str, float], measured: float, limit: str
) -> None:
    good = one(name, passes)
    assert good.measured == pytest.approx(measured, abs=1e-5)
    assert (good.verdict, str(good.limit), good.model, good.blocks) == ("pass", limit, "onnx", False)
    bad = one(name, fails)
    assert (bad.verdict, bad.blocks) == ("fail", True)


def test_every_gate_of_the_schema_is_judged() -> None:
    names = {*gate_names()} | {*OF_METRICS}
    assert len(names) == 17
    # A file with steps has no other figure of its error; the float file beside it has.
    found = gates.judge(recipe({name: {"max": 1e9, **OF_METRICS.get(name, {})} for name in names}), MODELS, (profile(),))
    assert {gate.name for gate in found if gate.verdict == "pass"} == names


def test_whether_times_are_trusted_says_nothing_of_memory() -> None:
    busy = (profile(trusted=False),)
    for limit, verdict in ((1000, "pass"), (1, "fail")):
        gate = one("peak_memory_mib", {"max": limit}, profiles=busy)
        assert (gate.verdict, gate.blocks) == (verdict, verdict == "fail")


@pytest.mark.parametrize("name", ["latency_p50_ms", "latency_p90_ms"])
def test_a_figure_that_is_not_trusted_does_not_pass(name: str) -> None:
    """Within the limit by far it is a caution, as 0.04 ms against 12 ms on a busy machine; beyond it ends the run."""
    gate = one(name, {"max": 1000}, profiles=(profile(trusted=False),))
    assert (gate.verdict, gate.blocks) == ("untrusted", False)
    assert gate.measured is not None
    assert gates.verdict([gate]) == "untrusted"
    beyond = one(name, {"max": 1}, profiles=(profile(trusted=False),))
    assert (beyond.verdict, beyond.blocks) == ("untrusted", True)
    strict = gates.judge(recipe({name: {"max": 1000}, "untrusted": "error"}), MODELS, (profile(trusted=False),))
    assert not gates.passed(strict)


def test_an_untrusted_figure_whose_interval_reaches_beyond_the_limit_ends_the_run() -> None:
    gate = one("latency_p50_ms", {"max": 2.05}, profiles=(profile(trusted=False),))  # 2.0, interval 1.9 to 2.1
    assert (gate.verdict, gate.blocks) == ("untrusted", True)
    warned = gates.judge(recipe({"latency_p50_ms": {"max": 2.05}, "untrusted": "warn"}), MODELS, (profile(trusted=False),))
    assert gates.passed(warned)


def test_the_interval_of_p90_decides_too() -> None:
    measured = profile(trusted=False)
    wide = replace(measured, latency_ms=replace(measured.latency_ms, ci_p90=(2.9, 3.4)))
    assert one("latency_p90_ms", {"max": 3.2}, profiles=(wide,)).blocks
    assert not one("latency_p90_ms", {"max": 3.5}, profiles=(wide,)).blocks


@pytest.mark.parametrize("name", ["latency_p50_ms", "latency_p90_ms", "peak_memory_mib"])
def test_a_figure_of_an_emulated_device_does_not_pass(name: str) -> None:
    gate = one(name, {"max": 1000}, profiles=(profile(emulated=True),))
    assert (gate.verdict, gate.blocks) == ("emulated", True)


def test_trust_of_a_device_says_nothing_of_accuracy() -> None:
    assert one("top1", {"min": 0.5}, profiles=(profile(trusted=False),)).verdict == "pass"


@pytest.mark.parametrize(
    ("name", "models"),
    [
        ("top1", (model("onnx"),)),
        ("accuracy_drop", (model("onnx", 0.9),)),
        ("accuracy_drop", (model("onnx"), model("distilled", 0.9, role="student"))),
        ("agreement", (model("onnx"),)),
        ("parity_top1", (model("onnx", agreement=None),)),
        ("parity_lsb_p99", (model("onnx", agreement=None),)),
        ("size_ratio", (model("onnx"),)),
        ("size_ratio", (model("onnx", size=None), model("onnx_float"))),
    ],
)
def test_what_was_not_measured_does_not_pass(name: str, models: tuple[ModelRecord, ...]) -> None:
    gate = one(name, {"max": 1e9}, models)
    assert (gate.verdict, gate.measured, gate.blocks) == ("not_measured", None, True)
    assert gates.verdict([gate]) == "not_measured"


def test_a_device_gate_looks_at_its_device() -> None:
    assert one("latency_p50_ms", {"max": 9, "device": "pi4"}).verdict == "not_measured"
    gate = one("latency_p50_ms", {"max": 9, "device": "pi4"}, profiles=(profile(trusted=False), profile(device="pi4")))
    assert (gate.verdict, gate.device) == ("pass", "pi4")
    assert one("top1", {"min": 0.1}).device is None


def test_every_shipped_artifact_is_held_to_it() -> None:
    """int8 files where there are any; networks and float twins are for comparison."""
    twin = replace(model("tflite_float", 0.10), twin_of="tflite")
    models = (*MODELS, model("tflite", 0.80), twin, model("qat", 0.10, role="student"))
    found = {g.model: g.verdict for g in gates.judge(recipe({"top1": {"min": 0.85}}), models, ()) if g.name == "top1"}
    assert found == {"onnx": "pass", "tflite": "fail"}


def test_a_float_recipe_ships_its_float_files() -> None:
    """Their parity is in top-1 and in error; steps of an output's scale they have none."""
    shipped = replace(model("onnx_float", 0.9, p99=None), twin_of=None)
    found = gates.judge(recipe({}, quantize=False), (MODELS[0], shipped), ())
    assert [(gate.name, gate.verdict, gate.level) for gate in found] == [
        ("parity_top1", "pass", "error"), ("parity_error", "pass", "error"),
    ]  # fmt: skip


def test_parity_is_always_gated() -> None:
    found = gates.judge(recipe({}), (*MODELS[:2], model("onnx", 0.9, agreement=0.99, p99=2.1, near=close(0.0))), ())
    verdicts = {gate.name: gate.verdict for gate in found if gate.model == "onnx"}
    assert verdicts == {
        "accuracy_drop": "pass", "lost_classes": "pass", "worst_sqnr_db": "pass", "worst_agreement": "pass",
        "parity_top1": "fail", "parity_lsb_p99": "fail",
    }  # fmt: skip


def test_int8_is_held_against_the_float_model_unasked() -> None:
    """With labels by accuracy, without by what needs none; a file that a bad scale has destroyed does not pass."""
    destroyed = replace(
        close(0.516), agreement=Figure(0.15, 2000, 0.13, 0.17), sqnr_db=Figure(0.2, 2000, 0.1, 0.3),
        expected_drop=Figure(0.5, 2000, 0.49, 0.51),
    )  # fmt: skip
    labelled = gates.judge(recipe({}), (*MODELS[:2], model("onnx", 0.147, near=destroyed)), ())
    assert [(g.name, g.verdict) for g in labelled if g.verdict != "pass"] == [("accuracy_drop", "fail")]
    student = model("student", role="student")
    unlabelled = gates.judge(recipe({}), (student, model("onnx", near=replace(destroyed, drops={}))), ())
    found = {g.name: g.verdict for g in unlabelled if g.verdict != "pass"}
    assert found == {"expected_drop": "fail", "agreement": "fail", "sqnr_db": "fail"}
    assert {g.reference for g in labelled if g.name == "accuracy_drop"} == {"distilled"}


def test_a_value_of_another_output_that_int8_has_lost_does_not_pass() -> None:
    """Accuracy, and parity with the int8 graph, do not see it."""
    lost = replace(close(0.0), worst=WorstValue("box", 2, Figure(-20.0, 2000, -21.0, -19.0)))
    found = gates.judge(recipe({}), (*MODELS[:2], model("onnx", 0.9, near=lost)), ())
    (gate,) = (gate for gate in found if gate.verdict != "pass")
    assert (gate.name, gate.verdict, gate.value, gate.blocks) == ("worst_sqnr_db", "fail", "box[2]", True)


def test_a_class_that_int8_never_gives_again_does_not_pass() -> None:
    """With labels and without; top-1 hardly falls where the class is rare."""
    for drops in ({}, close(0.0).drops):
        lost = replace(close(0.0), drops=drops, lost_classes=LostClasses(9, (1, 4)))
        found = gates.judge(recipe({}), (*MODELS[:2], model("onnx", 0.9, near=lost)), ())
        gate = next(gate for gate in found if gate.name == "lost_classes")
        assert (gate.verdict, gate.value, gate.measured, gate.blocks) == ("fail", "1 4", 2, True)
    none = replace(close(0.0), lost_classes=None)
    found = gates.judge(recipe({}), (*MODELS[:2], model("onnx", 0.9, near=none)), ())
    assert "lost_classes" not in {gate.name for gate in found}
    assert one("lost_classes", {"max": 1}, (*MODELS[:2], model("onnx", 0.9, near=none))).verdict == "not_measured"


def test_the_output_that_fails_parity_is_named() -> None:
    floats, flags = OutputParity(0.1, 0.2), OutputParity(1.0, agreement=0.9)
    parity = Parity("qat", 200, {"box": OutputParity(0.1, 0.001), "corner": floats, "flag": flags})
    found = gates.judge(recipe({}), (*MODELS[:2], replace(model("onnx", 0.9, near=close(0.0)), parity=parity)), ())
    assert {gate.name: gate.value for gate in found if gate.verdict == "fail"} == {
        "parity_error": "corner", "parity_top1": "flag",
    }  # fmt: skip
    whole = Parity("qat", 200, {"flag": flags})
    float32 = replace(model("onnx", 0.9, near=close(0.0)), parity=whole, precision="float16")
    skipped = next(
        g for g in gates.judge(recipe({}), (*MODELS[:2], float32), ()) if (g.model, g.name) == ("onnx", "parity_error")
    )
    assert (skipped.verdict, skipped.instead) == ("not_applicable", "parity_top1")


@pytest.mark.parametrize(("share", "verdict"), [(0.97, "pass"), (0.3, "fail")])
def test_an_integer_that_int8_changes_does_not_pass(share: float, verdict: Verdict) -> None:
    """The int8 graph in torch gives the same wrong integer, so parity does not see it."""
    worst = WorstAgreement("second", None, Figure(share, 2000, share - 0.02, share + 0.02))
    found = gates.judge(recipe({}), (*MODELS[:2], model("onnx", 0.9, near=replace(close(0.0), worst_agreement=worst))), ())
    (gate,) = (gate for gate in found if gate.name == "worst_agreement")
    assert (gate.verdict, gate.value, gate.reference, str(gate.limit)) == (verdict, "second", "distilled", ">= 0.8")
    assert gates.passed(found) is (verdict == "pass")


def test_a_file_of_logits_alone_has_no_other_value() -> None:
    near = replace(close(0.0), worst=None, worst_agreement=None)
    assert one("worst_agreement", {"min": 0.5}, (*MODELS[:2], model("onnx", 0.9, near=near))).verdict == "not_measured"
    found = gates.judge(recipe({}), (*MODELS[:2], model("onnx", 0.9, near=near)), ())
    assert "worst_sqnr_db" not in {gate.name for gate in found}
    asked = one("worst_sqnr_db", {"min": 5}, (*MODELS[:2], model("onnx", 0.9, near=near)))
    assert asked.verdict == "not_measured"


def test_a_limit_inside_the_interval_is_undecided() -> None:
    """Too few images are no pass; within the limit the exit code stays 0, beyond it, it is 1."""
    few = (*MODELS[:2], model("onnx", 0.89, near=close(0.01, n=200, sure=False)))
    inside = one("accuracy_drop", {"max": 0.02}, few)
    assert (inside.verdict, inside.blocks, inside.n) == ("undecided", False, 200)
    beyond = one("accuracy_drop", {"max": 0.005}, few)
    assert (beyond.verdict, beyond.blocks) == ("undecided", True)
    for policy, passes in (("warn", True), ("error", False)):
        for limit in (0.02, 0.005):
            found = gates.judge(recipe({"accuracy_drop": {"max": limit}, "undecided": policy}), few, ())
            assert gates.passed(found) is passes
            assert gates.verdict(found) == "undecided"


def test_a_figure_without_an_interval_is_undecided() -> None:
    """One image: 100 % agreement and nothing known."""
    alone = Fidelity("student", Figure(30.0, 1), Figure(1.0, 1, 0.2, 1.0), Figure(0.0, 1))
    found = gates.judge(recipe({}), (model("student", role="student"), model("onnx", near=alone)), ())
    assert {g.name: g.verdict for g in found if g.name in QUALITY} == {
        "expected_drop": "undecided", "agreement": "undecided", "sqnr_db": "undecided",
    }  # fmt: skip
    assert gates.verdict(found) == "undecided"


def test_a_last_layer_in_float_has_no_steps_and_is_held_by_its_error() -> None:
    """keep_float: auto cures a model by its last layer; that must not fail the run."""
    cured = (*MODELS[:2], model("onnx", 0.89, p99=None, near=close(0.0)))
    found = gates.judge(recipe({}), cured, ())
    steps = next(g for g in found if g.name == "parity_lsb_p99")
    assert (steps.verdict, steps.instead, steps.blocks) == ("not_applicable", "parity_error", False)
    error = next(g for g in found if g.name == "parity_error" and g.model == "onnx")
    assert (error.verdict, error.measured, error.limit) == ("pass", 0.005, Limit("<=", gates.INT8_ERROR))
    assert gates.verdict(found) == "pass"
    worse = replace(cured[2], parity=Parity("qat", 2000, {"logits": OutputParity(0.1, 0.04, agreement=1.0)}))
    assert gates.verdict(gates.judge(recipe({}), (*cured[:2], worse), ())) == "fail"


def test_a_wrong_float_file_beside_an_int8_one_is_a_caution() -> None:
    wrong = replace(MODELS[1], parity=Parity("distilled", 2000, {"logits": OutputParity(0.1, agreement=1.0, error=0.14)}))
    found = gates.judge(recipe({}), (MODELS[0], wrong, MODELS[2]), ())
    caution = next(g for g in found if g.model == "onnx_float")
    assert (caution.name, caution.verdict, caution.level, caution.blocks) == ("parity_error", "fail", "warn", False)
    assert gates.verdict(found) == "pass"
    alone = gates.judge(recipe({}, quantize=False), (MODELS[0], replace(wrong, twin_of=None)), ())
    assert gates.verdict(alone) == "fail"


def test_levels() -> None:
    """warn says it, off records it; neither decides."""
    for level in ("warn", "off"):
        gate = one("accuracy_drop", {"max": 0.001, "level": level})
        assert (gate.verdict, gate.level, gate.blocks) == ("fail", level, False)
        assert gates.verdict([gate]) == "pass"
    assert bool(list(gates.failures([one("accuracy_drop", {"max": 0.001, "level": "warn"})])))
    assert not list(gates.failures([one("accuracy_drop", {"max": 0.001, "level": "off"})]))


@pytest.mark.parametrize("off", ["off", False, {"level": "off"}])
def test_any_gate_can_be_off(off: Any) -> None:
    destroyed = model("onnx", 0.1, agreement=0.5, p99=9.0, size=9000, near=close(0.8))
    found = gates.judge(recipe(dict.fromkeys(gate_names(), off)), (*MODELS[:2], destroyed), ())
    assert {gate.level for gate in found} == {"off"}
    assert gates.passed(found)


def test_a_gate_that_only_has_a_level_keeps_its_limit() -> None:
    gate = one("accuracy_drop", {"level": "warn"})
    assert (str(gate.limit), gate.level) == ("<= 0.02", "warn")


def test_noise_is_no_image_to_recognize() -> None:
    """Random images compare a file with torch; they say nothing of what a network recognizes."""
    made = recipe({}, quantize=False).model_dump(exclude_none=True)
    made |= {"data": {"source": "random", "classes": 10}, "export": [{"format": "tflite", "precision": "dynamic"}]}
    loud = replace(close(None), sqnr_db=Figure(1.0, 8, 0.9, 1.1))
    own = replace(model("tflite_dynamic", near=loud), precision="dynamic", path="x")
    found = gates.judge(Recipe.model_validate(made), (model("student", role="student"), own), ())
    assert [gate.name for gate in found] == ["parity_top1"]


def test_the_worst_verdict_is_that_of_the_run() -> None:
    def record(verdict: Verdict) -> GateRecord:
        return GateRecord("top1", "onnx", Limit(">=", 0.9), 0.91, verdict)

    order: list[Verdict] = ["fail", "not_measured", "untrusted", "emulated", "undecided", "pass"]
    for number, worst in enumerate(order):
        assert gates.verdict([record(word) for word in (*order[number:], "not_applicable")]) == worst
    assert gates.verdict([]) == "pass"


def test_not_a_number_does_not_pass() -> None:
    assert one("parity_lsb_p99", {"max": 2}, (model("onnx", p99=float("nan")),)).verdict == "fail"
    assert one("parity_top1", {"min": 0.9}, (model("onnx", agreement=float("nan")),)).verdict == "fail"


def test_failures_in_words() -> None:
    found = [
        GateRecord("top1", "onnx", Limit(">=", 0.9), 0.91, "pass"),
        GateRecord(
            "accuracy_drop", "onnx", Limit("<=", 0.01), 0.023456, "fail", low=0.0151, high=0.0312, n=2000, blocks=True
        ),
        GateRecord("latency_p90_ms", "tflite", Limit("<=", 12), 11.5, "untrusted", "pi4", blocks=True),
        GateRecord("size_ratio", "tflite", Limit("<=", 0.3), blocks=True),
    ]
    assert list(gates.failures(found)) == [
        "gate accuracy_drop of onnx failed: 0.02346, limit <= 0.01, 95 % interval 0.0151 to 0.0312 on 2,000 images",
        "gate latency_p90_ms of tflite is not trusted: 11.5, limit <= 12",
        "gate size_ratio of tflite was not measured",
    ]
    assert gates.passed(found[:1])
    assert gates.passed([])
    assert not gates.passed(found[:2])


def test_a_gate_may_have_a_limit_for_each_device_and_be_for_some_formats() -> None:
    two = [{"max": 3}, {"max": 12, "device": "phone", "formats": ["tflite"]}]
    tflite = replace(model("tflite", 0.89, near=close(0.001)), format="tflite")
    profiles = (profile(), profile("tflite"), profile("tflite", "phone"))
    found = gates.judge(recipe({"latency_p90_ms": two}), (*MODELS, tflite), profiles)
    on = [(gate.device, gate.model, gate.limit, gate.verdict) for gate in found if gate.name == "latency_p90_ms"]
    assert on == [
        ("host", "onnx", Limit("<=", 3), "pass"),
        ("host", "tflite", Limit("<=", 3), "pass"),
        ("phone", "tflite", Limit("<=", 12), "pass"),
    ]


def test_a_figure_that_the_agent_does_not_give_is_not_measured() -> None:
    timed = profile()
    timed = replace(
        timed,
        latency_ms=replace(timed.latency_ms, p90=None, p99=None),
        memory=replace(timed.memory, peak=None),
    )
    for name in ("latency_p90_ms", "peak_memory_mib"):
        gate = one(name, {"max": 1000}, profiles=(timed,))
        assert (gate.verdict, gate.measured, gate.blocks) == ("not_measured", None, True)
    assert one("latency_p50_ms", {"max": 3}, profiles=(timed,)).verdict == "pass"


@pytest.mark.parametrize(
    ("name", "limit", "verdict", "measured"),
    [("drop", {"metric": "top1", "max": 0.011}, "pass", 0.01), ("drop", {"metric": "top1", "max": 0.009}, "fail", 0.01),
     ("metric", {"name": "top1", "min": 0.87}, "pass", 0.89), ("metric", {"name": "top1", "min": 0.91}, "fail", 0.89)],
)  # fmt: skip
def test_gates_of_any_metric(name: str, limit: dict[str, Any], verdict: str, measured: float) -> None:
    gate = one(name, limit)
    assert (gate.verdict, gate.metric, gate.blocks) == (verdict, "top1", verdict == "fail")
    assert gate.measured == pytest.approx(measured, abs=1e-5)
    assert gate.reference == ("distilled" if name == "drop" else None)


def test_a_metric_that_was_not_measured_does_not_pass() -> None:
    gate = one("metric", {"name": "top5", "min": 0.9})
    assert (gate.verdict, gate.blocks) == ("not_measured", True)


def test_parity_is_held_on_every_output_and_the_worst_decides() -> None:
    """A good first output does not hide a bad second one; one without classes has no agreement."""
    good, boxes = OutputParity(0.1, 0.001, 1.0, 0, 0.0, 1.0, 1.0), OutputParity(9.0, 0.2, None, 0, 3.0, 8.0, 40.0)
    two = replace(MODELS[2], parity=Parity("qat", 2000, {"logits": good, "boxes": boxes}))
    found = {gate.name: gate for gate in gates.judge(recipe({}), (*MODELS[:2], two), ()) if gate.model == "onnx"}
    assert (found["parity_lsb_p99"].verdict, found["parity_lsb_p99"].measured) == ("fail", 8.0)
    assert found["parity_top1"].verdict == "pass"
    mixed = replace(two, parity=Parity("qat", 2000, {"logits": good, "boxes": OutputParity(9.0, 0.2)}))
    found = {gate.name: gate for gate in gates.judge(recipe({}), (*MODELS[:2], mixed), ()) if gate.model == "onnx"}
    assert (found["parity_lsb_p99"].verdict, found["parity_error"].verdict) == ("pass", "fail"), "steps, and no steps"
    alone = replace(two, parity=Parity("qat", 2000, {"boxes": boxes}))
    gate = next(gate for gate in gates.judge(recipe({}), (*MODELS[:2], alone), ()) if gate.name == "parity_top1")
    assert (gate.verdict, gate.instead, gate.blocks) == ("not_applicable", "parity_lsb_p99", False)
