"""Gates: the recipe's limits against what was measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from edgekd.recipe import Recipe
from edgekd.recipe_gates import Gate
from edgekd.rundir import GateRecord, ModelRecord, ProfileRecord
from edgekd.stages import export

Verdict = Literal["pass", "fail", "untrusted", "not_measured"]


def judge(recipe: Recipe, models: Sequence[ModelRecord], profiles: Sequence[ProfileRecord]) -> tuple[GateRecord, ...]:
    """Hold every gate against every shipped artifact: the int8 files, or the float ones where nothing is quantized.

    A gate without a measurement is ``not_measured``, one whose figure is not trusted ``untrusted``; both fail the run.
    """
    by_name = {model.name: model for model in models}
    shipped = [
        model for model in models if model.role == "artifact" and (not recipe.quantize or not model.name.endswith("_float"))
    ]
    return tuple(
        _judge(name, gate, model, by_name, profiles)
        for name, gate in recipe.gates.limits()
        for model in shipped
        if name != "parity_lsb_p99" or (recipe.quantize and model.precision.partition(" ")[0] == "int8")
    )


def passed(gates: Sequence[GateRecord]) -> bool:
    """Whether all gates passed."""
    return all(gate.verdict == "pass" for gate in gates)


def missing(recipe: Recipe, models: Sequence[ModelRecord]) -> tuple[str, ...]:
    """Names of the artifacts that the recipe asks for and that could not be delivered; their gates are ``not_measured``."""
    written = {model.name for model in models if model.role == "artifact" and model.path is not None}
    names = (export.stage_name(item.format, export.precision_of(item, recipe)) for item in recipe.export)
    return tuple(name for stage in dict.fromkeys(names) if (name := stage.removeprefix("export.")) not in written)


def _judge(
    name: str, gate: Gate, model: ModelRecord, models: dict[str, ModelRecord], profiles: Sequence[ProfileRecord]
) -> GateRecord:
    on_device = name.startswith(("latency", "peak_memory"))
    profile = next((p for p in profiles if p.model == model.name and p.device == gate.device), None)
    measured = _on_device(name, profile) if on_device else _figure(name, model, models)
    verdict: Verdict
    if measured is None:
        verdict = "not_measured"
    elif on_device and profile is not None and (profile.emulated or profile.trust.verdict != "trusted"):
        verdict = "untrusted"
    else:
        verdict = "pass" if _within(gate, measured) else "fail"
    reference = _reference(models)
    if name == "accuracy_drop" and reference and reference.metric("accuracy") is None and reference.metric("agreement"):
        name = "agreement_drop"  # without labels the teacher is the judge
    limit = f"<= {gate.max:g}" if gate.max is not None else f">= {gate.min:g}"
    return GateRecord(name, model.name, limit, measured, verdict, gate.device if on_device else None)


def _within(gate: Gate, measured: float) -> bool:
    slack = 1e-9  # 0.8935 - 0.8835 is a hair above 0.01
    return (gate.max is None or measured <= gate.max + slack) and (gate.min is None or measured >= gate.min - slack)


def _figure(name: str, model: ModelRecord, models: dict[str, ModelRecord]) -> float | None:
    top1 = model.top1()
    reference = _reference(models)
    float32 = models.get("onnx_float")
    match name:
        case "top1":
            return top1
        case "accuracy_drop":
            expected = reference.top1() if reference else None
            return None if top1 is None or expected is None else expected - top1
        case "parity_top1":
            return model.parity.top1_agreement if model.parity else None
        case "parity_lsb_p99":
            return model.parity.p99_lsb if model.parity else None
        case "size_ratio":
            if model.bytes is None or float32 is None or not float32.bytes:
                return None
            return model.bytes / float32.bytes
    return None


def _reference(models: dict[str, ModelRecord]) -> ModelRecord | None:
    """The float student."""
    return models.get("distilled") or models.get("student")


def _on_device(name: str, profile: ProfileRecord | None) -> float | None:
    if profile is None:
        return None
    figures = {
        "latency_p50_ms": profile.latency_ms.p50,
        "latency_p90_ms": profile.latency_ms.p90,
        "peak_memory_mib": profile.memory.peak,
    }
    return figures[name]


def failures(gates: Sequence[GateRecord]) -> Iterator[str]:
    """Say each gate that did not pass in a line."""
    words = {"fail": "failed", "untrusted": "is not trusted", "not_measured": "was not measured"}
    for gate in gates:
        if gate.verdict != "pass":
            figure = "" if gate.measured is None else f": {gate.measured:.4g}, limit {gate.limit}"
            yield f"gate {gate.name} of {gate.model} {words[gate.verdict]}{figure}"
