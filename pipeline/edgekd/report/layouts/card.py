"""MODEL_CARD.md: what the run knows about the artifacts it leaves, and nothing it does not know."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import yaml

from edgekd.report import facts, missing, trust
from edgekd.report.findings import sentences
from edgekd.report.layouts.markdown import block_code, escape, table
from edgekd.report.metric import MetricWords
from edgekd.report.page import MARKS, Cell, Column, Table, figure
from edgekd.report.sections import evidence
from edgekd.report.verdict import verdict
from edgekd.report.view import story
from edgekd.report.words import count, known, local, mib, one_line, percent, plain, plural, sig
from edgekd.results.fidelity import Fidelity
from edgekd.results.models import ModelRecord, Of
from edgekd.results.run import RunResult
from edgekd.runtimes import base

HUB = {"top1": "accuracy"}
"""Metrics that model hubs call otherwise."""


def render(result: RunResult) -> str:
    """Return the model card of a run; what was not measured is left out or listed, never invented.

    Example:
        >>> from edgekd.results.run import read_run
        >>> text = render(read_run(Path("reports/mobilenet/latest")))  # doctest: +SKIP
    """
    parts = [_front(result), f"# {escape(one_line(result.name))}", escape(story(result)), *_verdict(result)]
    for title, blocks in (
        ("Files", _files(result)),
        ("Use", _use(result)),
        ("Data", [_pairs(evidence.data_facts(result))]),
        ("Training", _training(result)),
        ("Evaluation", _evaluation(result)),
        ("Speed and memory", _speed(result)),
        ("Limits", _limits(result)),
        ("Reproduce", [block_code(plain(result.command), "sh"), f"Made by edgekd {escape(result.edgekd)}."]),
    ):
        if blocks:
            parts += [f"## {title}", *blocks]
    return "\n\n".join(parts) + "\n"


def _verdict(result: RunResult) -> list[str]:
    """Say at the top that a model did not pass, for the card travels with its files."""
    found = verdict(result)
    if found.tone == "good":
        return []
    lines = "\n".join(f"- {escape(line)}" for line in found.failures)
    return [f"**{MARKS[found.tone]} {found.word}: {escape(found.sentence)}**", *([lines] if lines else [])]


def _front(result: RunResult) -> str:
    """The header that model hubs read. No licence: a run does not know under which one its model is given away."""
    head: dict[str, Any] = {"pipeline_tag": result.task.kind, "tags": ["edgekd"]}
    model = facts.headline(result)
    if model and facts.is_int8(model):
        head["tags"] += ["int8", facts.quantization(result).replace(" ", "-")]
    taught = facts.section_of(result, "teacher") or facts.section_of(result, "distill").get("peers")
    if taught and facts.section_of(result, "student"):
        head["tags"].append("knowledge-distillation")
    found = model.measured("labels") if model else None
    if model and found:
        source = local(one_line(result.data.source))
        entry = {
            "task": {"type": result.task.kind},
            "dataset": {"name": source, "type": source, "split": "test"},
            "metrics": [
                {
                    "type": HUB.get(metric.name, metric.name),
                    "name": f"{metric.label}, {facts.label(model)}",
                    "value": found.values[metric.name].value,
                }
                for metric in result.task.metrics[:1]
                if metric.name in found.values
            ],
        }
        head["model-index"] = [{"name": one_line(result.name), "results": [entry]}]
    return f"---\n{yaml.safe_dump(head, sort_keys=False, allow_unicode=True)}---"


def _written(result: RunResult) -> list[ModelRecord]:
    return [model for model in facts.artifacts(result) if model.path is not None]


def _files(result: RunResult) -> list[str]:
    columns = (
        Column("File", "", "code"),
        Column("Precision"),
        Column("Size", "MiB", "number"),
        Column("sha256", "", "code"),
    )
    rows = tuple(
        (
            Cell(one_line((model.path or "").removeprefix("artifacts/"))),  # the card lies in that folder
            Cell(f"{base.format_label(model.format)} {facts.precision(model)}"),
            figure(mib(model.bytes) if model.bytes is not None else None),
            Cell(model.sha256 or "not recorded"),
        )
        for model in _written(result)
    )
    lost = [f"- {escape(f'{label}: {reason}')}" for label, reason in facts.lost(result)]
    return [*([table(Table("Files", columns, rows))] if rows else []), *(["\n".join(lost)] if lost else [])]


def _use(result: RunResult) -> list[str]:
    parts = []
    for model in _written(result):
        tensors = [("Input", spec) for spec in model.inputs] + [("Output", spec) for spec in model.outputs]
        lines = []
        for direction, spec in tensors:
            shape = " × ".join(str(side) for side in spec.shape)
            scale = "" if spec.scale is None else f", scale {spec.scale:.9g}, zero point {spec.zero_point or 0}"
            layout = f", {spec.layout}" if spec.layout else ""
            lines.append(f"- {direction} {escape(f'{one_line(spec.name)}: {spec.dtype}, {shape}{layout}{scale}')}")
        snippet = result.snippets.get(model.name)
        if lines or snippet:
            parts.append(f"### {escape(facts.label(model))}")
        if lines:
            parts.append("\n".join(lines))
        if snippet:
            parts.append(block_code(plain(snippet).rstrip("\n"), "python"))
    return parts


def _pairs(pairs: tuple[tuple[str, str], ...]) -> str:
    return "\n".join(f"- {escape(label)}: {escape(value)}" for label, value in pairs)


def _training(result: RunResult) -> list[str]:
    lines = []
    distill, quantize = facts.section_of(result, "distill"), facts.section_of(result, "quantize")
    learners = [("the student", distill)]
    learners += [(key, part.get("distill") or {}) for key, part in facts.teachers(result)]
    for learner, section in learners:
        terms = [
            f"{term.get('kind')} (weight {term.get('weight', 1)})"
            for term in section.get("losses") or ()
            if isinstance(term, Mapping)
        ]
        if terms:
            lines.append(f"Loss of {learner}: {', '.join(terms)}")
    for curve in result.curves:
        epochs = plural(curve.epochs, "epoch")
        if curve.val:
            label = facts.label_of(result, curve.model)
            lines.append(f"{label}: {epochs}, epoch {curve.best_epoch + 1} kept, the best by validation")
    student = "distilled student" if distill else "trained student that was given"
    if quantize.get("method") == "ptq":
        count, observer = quantize.get("calibration_images"), quantize.get("observer")
        noun = f"{facts.noun(result)}s"
        images = f"{count} training {noun} at most" if isinstance(count, int) else f"training {noun}"
        lines.append(f"int8: {facts.quantization(result)} of the {student}, calibrated on {images} ({observer})")
    elif quantize:
        losses = "the same losses" if distill else "hard labels"
        losses = "the float student as its teacher" if quantize.get("self_distill") else losses
        lines.append(f"int8: {facts.quantization(result)} with {losses}, from the {student}")
    if result.recipe.get("seed") is not None:
        lines.append(f"Seed: {result.recipe['seed']}")
    return ["\n".join(f"- {escape(one_line(line))}" for line in lines)] if lines else []


def _evaluation(result: RunResult) -> list[str]:
    rows, of = [], facts.judge(result)
    words = [MetricWords(metric, of if of and not number else "labels") for number, metric in enumerate(result.task.metrics)]
    words = [one for one in words if _known(result, one, of)]
    classes = any(model.fidelity and model.fidelity.agreement for model in result.models)
    for model in result.models:
        found = model.measured(of) if of else None
        close = model.fidelity
        if found is None and close is None:
            continue
        values = found.values if found else {}
        quality = (one.value(values[one.facts.name].value) if one.facts.name in values else "—" for one in words)
        images = found.n if found else close.sqnr_db.n if close else 0
        drop, same, noise = "—", "—", "—"
        if close:
            if close.agreement:
                same = facts.with_interval(percent(close.agreement.value), close.agreement, 100)
            noise = facts.with_interval(sig(close.sqnr_db.value), close.sqnr_db, 1)
            drop = _drop(result, close)
        parity = percent(model.parity.agreement) if model.parity and model.parity.agreement is not None else "—"
        texts = *quality, count(images), drop, noise, *((same, parity) if classes else ())
        rows.append((Cell(facts.label(model)), *(Cell(text) for text in texts)))
    same = facts.same_class(result.task)
    heads = (
        *((one.title, one.unit) for one in words), (f"Test {facts.noun(result)}s", ""),
        ("Drop against float", facts.metric(result).change_unit), ("SQNR to float", "dB"),
        *(((f"Same {same} as float", "%"), (f"Same {same} as in torch", "%")) if classes else ()),
    )  # fmt: skip
    columns = (Column("Model"), *(Column(head, unit, "number") for head, unit in heads))
    note = (
        "[low, high]: 95 % interval. Float: the float student in torch. "
        f"SQNR: variance of its {facts.output_of(result.task)} to squared error."
    )
    return [table(Table("Evaluation", columns, tuple(rows))), note] if rows else []


def _known(result: RunResult, metric: MetricWords, of: Of | None) -> bool:
    """Tell whether a metric was measured of any model."""
    return of is not None and any(model.figure(metric.facts.name, of) for model in result.models)


def _drop(result: RunResult, close: Fidelity) -> str:
    """Write what a model has lost against the float model: of the metric that decides, or what is expected."""
    metric = facts.metric(result)
    drop = close.drops.get(metric.facts.name)
    if drop is not None:
        return facts.with_interval(metric.change(drop.value), drop, metric.factor)
    if close.expected_drop is None:
        return "—"
    return facts.with_interval(sig(100 * close.expected_drop.value), close.expected_drop, 100) + " (expected)"


def _speed(result: RunResult) -> list[str]:
    rows = []
    for record in result.profiles:
        device = f"{one_line(record.device)} (EMULATED: not to be quoted)" if record.emulated else one_line(record.device)
        latency = record.latency_ms
        reasons = one_line(trust.reasons(record.trust))
        stamp = "EMULATED" if record.emulated else ""
        figures = (figure(known(value)) for value in (latency.p50, latency.p90, record.memory.peak))
        rows.append(
            (
                Cell(facts.label_of(result, record.model)),
                Cell(device),
                Cell(f"{one_line(record.effective.runtime)}, {plural(record.effective.threads, 'thread')}"),
                *(replace(cell, stamp=stamp) for cell in figures),
                Cell("emulated" if stamp else f"untrusted: {reasons}" if record.trust.verdict == "untrusted" else "trusted"),
            )
        )
    heads = ("p50", "ms"), ("p90", "ms"), ("Peak memory", "MiB")
    numbers = (Column(head, unit, "number") for head, unit in heads)
    columns = Column("Artifact"), Column("Device"), Column("Runtime"), *numbers, Column("Trust")
    note = f"One {facts.noun(result)} at a time. Peak memory is that of the whole measuring process (VmHWM)."
    return [table(Table("Speed", columns, tuple(rows))), note] if rows else []


def _limits(result: RunResult) -> list[str]:
    lines = [one_line(text) for text in sentences(result)]
    lines += [
        f"{facts.label(model)} leaves in float: {one_line('; '.join(map(str, model.float_ops)))}"
        for model in _written(result)
        if facts.is_int8(model) and model.float_ops
    ]
    for gate in result.gates:
        if gate.verdict == "fail":
            unit = facts.gate_words(gate, result.task).unit
            figures = (
                f"{facts.gate_measured(gate, result.task)} {unit}".strip(),
                f"{facts.gate_limit(gate, result.task)} {unit}".strip(),
            )
            name = f"{facts.label_of(result, gate.model)}: {facts.gate_label(gate, result.task)}"
            lines.append(f"{name} is {figures[0]}, outside its limit of {figures[1]}")
    lacking = (missing.sentence(figure, result.task.metrics) for figure in result.not_measured)
    lines += [f"Not measured: {one_line(text)}" for text in lacking]
    return ["\n".join(f"- {escape(line)}" for line in lines)] if lines else []
