"""Gates: the recipe's limits against what was measured. The one table of verdicts for every command, report and card."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal

from edgekd.recipe import Recipe
from edgekd.recipe.export import split_name, stage_name
from edgekd.recipe.gates import DEFAULTS, DropGate, Gate, Gates, MetricGate
from edgekd.results.fidelity import Figure, WorstAgreement, WorstValue
from edgekd.results.gates import QUALITY, SEVERITY, GateRecord, Limit, Verdict
from edgekd.results.models import ModelRecord
from edgekd.results.profile import ProfileRecord
from edgekd.task.base import Task, task_of

ON_DEVICE = ("latency_p50_ms", "latency_p90_ms", "peak_memory_mib")
WORST = ("worst_sqnr_db", "worst_agreement")
"""Gates of the one value that is harmed most, among all outputs of a file that are no logits of classes."""
_WHERE_ANY = ("lost_classes", *WORST)
"""Gates that hold unasked only where a file has what they look at."""
STORED = ("float16", "int8-weights", "int4-weights")
"""Precisions whose reference in torch has the weights of the file, so that nothing is left but the runtime's rounding."""
INT8_ERROR = 0.03
"""Limit of ``parity_error`` for an int8 file with float logits: two steps of int8 logits are about this share of their
deviation."""


def judge(recipe: Recipe, models: Sequence[ModelRecord], profiles: Sequence[ProfileRecord]) -> tuple[GateRecord, ...]:
    """Hold every gate against every artifact that it is for.

    The recipe's gates are for what it ships: the int8 files, and files of other precisions that it names; float files that
    stand beside int8 ones are held by ``parity_error`` alone, at level ``warn``.
    """
    by_name = {model.name: model for model in models}
    files = [model for model in models if model.role == "artifact"]
    known = {model.name for model in files}
    files += [absent(recipe, name) for name in missing(recipe, models) if name not in known]
    return tuple(
        record
        for name, gate in limits(recipe, models)
        for model in files
        if gate.formats is None or model.format in gate.formats
        for record in _judge(name, gate, model, recipe, by_name, profiles)
    )


def limits(recipe: Recipe, models: Sequence[ModelRecord]) -> Iterator[tuple[str, Gate]]:
    """Yield the gates of a run by name, in the order of the schema: those of the recipe, and those that hold unasked."""
    given: dict[str, list[Gate]] = {}
    for name, gate in recipe.gates.limits():
        given.setdefault(name, []).append(gate)
    reference = _reference({model.name: model for model in models})
    known = reference is not None and reference.measured() is not None
    unasked = _unasked(task_of(recipe.task), known=known)
    for name in Gates.model_fields:
        if name in given:
            yield from ((name, gate) for gate in given[name])
        elif name in unasked and recipe.data.source != "random":  # noise is no image that a network has to recognize
            yield name, Gate(**DEFAULTS[name])


def _unasked(task: Task, *, known: bool) -> tuple[str, ...]:
    """Return the gates against the float model that hold unasked; ``known``: whether there is anything like labels."""
    if "classes" not in task.gives:  # how much of another metric may be lost, its user knows
        return ("sqnr_db", *WORST)
    return ("accuracy_drop", *_WHERE_ANY) if known else ("expected_drop", "agreement", "sqnr_db", *_WHERE_ANY)


def passed(gates: Sequence[GateRecord]) -> bool:
    """Tell whether no gate makes the exit code 1."""
    return not any(gate.blocks for gate in gates)


def verdict(gates: Sequence[GateRecord]) -> Verdict:
    """Return the verdict of a run: the worst of its gates, without those that only warn or are off."""
    found = {gate.verdict for gate in gates if gate.level == "error"} - {"not_applicable"}
    return next((word for word in SEVERITY if word in found), "pass")


def missing(recipe: Recipe, models: Sequence[ModelRecord]) -> tuple[str, ...]:
    """Names of the artifacts that the recipe asks for and that could not be delivered; their gates are ``not_measured``."""
    written = {model.name for model in models if model.role == "artifact" and model.path is not None}
    names = (stage_name(item.format, recipe.precision_of(item)) for item in recipe.export)
    return tuple(name for stage in dict.fromkeys(names) if (name := stage.removeprefix("export.")) not in written)


def absent(recipe: Recipe, name: str) -> ModelRecord:
    """Return the record of an artifact that could not be delivered."""
    format, precision = split_name(name)
    twin = format if recipe.quantize is not None and precision == "float32" else None
    return ModelRecord(name, "artifact", format, precision, twin_of=twin)


