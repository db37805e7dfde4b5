"""Sections that let a reader check and use the run: training, artifacts, provenance, what was not measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from edgekd.report import facts, missing
from edgekd.report.charts.curves import Line, losses, validation
from edgekd.report.findings import sentences
from edgekd.report.page import Block, Bullets, Cell, Code, Column, Facts, Fold, Image, Section, Table, Tone, figure
from edgekd.report.sections import device_trust
from edgekd.report.words import NONE, count, duration, local, mib, one_line, plain, plural, sig
from edgekd.results.codec import to_json
from edgekd.results.models import FilePort, ModelRecord
from edgekd.results.run import Curve, RunResult


def _scores(curve: Curve) -> tuple[float, ...]:
    """The deciding metric after each epoch, on the validation split."""
    return next(iter(curve.val.values()))


CLASSES = 25
"""How many class names are written out; run.json has all."""


def training(result: RunResult) -> Section:
    """Accuracy and loss terms by epoch, and the layers that were paired."""
    title = "Training"
    curves = [curve for curve in result.curves if curve.val]
    if not curves:
        return Section("training", title, missing="Nothing was trained in this run.")
    metric = facts.metric(result, curves[0].of)
    labels = [facts.label_of(result, curve.model) for curve in curves]
    # QAT goes on from the distilled student, so it is drawn where that ends.
    before = {"qat": next((curve.epochs for curve in curves if curve.model == "distilled"), 0)}
    lines = [
        Line(label, tuple(metric.factor * value for value in _scores(curve)), curve.best_epoch, before.get(curve.model, 0))
        for label, curve in zip(labels, curves, strict=True)
    ]
    after = " QAT starts from the distilled student." if before["qat"] and any(line.start for line in lines) else ""
    blocks: list[Block] = [validation(lines, f"Ring: the kept epoch, which is the best by validation.{after}", metric)]
    panels = {
        label: [Line(one_line(name), tuple(values)) for name, values in curve.terms.items() if values]
        for label, curve in zip(labels, curves, strict=True)
    }
    panels = {label: terms for label, terms in panels.items() if terms}
    if panels:
        caption = "Mean of each weighted term over an epoch; the terms of a panel add up to its loss. Each has its own axis."
        blocks.append(losses(panels, caption))
    rows: list[tuple[Cell, ...]] = []
    for label, curve in zip(labels, curves, strict=True):
        scores = _scores(curve)
        best = scores[curve.best_epoch] if 0 <= curve.best_epoch < len(scores) else None
        train = curve.train.get(metric.facts.name)
        rows.append(
            (
                Cell(label),
                Cell(count(len(scores))),
                Cell(count(curve.best_epoch + 1)),
                figure(metric.value(best) if best is not None else None),
                figure(metric.value(scores[-1])),
                figure(metric.value(train[-1]) if train else None),
                Cell(duration(curve.seconds)),
            )
        )
    heads = [
        ("Epochs", ""),
        ("Kept epoch", ""),
        *((f"Validation {metric.name}, {of}", metric.unit) for of in ("kept", "last")),
    ]
    columns = (
        Column("Network"),
        *(Column(head, unit, "number") for head, unit in heads),
        Column(f"Train {metric.name}, last", metric.unit, "number"),
        Column("Wall time", "", "number"),
    )
    over = "augmented images" if facts.noun(result) == "image" else "training samples"
    note = f"Train {metric.name} is over the {over}. Epochs are counted from 1."
    if metric.of == "teacher":
        note = "Agreement: how often the network finds the class that its teacher finds. Epochs are counted from 1."
        columns, rows = (*columns[:5], *columns[6:]), [(*row[:5], *row[6:]) for row in rows]
    blocks.append(Table("Training in figures", columns, tuple(rows), note))
    for label, curve in zip(labels, curves, strict=True):
        if curve.pairs:
            blocks.append(Bullets(tuple(one_line(pair) for pair in curve.pairs), f"Layers paired for {label}"))
    return Section("training", title, tuple(blocks))


def pictures(result: RunResult) -> Iterator[Section]:
    """Yield one section for each picture."""
    for number, picture in enumerate(result.pictures):
        image = Image(picture.media_type, picture.data, one_line(picture.caption))
        yield Section(f"picture-{number + 1}", one_line(picture.title), (image,))


def files(result: RunResult) -> Section:
    """List the files with hashes, inputs and outputs, and a loading snippet."""
    written = [model for model in facts.artifacts(result) if model.path is not None]
    if not written:
        return Section("artifacts", "Artifacts", missing="No artifact was delivered.")
    size, digest = Column("Size", "MiB", "number"), Column("sha256", "", "code")
    columns = Column("Artifact"), Column("File", "", "code"), size, digest
    rows = tuple(
        (
            Cell(facts.label(model)),
            Cell(one_line(model.path or NONE)),
            figure(mib(model.bytes) if model.bytes is not None else None),
            Cell(model.sha256 or "not recorded", "" if model.sha256 else "muted"),
        )
        for model in written
    )
    folds: list[Block] = [Fold(f"Use {facts.label(model)}", _usage(result, model)) for model in written]
    return Section("artifacts", "Artifacts", (Table("Files", columns, rows), *folds))


def _usage(result: RunResult, model: ModelRecord) -> tuple[Block, ...]:
    blocks: list[Block] = []
    specs = [("input", spec) for spec in model.inputs] + [("output", spec) for spec in model.outputs]
    if specs:
        columns = Column("Tensor"), Column("Direction"), Column("Shape"), Column("Type"), Column("Layout")
        scale = Column("Scale", "", "number"), Column("Zero point", "", "number")
        blocks.append(Table("Inputs and outputs", (*columns, *scale), tuple(_tensor(*item) for item in specs)))
    snippet = result.snippets.get(model.name)
    if snippet:
        blocks.append(Code("Load and run it", plain(snippet).rstrip("\n"), "python"))
    return tuple(blocks) or (Bullets(("No load snippet was written.",)),)


def _tensor(direction: str, spec: FilePort) -> tuple[Cell, ...]:
    return (
        Cell(one_line(spec.name)),
        Cell(direction),
        Cell(" × ".join(str(side) for side in spec.shape)),
        Cell(one_line(spec.dtype)),
        Cell(one_line(spec.layout) or NONE),
        Cell(sig(spec.scale) if spec.scale is not None else NONE),
        Cell(str(spec.zero_point).replace("-", "−") if spec.zero_point is not None else NONE),
    )


def provenance(result: RunResult) -> Section:
    """The command, the stages, the data, the machine and the recipe."""
    tones: dict[str, Tone] = {"ran": "", "cached": "muted", "failed": "bad"}
    stages = tuple(
        (
            Cell(one_line(stage.name)),
            Cell(stage.status, tones[stage.status], one_line(stage.reason), mark=stage.status == "failed"),
            Cell(one_line(stage.key)),
            Cell(sig(stage.seconds)),
        )
        for stage in result.stages
    )
    heads = Column("Stage"), Column("Status"), Column("Key", "", "code"), Column("Work", "s", "number")
    note = "Cached: taken from an earlier run with the same key; the seconds are what the work took then."
    machine = tuple((Cell(one_line(key)), Cell(one_line(value))) for key, value in flatten(result.environment))
    recipe = yaml.safe_dump(to_json(result.recipe), sort_keys=False, allow_unicode=True, width=100).rstrip("\n")
    blocks: list[Block] = [Code("Reproduce this run", plain(result.command), "sh")]
    if stages:
        blocks.append(Table("Stages", heads, stages, note))
    blocks.append(Facts(data_facts(result), "Data"))
    if machine:
        table = Table("Environment", (Column("What"), Column("Value")), machine)
        blocks.append(Fold("Environment", (table,), plural(len(machine), "entry").replace("entrys", "entries")))
    blocks.append(Fold("Recipe, resolved", (Code("recipe.lock.yaml", plain(recipe), "yaml"),)))
    return Section("provenance", "Provenance", tuple(blocks))


def data_facts(result: RunResult) -> tuple[tuple[str, str], ...]:
    """The data in words: source, sizes, classes, normalization, licence, fingerprint."""
    data = result.data
    more = f" and {count(len(data.classes) - CLASSES)} more" if len(data.classes) > CLASSES else ""
    noun, pictures = facts.noun(result), data.inputs is None
    known = pictures or bool(data.classes)
    size = f"{data.size[0]} × {data.size[1]} pixels, {plural(data.channels, 'channel')}"
    shapes = {name: " × ".join(map(count, shape)) or "one number" for name, shape in (data.inputs or {}).items()}
    pairs = [
        ("Source", local(one_line(data.source))),
        (f"{noun.capitalize()}s", f"{count(data.train)} train, {count(data.val)} validation, {count(data.test)} test"),
        ("Size", size if pictures else "; ".join(f"{name}: {shape}" for name, shape in shapes.items())),
        ("Classes", f"{count(len(data.classes))}: {one_line(', '.join(data.classes[:CLASSES]))}{more}" if known else ""),
        ("Normalization", f"mean {_numbers(data.mean)}; standard deviation {_numbers(data.std)}" if pictures else ""),
        ("Licence", one_line(data.license)),
        ("Fingerprint (sha256)", one_line(data.fingerprint)),
    ]
    return tuple((label, value) for label, value in pairs if value)


def _numbers(values: Sequence[float]) -> str:
    # In full, not to three digits: a reader types these into a preprocessing step.
    return ", ".join(f"{value:.6g}" for value in values)


def flatten(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield nested entries as (dotted key, text)."""
    for key, part in value.items():
        name = f"{prefix}{key}"
        if isinstance(part, Mapping):
            yield from flatten(part, f"{name}.")
        elif isinstance(part, bool):
            yield name, "yes" if part else "no"
        elif isinstance(part, list | tuple):
            yield name, ", ".join(str(item) for item in part) or "none"
        else:
            yield name, "unknown" if part is None else str(part)


def findings(result: RunResult, quiet: str) -> Section:
    """List the findings; ``quiet`` stands there if there are none."""
    if found := sentences(result):
        return Section("findings", "Findings", (Bullets(tuple(map(one_line, found))),))
    doubted = "Nothing but the untrusted times." if device_trust.why(result) else ""
    return Section("findings", "Findings", lead=doubted or quiet)


def omissions(result: RunResult, sections: Sequence[Section], failures: Sequence[str]) -> Section:
    """List everything that was not measured: the run's own list, and every section without data.

    What stands with the verdict, among its ``failures``, is not said again.
    """
    lacking = map(one_line, missing.together(result.not_measured, result.task.metrics))
    items = [text for text in lacking if not any(map(text.endswith, failures))]
    items += [f"{section.title}: {section.missing}" for section in sections if section.missing]
    title = "What was not measured"
    if not items:
        return Section("not-measured", title, lead="Everything this report has a place for was measured.")
    return Section("not-measured", title, (Bullets(tuple(items)),))
