from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from edgekd import gates
from edgekd.recipe import Recipe
from edgekd.rundir import (
    Effective,
    GateRecord,
    Latency,
    LoadTime,
    Memory,
    Metrics,
    ModelRecord,
    Parity,
    ProfileRecord,
    Trust,
)


def recipe(limits: dict[str, Any], quantize: bool = True) -> Recipe:
    return Recipe.model_validate({
        "edgekd": 1, "data": {"source": "fashion-mnist-mini"}, "student": {"model": "edgekd:resnet10"},
        "distill": {"epochs": 1, "losses": [{"kind": "task"}]}, "export": ["onnx"], "gates": limits,
        **({"quantize": {}} if quantize else {}),
    })  # fmt: skip


def model(name: str, top1: float | None = None, agreement: float | None = 1.0, p99: float | None = 1.0,
          size: int | None = 1000, role: Any = "artifact") -> ModelRecord:  # fmt: skip
    metrics = () if top1 is None else (Metrics("val", 10, 0.123), Metrics("test", 2000, top1))
    parity = None if agreement is None else Parity("qat", 2000, agreement, 0.1, 0.1, p99, 3.0)
    return ModelRecord(name=name, role=role, format="onnx", precision="int8", bytes=size, metrics=metrics, parity=parity)


def profile(name: str = "onnx", device: str = "host", trusted: bool = True, emulated: bool = False) -> ProfileRecord:
    trust = Trust("trusted" if trusted else "untrusted", () if trusted else ("it drifted",), 0.0, 0.0, 0.1, 0.1)
    return ProfileRecord(
        name, device, emulated, Effective("onnxruntime", 1, "int8", "CPU"), LoadTime(9.0, 5.0), 4.0, 300.0,
        Latency(p50=2.0, p90=3.0, p99=4.0, min=1.0, mean=2.5, n=100, ci=(1.9, 2.1)),
        Memory(peak=80.0, runtime=60.0, model=20.0), trust, (2.0, 2.0, 2.0),
    )  # fmt: skip


MODELS = (
    model("distilled", 0.90, role="student"),
    model("onnx_float", 0.90, size=4000),
    model("onnx", 0.89, agreement=0.996, p99=1.5, size=1100),
)


def one(name: str, gate: dict[str, Any], models: Any = MODELS, profiles: Any = (profile(),), **options: Any) -> GateRecord:
    found = [g for g in gates.judge(recipe({name: gate}, **options), models, profiles) if g.name == name]
    assert len(found) == 1
    return found[0]


def test_steps_of_the_output_are_asked_of_int8_files_alone() -> None:
    """A file of float16 weights in the same run has no steps; its top-1 agreement is gated all the same."""
    half = replace(model("tflite_float16", p99=None), precision="float16")
    found = gates.judge(recipe({}), (*MODELS, half), ())
    assert [gate.name for gate in found if gate.model == "tflite_float16"] == ["parity_top1"]
    assert gates.passed(found)


@pytest.mark.parametrize(
    ("name", "passes", "fails", "measured", "limit"),
    [
        ("top1", {"min": 0.89}, {"min": 0.8901}, 0.89, ">= 0.89"),
        ("accuracy_drop", {"max": 0.01}, {"max": 0.0099}, 0.01, "<= 0.01"),  # 0.90 - 0.89 is a hair above 0.01
        ("parity_top1", {"min": 0.996}, {"min": 0.997}, 0.996, ">= 0.996"),
        ("parity_lsb_p99", {"max": 1.5}, {"max": 1.4}, 1.5, "<= 1.5"),
        ("size_ratio", {"max": 0.275}, {"max": 0.27}, 0.275, "<= 0.275"),
        ("latency_p50_ms", {"max": 2}, {"max": 1.9}, 2.0, "<= 2"),
        ("latency_p90_ms", {"max": 3}, {"max": 2.9}, 3.0, "<= 3"),
        ("peak_memory_mib", {"max": 80}, {"max": 79.9}, 80.0, "<= 80"),
    ],
)
def test_each_gate_at_its_boundary(
    name: str, passes: dict[str, float], fails: dict[str, float], measured: float, limit: str
) -> None:
    good = one(name, passes)
    assert good.measured == pytest.approx(measured)
    assert (good.verdict, good.limit, good.model) == ("pass", limit, "onnx")
    assert one(name, fails).verdict == "fail"