def _judge(
    name: str, gate: Gate, model: ModelRecord, recipe: Recipe, models: Mapping[str, ModelRecord],
    profiles: Sequence[ProfileRecord],
) -> Iterator[GateRecord]:  # fmt: skip
    precision = model.precision
    if model.twin_of is not None:
        if name == "parity_error":
            level = "warn" if gate.level == "error" else gate.level
            yield _record(name, gate.model_copy(update={"level": level}), model, recipe, models, profiles)
        return
    if name in QUALITY and precision == "float32":
        return
    if name in _WHERE_ANY and getattr(recipe.gates, name) is None and _figure(name, "", model, models) is None:
        return  # the file has no such output, or no class has images enough
    steps = model.parity is None or model.parity.p99_lsb is not None
    limit = _limit(gate)
    if name == "parity_top1" and model.parity is not None and model.parity.agreement is None:
        instead = "parity_lsb_p99" if precision == "int8" and steps else "parity_error"
        yield GateRecord(name, model.name, limit, None, "not_applicable", level=gate.level, instead=instead)
        return
    if name == "parity_lsb_p99":
        if recipe.quantize is None or precision != "int8":
            return
        if not steps:
            yield GateRecord(name, model.name, limit, None, "not_applicable", level=gate.level, instead="parity_error")
            return
    if name == "parity_error":
        if model.parity is not None and model.parity.error is None and model.parity.agreement is not None:
            yield GateRecord(name, model.name, limit, None, "not_applicable", level=gate.level, instead="parity_top1")
            return
        if precision == "int8":
            if model.parity is None or not model.parity.has_floats:
                return
            if "parity_error" not in recipe.gates.model_fields_set:
                gate = gate.model_copy(update={"max": INT8_ERROR})
        elif precision not in ("float32", *STORED):
            return
    yield _record(name, gate, model, recipe, models, profiles)


def _record(
    name: str, gate: Gate, model: ModelRecord, recipe: Recipe, models: Mapping[str, ModelRecord],
    profiles: Sequence[ProfileRecord],
) -> GateRecord:  # fmt: skip
    on_device = name in ON_DEVICE
    profile = next((p for p in profiles if p.model == model.name and p.device == gate.device), None)
    metric = _metric(name, gate, recipe)
    found = _on_device(name, profile) if on_device else _figure(name, metric, model, models)
    verdict = _verdict(gate, found, profile if on_device else None, timed=name != "peak_memory_mib")
    reference = _reference(models)
    if name == "accuracy_drop" and reference and reference.measured("labels") is None and reference.measured("teacher"):
        name = "agreement_drop"  # without labels the teacher is the judge
    return GateRecord(
        name, model.name, _limit(gate),
        measured=found.value if found else None,
        verdict=verdict,
        device=gate.device if on_device else None,
        low=found.low if found else None,
        high=found.high if found else None,
        n=found.n or None if found else None,
        reference=_against(name, model),
        level=gate.level,
        blocks=_blocks(gate, verdict, found, recipe.gates),
        metric=metric if name in ("drop", "metric") else None,
        value=_value(name, model, verdict),
    )  # fmt: skip


def _limit(gate: Gate) -> Limit | None:
    return Limit("<=", gate.max) if gate.max is not None else Limit(">=", gate.min) if gate.min is not None else None


def _verdict(gate: Gate, found: Figure | None, profile: ProfileRecord | None, *, timed: bool) -> Verdict:
    """Judge a figure; whether the times of a device are trusted says nothing of memory."""
    if found is None:
        return "not_measured"
    if profile is not None and profile.emulated:
        return "emulated"
    if timed and profile is not None and profile.trust.verdict != "trusted":
        return "untrusted"
    ends = _ends(found)
    if ends is None:
        return "undecided"
    inside = [gate.within(value) for value in (found.value, *ends)]
    return "pass" if all(inside) else "undecided" if any(inside) else "fail"


def _ends(found: Figure) -> tuple[float, ...] | None:
    """Return the ends of a figure's interval: () for an exact one (n is 0), None where so few images give no interval."""
    if found.low is not None and found.high is not None:
        return found.low, found.high
    return () if found.n == 0 else None


def _blocks(gate: Gate, verdict: Verdict, found: Figure | None, gates: Gates) -> bool:
    """Tell whether a gate makes the exit code 1."""
    if gate.level != "error" or verdict in ("pass", "not_applicable"):
        return False
    if found is None or verdict in ("fail", "not_measured", "emulated"):
        return True
    if verdict == "untrusted":
        within = gate.within(found.value) and all(gate.within(end) for end in _ends(found) or ())
        return gates.untrusted == "error" or (gates.untrusted is None and not within)
    return gates.undecided == "error" or (gates.undecided is None and not gate.within(found.value))


def _metric(name: str, gate: Gate, recipe: Recipe) -> str:
    """Name of the metric that a gate holds; empty of a gate that holds none."""
    if isinstance(gate, DropGate):
        return gate.metric
    if isinstance(gate, MetricGate):
        return gate.name
    return {"accuracy_drop": task_of(recipe.task).metrics[0].name, "top1": "top1"}.get(name, "")


