"""Facts of a run for the layouts: labels, order, the headline artifact and its baseline, gates in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from edgekd.loading.overrides import parse_key
from edgekd.loading.tuned import put
from edgekd.recipe.export import Precision, split_name, stage_name
from edgekd.report.metric import MetricWords, capitalized
from edgekd.report.words import apart, exact, interval, one_line, sig
from edgekd.resources import device_stem
from edgekd.results.codec import to_json
from edgekd.results.fidelity import Figure
from edgekd.results.gates import GateRecord, Verdict
from edgekd.results.models import MetricFacts, ModelRecord, Of, TaskFacts
from edgekd.results.profile import DeviceRecord, ProfileRecord
from edgekd.results.run import RunResult
from edgekd.runtimes import base

NETWORKS = {
    "teacher": "Teacher",
    "student_alone": "Student alone",
    "kd": "Plain kd",
    "tuned_kd": "Tuned kd",
    "distilled": "Distilled student",
    "student": "Student",
    "qat": "QAT int8 (torch)",
    "ptq": "PTQ int8 (torch)",
}


@dataclass(frozen=True)
class GateWords:
    """Words of a gate: ``factor`` converts run.json's unit to ``unit``; ``note`` names the reference; a count is whole."""

    label: str
    unit: str = ""
    factor: float = 1.0
    note: str = ""
    count: bool = False


GATES = {
    "accuracy_drop": GateWords("Accuracy drop", "points", 100.0, "against the float student"),
    "expected_drop": GateWords("Expected drop", "points", 100.0, "by the float student's own confidence"),
    "agreement": GateWords("Same {same} as float", "%", 100.0, "as the float student"),
    "sqnr_db": GateWords("Signal to int8 noise", "dB", 1.0, "against the float student, at the {output}"),
    "lost_classes": GateWords(
        "Classes never given again", "", 1.0, "of those that the float student gives and is sure of", count=True
    ),
    "worst_sqnr_db": GateWords("Signal to noise, worst value", "dB", 1.0, "of the value that int8 harms most, all outputs"),
    "worst_agreement": GateWords("Same integers as float, worst value", "%", 100.0, "of the value that int8 harms most"),
    "agreement_drop": GateWords("Agreement drop", "points", 100.0, "with the teacher, against the float student"),
    "top1": GateWords("Top-1 accuracy", "%", 100.0, "on the test split"),
    "parity_top1": GateWords("{Same} agreement", "%", 100.0, "with the torch int8 model"),
    "parity_lsb_p99": GateWords("Output error, p99", "LSB", 1.0, "against the torch int8 model"),
    "parity_error": GateWords("Output error, RMS", "%", 100.0, "of the deviation of torch's {output}"),
    "size_ratio": GateWords("Size ratio", "×", 1.0, "to the float32 ONNX file"),
    "latency_p50_ms": GateWords("Latency p50", "ms"),
    "latency_p90_ms": GateWords("Latency p90", "ms"),
    "peak_memory_mib": GateWords("Peak memory", "MiB", 1.0, "of the whole process"),
}

LISTED = 5
"""Classes that are named; of more, their number."""
SIGNS = {"<=": "≤", ">=": "≥"}


def gate_words(gate: GateRecord, task: TaskFacts) -> GateWords:
    """Return the words of a gate; an unknown gate keeps its own name."""
    if gate.metric is None:
        words = GATES.get(gate.name) or GateWords(one_line(gate.name))
        same, output = same_class(task), output_of(task)
        label = words.label.replace("{same}", same).replace("{Same}", capitalized(same))
        return replace(words, label=label, note=words.note.replace("{output}", output))
    known = next((facts for facts in task.metrics if facts.name == gate.metric), None)
    metric = MetricWords(known or MetricFacts(gate.metric, one_line(gate.metric), "", "higher"))
    if gate.name == "drop":
        what = f"{capitalized(metric.facts.label)} lost"
        return GateWords(what, metric.change_unit, metric.factor, "against the float student")
    return GateWords(capitalized(metric.facts.label), metric.unit, metric.factor, "on the test split")


def same_class(task: TaskFacts) -> str:
    """Name what two outputs share that have the same class: ``top-1`` where the task measures that, else ``class``."""
    return next((metric.label for metric in task.metrics if metric.name == "top1"), "class")


def output_of(task: TaskFacts) -> str:
    """Name the primary output: ``logits`` where the task measures top-1."""
    return "logits" if any(metric.name == "top1" for metric in task.metrics) else "output"


def gate_label(gate: GateRecord, task: TaskFacts) -> str:
    """Name a gate for a reader, with its device where it has one."""
    label = gate_words(gate, task).label
    return f"{label} on {one_line(gate.device)}" if gate.device else label