def test_every_gate_of_the_schema_is_judged() -> None:
    names = type(recipe({}).gates).model_fields
    assert len(names) == 8
    found = gates.judge(recipe({name: {"max": 1e9} for name in names}), MODELS, (profile(),))
    assert {gate.name for gate in found if gate.verdict == "pass"} == set(names)


@pytest.mark.parametrize("name", ["latency_p50_ms", "latency_p90_ms", "peak_memory_mib"])
@pytest.mark.parametrize("why", [{"trusted": False}, {"emulated": True}])
def test_a_figure_that_is_not_trusted_does_not_pass(name: str, why: dict[str, bool]) -> None:
    gate = one(name, {"max": 1000}, profiles=(profile(**why),))
    assert gate.verdict == "untrusted"
    assert gate.measured is not None
    assert not gates.passed([gate])


def test_trust_of_a_device_says_nothing_of_accuracy() -> None:
    assert one("top1", {"min": 0.5}, profiles=(profile(trusted=False),)).verdict == "pass"


@pytest.mark.parametrize(
    ("name", "models"),
    [
        ("top1", (model("onnx"),)),
        ("accuracy_drop", (model("onnx", 0.9),)),
        ("accuracy_drop", (model("onnx"), model("distilled", 0.9, role="student"))),
        ("parity_top1", (model("onnx", agreement=None),)),
        ("parity_lsb_p99", (model("onnx", p99=None),)),
        ("size_ratio", (model("onnx"),)),
        ("size_ratio", (model("onnx", size=None), model("onnx_float"))),
    ],
)
def test_what_was_not_measured_does_not_pass(name: str, models: tuple[ModelRecord, ...]) -> None:
    gate = one(name, {"max": 1e9}, models)
    assert (gate.verdict, gate.measured) == ("not_measured", None)
    assert not gates.passed([gate])


def test_a_device_gate_looks_at_its_device() -> None:
    assert one("latency_p50_ms", {"max": 9, "device": "pi4"}).verdict == "not_measured"
    gate = one("latency_p50_ms", {"max": 9, "device": "pi4"}, profiles=(profile(trusted=False), profile(device="pi4")))
    assert (gate.verdict, gate.device) == ("pass", "pi4")
    assert one("top1", {"min": 0.1}).device is None


def test_every_shipped_artifact_is_held_to_it() -> None:
    """int8 files where there are any; networks and float twins are for comparison."""
    models = (*MODELS, model("tflite", 0.80), model("tflite_float", 0.10), model("qat", 0.10, role="student"))
    found = {g.model: g.verdict for g in gates.judge(recipe({"top1": {"min": 0.85}}), models, ()) if g.name == "top1"}
    assert found == {"onnx": "pass", "tflite": "fail"}


def test_a_float_recipe_ships_its_float_files() -> None:
    """Their parity is in top-1; steps of an output's scale they have none."""
    found = gates.judge(recipe({}, quantize=False), (MODELS[0], model("onnx_float", 0.9, p99=None)), ())
    assert [(gate.name, gate.model, gate.verdict) for gate in found] == [("parity_top1", "onnx_float", "pass")]
    assert gates.passed(found)


def test_parity_is_always_gated() -> None:
    found = gates.judge(recipe({}), (*MODELS[:2], model("onnx", 0.9, agreement=0.99, p99=2.1)), ())
    assert {gate.name: gate.verdict for gate in found} == {"parity_top1": "fail", "parity_lsb_p99": "fail"}


def test_not_a_number_does_not_pass() -> None:
    assert one("parity_lsb_p99", {"max": 2}, (model("onnx", p99=float("nan")),)).verdict == "fail"
    assert one("parity_top1", {"min": 0.9}, (model("onnx", agreement=float("nan")),)).verdict == "fail"


def test_failures_in_words() -> None:
    found = [
        GateRecord("top1", "onnx", ">= 0.9", 0.91, "pass"),
        GateRecord("accuracy_drop", "onnx", "<= 0.01", 0.023456, "fail"),
        GateRecord("latency_p90_ms", "tflite", "<= 12", 11.5, "untrusted", "pi4"),
        GateRecord("size_ratio", "tflite", "<= 0.3"),
    ]
    assert list(gates.failures(found)) == [
        "gate accuracy_drop of onnx failed: 0.02346, limit <= 0.01",
        "gate latency_p90_ms of tflite is not trusted: 11.5, limit <= 12",
        "gate size_ratio of tflite was not measured",
    ]
    assert gates.passed(found[:1])
    assert gates.passed([])
