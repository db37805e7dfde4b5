"""Sentences of advice: what a reader may write into a recipe, and why."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from edgekd.errors import joined
from edgekd.report.metric import MetricWords
from edgekd.results.findings import Finding
from edgekd.results.models import MetricFacts
from edgekd.runtimes import base


def sentence(advice: Finding, metrics: Sequence[MetricFacts]) -> str | None:
    """Write advice; None where this report does not know it.

    Args:
        advice: The finding.
        metrics: Of the run's task.
    """
    if advice.code == "weak_teacher":
        return f"Advice: {_weak_teacher(advice, metrics)}."
    write = SENTENCES.get(advice.code)
    return f"Advice: {write(advice)}." if write else None


def _training(advice: Finding) -> str:
    if advice.figures["trained"]:
        return ""
    return " and distill: {epochs: 8, losses: [{kind: task}]} to train it"


def _no_int8_kernel(advice: Finding) -> str:
    kind, runtimes = advice.figures["kind"], joined([base.label(name) for name in advice.figures["formats"]])
    rewrite = f"student.rewrite: {{{kind}: relu6}}{_training(advice)}"
    return f"{kind} ({advice.figures['count']}×) has no int8 kernel in {runtimes}: {rewrite}"


def _slow_squeezes(advice: Finding) -> str:
    return (
        f"squeeze-excite ({advice.figures['count']}×) is slow in int8 next to the convolutions: "
        f"student.rewrite: {{se: drop}}{_training(advice)}, if the accuracy allows"
    )


def _int8_io(advice: Finding) -> str:
    devices = [*advice.figures["devices"]]
    takes = "takes" if len(devices) == 1 else "take"
    return f"{joined(devices)} {takes} int8 input and output: export: [{{format: tflite, io: int8}}]"


def _small_student(advice: Finding) -> str:
    key, figures = advice.where, advice.figures
    student = "student" if key == "teacher" else key.removesuffix(".teacher")
    return (
        f"the {student} has {100 * figures['share']:.2g} % of the parameters of {key}; with less than "
        f"{100 * figures['least']:g} %, an assistant of a size in between may teach it better: "
        f"{key}: {{model: BETWEEN, distill: {{epochs: N, losses: [{{kind: kd}}]}}, teacher: THE LARGE ONE}}"
    )


def _weak_teacher(advice: Finding, metrics: Sequence[MetricFacts]) -> str:
    name = advice.figures["metric"]
    metric = MetricWords(next((one for one in metrics if one.name == name), MetricFacts(name, name, "", "higher")))
    teacher, alone = (f"{metric.name} {metric.told(advice.figures[key])}" for key in ("teacher", "alone"))
    return (
        f"the teacher has {teacher} on validation and the student alone {alone}: train the teacher longer, take a larger "
        "one, or lower the weight of the losses on it"
    )


def _flat_temperature(advice: Finding) -> str:
    return (
        f"{_at(advice)} nearly uniform {_much(advice)}: the loss then compares the logits themselves, like mse_logits, and "
        "not the ranking of the likely classes; lower the temperature"
    )


def _sharp_temperature(advice: Finding) -> str:
    return (
        f"{_at(advice)} next to one-hot {_much(advice)}: they add little to the labels; raise the temperature, or train the "
        "teacher with label_smoothing or for fewer epochs"
    )


def _at(advice: Finding) -> str:
    return f"{advice.where}: at temperature {advice.figures['temperature']:g} the teacher's probabilities are"


def _much(advice: Finding) -> str:
    return f"({100 * advice.figures['entropy']:.1f} % of the largest entropy, on validation)"


SENTENCES: Mapping[str, Callable[[Finding], str]] = {
    "advice": lambda advice: str(advice.figures["text"]),
    "no_int8_kernel": _no_int8_kernel,
    "slow_squeezes": _slow_squeezes,
    "int8_io": _int8_io,
    "small_student": _small_student,
    "flat_temperature": _flat_temperature,
    "sharp_temperature": _sharp_temperature,
}
"""The advice of each code; ``advice`` is a sentence of an earlier version."""
CODES = frozenset((*SENTENCES, "weak_teacher"))
"""Codes of the advice that is written here."""