def gate_of_value(gate: GateRecord, result: RunResult) -> str:
    """Name the value of an output, or the classes, that a gate is about: ``, BOX[2]``; empty where it is about none."""
    if not gate.value:
        return ""
    if gate.name != "lost_classes":
        return f", {one_line(gate.value)}"
    classes = result.data.classes
    numbers = [int(number) for number in gate.value.split()]
    names = [one_line(classes[number]) if number < len(classes) else f"class {number}" for number in numbers[:LISTED]]
    more = f" and {len(numbers) - LISTED} more" if len(numbers) > LISTED else ""
    return f", {', '.join(names)}{more}"


def gate_limit(gate: GateRecord, task: TaskFacts) -> str:
    """Write a gate's limit in its unit."""
    limit = gate.limit
    return f"{SIGNS[limit.op]} {exact(limit.value * gate_words(gate, task).factor)}" if limit else "none"


def gate_measured(gate: GateRecord, task: TaskFacts) -> str | None:
    """Write a gate's figure in its unit, never rounded onto the limit it missed."""
    if gate.measured is None:
        return None
    words, limit = gate_words(gate, task), gate.limit
    value = gate.measured * words.factor
    if words.count:
        return exact(value)
    return apart(value, limit.value * words.factor) if limit else sig(value)


def gate_interval(gate: GateRecord, task: TaskFacts) -> str:
    """Write the 95 % interval of a gate's figure in its unit, such as `` [−0.20, 1.20]``; empty where there is none."""
    if gate.low is None or gate.high is None or not gate.n:
        return ""
    return interval(gate.low * gate_words(gate, task).factor, gate.high * gate_words(gate, task).factor)


def with_interval(text: str, figure: Figure, factor: float) -> str:
    """Write the 95 % interval of a figure, times ``factor`` as ``text`` is, behind its text."""
    if figure.low is None or figure.high is None:
        return text
    return text + interval(*sorted((figure.low * factor, figure.high * factor)))


def passes(result: RunResult, model: str, device: str | None) -> bool:
    """Return whether no gate of a file counts as failed, of those for a device or for all; the rule for every best file."""
    return not any(gate.blocks for gate in result.gates if gate.model == model and gate.device in (None, device))


def held(gates: Sequence[GateRecord]) -> tuple[str, ...]:
    """Names of the files that get a verdict from these gates.

    A float file beside int8 ones is held by ``parity_error`` alone, as a warning: where that passes, it says nothing of the
    other gates, so it is no pass of the file.
    """
    counted = (gate.model for gate in gates if gate.level != "warn" or gate.verdict not in ("pass", "not_applicable"))
    return tuple(dict.fromkeys(counted)) or tuple(dict.fromkeys(gate.model for gate in gates))


ORDER: tuple[Verdict, ...] = ("fail", "not_measured", "undecided", "untrusted", "emulated", "not_applicable", "pass")
"""Verdicts as a reader needs them: what is wrong with the file before what is wrong with the measurement."""


def decisive(gates: Sequence[GateRecord]) -> GateRecord | None:
    """Return the gate to name first: one that makes the exit code 1 before one that does not, then by ``ORDER``."""
    counted = [gate for gate in gates if gate.level != "off" and gate.verdict != "not_applicable"]
    return min(counted, key=lambda gate: (not gate.blocks, ORDER.index(gate.verdict)), default=None)


def is_int8(model: ModelRecord) -> bool:
    """Return whether a model's weights are int8."""
    return model.precision == "int8"


def precision(model: ModelRecord) -> str:
    """Write the precision of a model, such as ``int8 (7-bit weights)``; ``as it is`` of a file that nobody describes."""
    bits = f" ({model.weight_bits}-bit weights)" if model.weight_bits else ""
    return f"{model.precision or 'as it is'}{bits}"


def label(model: ModelRecord) -> str:
    """Name a model for a reader, such as ``TFLite int8``."""
    if model.name in NETWORKS:
        return NETWORKS[model.name]
    if model.role == "teacher":
        return teacher_label(model.name)
    if model.role == "peer":
        return f"Peer {one_line(model.name.removeprefix('peer.'))}"
    if model.role != "artifact":
        return one_line(model.name)
    if model.precision is None:
        return one_line(f"{model.name} ({base.format_label(model.format)})")
    suffixes = ("", "_float", f"_{model.precision.replace('-', '_')}")
    usual = model.name in {f"{model.format}{suffix}" for suffix in suffixes}
    kind = f"{base.format_label(model.format)} {model.precision}"
    return one_line(kind if usual else f"{kind} ({model.name})")


def label_of(result: RunResult, name: str) -> str:
    """Name the model called ``name``, which a gate, curve or profile refers to."""
    model = result.model(name)
    if model is None and name.partition("_")[0] in base.runtimes:  # a file that was not delivered
        format, precision = split_name(name)
        model = ModelRecord(name, "artifact", format, precision)
    return label(model) if model else NETWORKS.get(name) or teacher_label(name)


