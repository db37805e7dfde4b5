"""Sentences of figures that a reader may look for and will not find, each with its reason."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

from edgekd.errors import joined
from edgekd.report import findings, trust
from edgekd.report.words import count, sig
from edgekd.results.findings import UNFIT, Finding, Missing
from edgekd.results.models import MetricFacts
from edgekd.runtimes import base

_NO_FILES = "int8, files and devices: a study trains students; edgekd run makes the rest of the one that was chosen"


def sentence(figure: Missing, metrics: Sequence[MetricFacts] = ()) -> str:
    """Write a figure that is missing, such as ``single operations of onnx on host: no times``.

    Args:
        figure: The figure.
        metrics: Of the run's task; the first decides.
    """
    where = f"{figure.model}{f' on {figure.device}' if figure.model and figure.device else figure.device}"
    joined = " of " if figure.model else " on "
    head = f"{figure.what}{joined}{where}" if figure.what and where else figure.what or where
    return f"{head}: {reason(figure, metrics)}" if head else reason(figure, metrics)


def together(found: Sequence[Missing], metrics: Sequence[MetricFacts] = ()) -> Iterator[str]:
    """Write what is missing; the same fact of several files, or on several devices, in one line."""
    same: dict[tuple[str, str], dict[str, list[str]]] = {}
    for figure in found:
        alike = figure.model and figure.device
        key = (figure.what, reason(figure, metrics)) if alike else ("", sentence(figure, metrics))
        places = same.setdefault(key, {})
        if alike:
            places.setdefault(figure.device, []).append(figure.model)
    for (what, fact), places in same.items():
        where = _places(places)
        yield f"{f'{what} of ' if what else ''}{where}: {fact}" if where else fact


def _places(by_device: Mapping[str, Collection[str]]) -> str:
    by_models: dict[tuple[str, ...], list[str]] = {}
    for device, names in by_device.items():
        by_models.setdefault(tuple(dict.fromkeys(names)), []).append(device)
    return "; ".join(f"{joined([*names])} on {joined(there)}" for names, there in by_models.items())


def reason(figure: Missing, metrics: Sequence[MetricFacts] = ()) -> str:
    """Write why a figure is missing; in the words of its code and figures where this report does not know it."""
    fact = figure.reason
    if fact.code in _OF_METRICS:
        return _OF_METRICS[fact.code](fact.figures, metrics)
    write = _REASONS.get(fact.code)
    return write(fact.figures) if write else trust.sentence(fact)


def while_running(finding: Finding) -> str:
    """Write a finding of a running stage, or its reason for a missing figure, before the report is written."""
    write = _REASONS.get(finding.code)
    return write(finding.figures) if write else findings.sentence(finding)


def _small_test_split(figures: Mapping[str, Any], metrics: Sequence[MetricFacts]) -> str:
    images = figures["images"]
    text = f"other data: {figures['source']} has {count(images)} test images"
    if not metrics or metrics[0].unit != "%":
        return text
    return f"{text}; one point of {metrics[0].label} is {sig(images / 100, 2)} images"


def _no_labels_used(figures: Mapping[str, Any], metrics: Sequence[MetricFacts]) -> str:
    instead = "files were only compared with the network in torch"
    if figures["teacher"]:
        name = metrics[0].label if metrics else "each metric"
        instead = f"{name} is agreement with the teacher, mistakes of the teacher included"
    return f"accuracy: no labels were used, so {instead}"


def _dropped(figures: Mapping[str, Any]) -> str:
    names = [*figures["outputs"]]
    return f"{joined(names)} {'is' if len(names) == 1 else 'are'} dropped, and in no file"


def _training_outputs(figures: Mapping[str, Any]) -> str:
    return (
        f"no loss reads {joined([*figures['outputs']])}, and no file has {'it' if len(figures['outputs']) == 1 else 'them'}"
    )


def _few_minutes(figures: Mapping[str, Any]) -> str:
    only = f"only {figures['minutes']:.1f} of {figures['of']:g} minutes without a pause were measured"
    return f"{only}: limit_s is over ({figures['limit_s']:g} s)"


def _not_here(figures: Mapping[str, Any]) -> str:
    return f"not compared with those of this machine: {figures.get('why') or 'the file did not run here'}"


def _not_described(figures: Mapping[str, Any]) -> str:
    fed = "the inputs given" if figures["given"] else "random values"
    return f"accuracy, preprocessing and torch's outputs: no manifest.json describes the file; it is fed {fed}"


def _other_budgets(figures: Mapping[str, Any]) -> str:
    tuned = figures["tuned"]
    found = f"; {', '.join(tuned)}: those that its own search found" if tuned else ", none was tuned"
    return f"other budgets and weights: each method has those that the study gives it{found}"


_REASONS: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "no_profile": lambda figures: "latency and memory: the recipe has no profile section",
    "host_only": lambda figures: "any other device: only the host was profiled",
    "no_power_meter": lambda figures: "energy: no power meter is read",
    "one_seed": lambda figures: f"spread over seeds: one seed ({figures['seed']})",
    "one_teacher": lambda figures: "spread over teachers: the same teacher taught the students of all seeds",
    "one_teacher_a_pair": lambda figures: (
        "spread over teachers: each pair has one teacher, which taught the students of all seeds"
    ),
    "files_of_one_seed": lambda figures: (
        f"spread of the files over seeds: they are made from the first seed's student ({figures['seed']})"
    ),
    "given_weights_may_know_test": lambda figures: (
        "samples that are new to the network: whether the given weights were trained on the test split is not known"
    ),
    "random_images": lambda figures: (
        "the size and the normalization of the weights' training: the images are random, "
        f"{figures['height']}×{figures['width']}, as written"
    ),
    "student_alone_needs_labels": lambda figures: "the student alone: it needs labels",
    "no_real_images": lambda figures: (
        "real images: none in training, calibration or evaluation; all were made from a network"
    ),
    "no_app_program": lambda figures: (
        f"C++ and Kotlin for {', '.join(figures['models'])}: they are only for files that take one image and give its class"
    ),
    "no_load_snippet": lambda figures: (
        f"loading of {', '.join(figures['models'])}: {base.label(figures['format'])} has no lines for a file with several "
        "inputs"
    ),
    "primary_output_only": lambda figures: (
        f"outputs of {', '.join(figures['models'])} beside the primary one: the load snippet skips them, as "
        f"{base.label(figures['format'])} has no lines for it"
    ),
    "no_test_outputs": lambda figures: "the teacher on the test split: its stored outputs have no `test`",
    "dropped_outputs": _dropped,
    "training_outputs": _training_outputs,
    "not_finite": lambda figures: f"it is {figures['value']} on the {figures['split']} split, which is no figure",
    "no_files_in_a_study": lambda figures: _NO_FILES,
    "other_budgets": _other_budgets,
    UNFIT: lambda figures: f"not applicable: {figures['why']}",
    "cold_load_is_warm": lambda figures: (
        "the cold load is not cold: the file stayed in the page cache (its folder is in memory, or another process holds it)"
    ),
    "not_steady": lambda figures: f"the times were not steady after {figures['warmup_s']:.1f} s of warm-up",
    "few_minutes": _few_minutes,
    "not_to_the_end": lambda figures: f"not measured to the end: {figures['why']}",
    "varies": lambda figures: "not compared: the model gives other outputs each time, on the host too",
    "no_numbers": lambda figures: "it is no tensor of real numbers, and is not compared",
    "too_large": lambda figures: "they are too large to bring here",
    "no_labels": lambda figures: "there are no labels",
    "not_here": _not_here,
    "not_described": _not_described,
    "no_torch_outputs": lambda figures: "torch's outputs: the bundle does not have them; one of a newer edgekd has",
    "converted": lambda figures: f"the values of {figures['input']} are converted from {figures['from']} to {figures['to']}",
    "nan_values": lambda figures: f"the values of {figures['input']} have NaN, which may make outputs NaN and change times",
}
_OF_METRICS: Mapping[str, Callable[[Mapping[str, Any], Sequence[MetricFacts]], str]] = {
    "small_test_split": _small_test_split,
    "no_labels_used": _no_labels_used,
}
CODES = frozenset((*_REASONS, *_OF_METRICS))
"""Codes of the reasons that are written here."""