def _figure(name: str, metric: str, model: ModelRecord, models: Mapping[str, ModelRecord]) -> Figure | None:
    """What a gate is held against; n is 0 where the figure has no sampling noise."""
    if name in ("accuracy_drop", "drop"):
        return model.fidelity.drops.get(metric) if model.fidelity else None
    if name in WORST:
        worst = _worst(name, model)
        return None if worst is None else worst.sqnr_db if isinstance(worst, WorstValue) else worst.agreement
    if name == "lost_classes":
        lost = model.fidelity.lost_classes if model.fidelity else None
        return None if lost is None else _exact(float(len(lost.lost)))
    if name in QUALITY:
        found: Figure | None = getattr(model.fidelity, name, None)
        return found
    if name in ("top1", "metric"):
        return model.figure(metric)
    return _exact(_EXACT[name](model, models))


def _worst(name: str, model: ModelRecord) -> WorstValue | WorstAgreement | None:
    """What a gate of ``WORST`` is held against; None of other gates, and of a file without such an output."""
    if name not in WORST or model.fidelity is None:
        return None
    return model.fidelity.worst if name == "worst_sqnr_db" else model.fidelity.worst_agreement


def _value(name: str, model: ModelRecord, verdict: Verdict) -> str | None:
    """What of a file a gate is about, as :class:`GateRecord` has it; None of a gate that is about all of it."""
    if worst := _worst(name, model):
        return str(worst)
    if name == "lost_classes" and model.fidelity is not None and model.fidelity.lost_classes is not None:
        return " ".join(map(str, model.fidelity.lost_classes.lost)) or None
    if name in _DECIDES and verdict == "fail" and model.parity is not None and len(model.parity.outputs) > 1:
        return model.parity.worst(_DECIDES[name])
    return None


_DECIDES: Mapping[str, Literal["agreement", "p99_lsb", "error"]] = {
    "parity_top1": "agreement", "parity_lsb_p99": "p99_lsb", "parity_error": "error",
}  # fmt: skip
"""The figure of an output's parity that a gate is held against."""


def _exact(value: float | None) -> Figure | None:
    return None if value is None else Figure(value, 0)


def _size_ratio(model: ModelRecord, models: Mapping[str, ModelRecord]) -> float | None:
    float32 = models.get("onnx_float")
    return None if model.bytes is None or float32 is None or not float32.bytes else model.bytes / float32.bytes


_EXACT: dict[str, Callable[[ModelRecord, Mapping[str, ModelRecord]], float | None]] = {
    "parity_top1": lambda model, _: model.parity.agreement if model.parity else None,
    "parity_lsb_p99": lambda model, _: model.parity.p99_lsb if model.parity else None,
    "parity_error": lambda model, _: model.parity.error if model.parity else None,
    "size_ratio": _size_ratio,
}


def _reference(models: Mapping[str, ModelRecord]) -> ModelRecord | None:
    """The float student."""
    return models.get("distilled") or models.get("student")


def _against(name: str, model: ModelRecord) -> str | None:
    """Name of the model that a figure compares with."""
    if name in (*QUALITY, "agreement_drop"):
        return model.fidelity.reference if model.fidelity else None
    if name.startswith("parity"):
        return model.parity.reference if model.parity else None
    return "onnx_float" if name == "size_ratio" else None


def _on_device(name: str, profile: ProfileRecord | None) -> Figure | None:
    if profile is None:
        return None
    latency = profile.latency_ms
    figures = {
        "latency_p50_ms": Figure(latency.p50, 0, *latency.ci),
        "latency_p90_ms": None if latency.p90 is None else Figure(latency.p90, 0, *(latency.ci_p90 or ())),
        "peak_memory_mib": _exact(profile.memory.peak),
    }
    return figures[name]


def failures(gates: Sequence[GateRecord]) -> Iterator[str]:
    """Say each gate that did not pass in a line."""
    words = {
        "fail": "failed",
        "undecided": "is undecided",
        "untrusted": "is not trusted",
        "emulated": "was measured on an emulated device",
        "not_measured": "was not measured",
    }
    for gate in gates:
        if gate.verdict in words and gate.level != "off":
            figure = "" if gate.measured is None else f": {gate.measured:.4g}, limit {gate.limit}"
            interval = "" if gate.n is None or gate.low is None or gate.high is None else (
                f", 95 % interval {gate.low:.4g} to {gate.high:.4g} on {gate.n:,} images"
            )  # fmt: skip
            of = f"{gate.model}, {gate.value}," if gate.value else gate.model
            yield f"gate {gate.name} of {of} {words[gate.verdict]}{figure}{interval}"