def teacher_label(name: str) -> str:
    """Name a teacher for a reader: ``teacher.teacher`` is the teacher's teacher, ``teacher.big`` is one of several."""
    first, *rest = one_line(name).split(".")
    if first != "teacher":
        return one_line(name)
    return "Teacher" + "".join("'s teacher" if part == "teacher" else f" {part}" for part in rest)


def artifacts(result: RunResult) -> tuple[ModelRecord, ...]:
    """The exported files, in the run's order."""
    return tuple(model for model in result.models if model.role == "artifact")


def devices(result: RunResult) -> tuple[str, ...]:
    """Devices that the recipe names, that answered or that were profiled, in order."""
    asked = section_of(result, "profile").get("devices") or ()
    found = (
        *(device_stem(str(name)) for name in asked),
        *(record.name for record in result.devices),
        *(profile.device for profile in result.profiles),
    )
    return tuple(dict.fromkeys(found))


def device(result: RunResult, name: str) -> DeviceRecord | None:
    """Return the record of the device called ``name``."""
    return next((record for record in result.devices if record.name == name), None)


def emulated(result: RunResult, name: str) -> bool:
    """Return whether a device is emulated."""
    record = device(result, name)
    return bool(record and record.emulated) or any(p.emulated for p in result.profiles if p.device == name)


def device_label(result: RunResult, name: str) -> str:
    """Name a device for a reader."""
    return f"{one_line(name)} (EMULATED)" if emulated(result, name) else one_line(name)


def failed_devices(result: RunResult) -> list[str]:
    """Devices that gave no figures for a reason that stands with the verdict: their stage or their session failed."""
    stages = {stage.name for stage in result.stages if stage.status == "failed"}
    silent = {record.name for record in result.devices if result.kind == "profile" and not record.answered}
    return [name for name in devices(result) if f"profile.{name}" in stages or name in silent]


def device_reason(result: RunResult, name: str) -> str:
    """Say why a device has no figures."""
    record = device(result, name)
    failed = next((stage for stage in result.stages if stage.name == f"profile.{name}" and stage.status == "failed"), None)
    if failed and failed.reason:
        return f"The device failed: {one_line(failed.reason)}"
    if record and not record.answered:
        return one_line("; ".join(record.problems)) or "no reason was recorded"
    return f"No artifact was profiled on {one_line(name)}."


def fastest(result: RunResult, device: str) -> ProfileRecord | None:
    """The int8 artifact with the lowest trusted p50 on a device, one that fails no gate there before one that does."""
    found = [profile for profile in result.profiles if profile.device == device]
    models = {profile.model: result.model(profile.model) for profile in found}
    int8 = [profile for profile in found if (model := models[profile.model]) is not None and is_int8(model)]

    def rank(profile: ProfileRecord) -> tuple[bool, bool, float]:
        failed = not passes(result, profile.model, device)
        return failed, profile.trust.verdict != "trusted", profile.latency_ms.p50

    return min(int8 or found, key=rank, default=None)


def main_device(result: RunResult) -> str | None:
    """The first real device; an emulated one's times say nothing about a device, so it never makes the headline."""
    return next((profile.device for profile in result.profiles if not profile.emulated), None)


def profile_of(result: RunResult, model: str, device: str | None) -> ProfileRecord | None:
    """The profile of a model on a device."""
    return next((p for p in result.profiles if p.model == model and p.device == device), None)


def baseline(result: RunResult) -> ModelRecord | None:
    """Return the artifact that the headline compares with: the float32 file of its own format, else that of ONNX."""
    own = headline(result)
    written = [model for model in artifacts(result) if model.path is not None]
    floats = [model for model in written if model.precision == "float32"]
    formats = dict.fromkeys(([own.format] if own else []) + ["onnx"])
    return next((model for form in formats for model in floats if model.format == form), None)


def headline(result: RunResult) -> ModelRecord | None:
    """The artifact the four numbers are of.

    The int8 artifact with the lowest trusted p50, one that passes its gates before one that does not; without figures
    the first one written; without an int8 artifact the float one; without artifacts the last network.
    """
    device = main_device(result)
    written = [model for model in artifacts(result) if model.path is not None]
    candidates = [model for model in written if is_int8(model)] or written
    if not candidates:
        return next((model for model in reversed(result.models) if model.role != "artifact"), None)

    def rank(model: ModelRecord) -> tuple[bool, bool, bool, float]:
        profile = profile_of(result, model.name, device)
        trusted = profile is not None and profile.trust.verdict == "trusted"
        return (
            profile is None,
            not passes(result, model.name, device),
            not trusted,
            profile.latency_ms.p50 if profile else 0.0,
        )

    return min(candidates, key=rank)


def requested(result: RunResult) -> tuple[tuple[str, Precision], ...]:
    """Format and precision of each artifact that the recipe asks for."""
    exports = result.recipe.get("export") or ()
    usual: Precision = "int8" if result.recipe.get("quantize") else "float32"
    items: list[Mapping[str, Any]] = [item if isinstance(item, Mapping) else {"format": str(item)} for item in exports]
    return tuple((str(item.get("format", "")), item.get("precision") or usual) for item in items)


def not_written(result: RunResult) -> tuple[tuple[str, str], ...]:
    """Artifacts the recipe asks for that have no record: (label, reason). Their rows stay in the tables."""
    present = {_kind(model) for model in artifacts(result)}
    return tuple(
        (f"{base.format_label(form)} {precision}", lost_because(result, stage_name(form, precision)))
        for form, precision in requested(result)
        if (form, precision) not in present
    )


def lost(result: RunResult) -> tuple[tuple[str, str], ...]:
    """Artifacts the recipe asks for that were not delivered: (label, reason)."""
    unwritten = [model for model in artifacts(result) if model.path is None and _kind(model) in requested(result)]
    return (*not_written(result), *((label(model), lost_because(result, f"export.{model.name}")) for model in unwritten))


def _kind(model: ModelRecord) -> tuple[str, str | None]:
    return model.format, model.precision


def lost_because(result: RunResult, name: str) -> str:
    """Say why the artifact of a stage was not delivered, as the stage does."""
    failed = next((stage for stage in result.stages if stage.status == "failed" and stage.name == name), None)
    return f"not delivered: {one_line(failed.reason)}" if failed and failed.reason else "not delivered"


def quantization(result: RunResult) -> str:
    """The method that made the student int8, in words; empty for a float run."""
    if not result.recipe.get("quantize"):
        return ""
    is_ptq = section_of(result, "quantize").get("method") == "ptq"
    return "post-training quantization" if is_ptq else "quantization-aware training"


def profiled(result: RunResult) -> bool:
    """Return whether the recipe asks for figures of a device."""
    return bool(result.profiles) or bool(section_of(result, "profile"))


def labelled(result: RunResult) -> bool:
    """Return whether the test images have labels, so that accuracy means something."""
    data = section_of(result, "data")
    return data.get("classes") is None and data.get("labels") != "none"


def noun(result: RunResult) -> str:
    """Return what one of the data is called: ``image`` or ``sample``."""
    return "image" if result.data.inputs is None else "sample"


def judge(result: RunResult) -> Of | None:
    """Return the reference of the networks' outputs: labels, or, without them, a teacher, if there is one."""
    if labelled(result):
        return "labels"
    return "teacher" if any(model.measured("teacher") for model in result.models) else None


def metric(result: RunResult, of: Of | None = None) -> MetricWords:
    """The metric by which the networks of a run are compared; ``of``: held against this, in place of what decides."""
    return MetricWords(result.task.metric, of or judge(result) or "labels")


def metric_called(result: RunResult, name: str) -> MetricWords:
    """The metric of a run's task that has a name; one that the task does not have is written as a share."""
    known = (one for one in result.task.metrics if one.name == name)
    return MetricWords(next(known, MetricFacts(name, "right class", "%", "higher")))


def score(result: RunResult, model: ModelRecord | None, of: Of | None = None) -> float | None:
    """That metric of a model on the test split; None where it was not measured."""
    found = model.figure(result.task.metric.name, of) if model else None
    return found.value if found else None


def trained(result: RunResult) -> bool:
    """Return whether the recipe trains anything."""
    int8 = section_of(result, "quantize").get("method") == "qat"
    return (
        int8
        or bool(section_of(result, "distill"))
        or any(part.get("train") or part.get("distill") for _, part in teachers(result))
    )


def teachers(result: RunResult) -> tuple[tuple[str, Mapping[str, Any]], ...]:
    """The teacher's section and those of all behind it, each with its place in the recipe."""

    def found(key: str, part: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
        if isinstance(part, Mapping):
            yield key, part
            yield from found(f"{key}.teacher", part.get("teacher"))
            for index, member in enumerate(part.get("ensemble") or ()):
                yield from found(f"{key}.ensemble[{index}]", member)

    return tuple(found("teacher", result.recipe.get("teacher")))


def section_of(result: RunResult, name: str) -> Mapping[str, Any]:
    """A part of the resolved recipe, empty where the recipe leaves it out; with the values that a search has chosen."""
    recipe = result.recipe
    if name == "distill" and result.tuning is not None:
        recipe = to_json(recipe)  # a copy
        for key, value in result.tuning.chosen.values.items():
            put(recipe, parse_key(key), value)
    part = recipe.get(name)
    return part if isinstance(part, Mapping) else {}
