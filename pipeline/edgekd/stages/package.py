"""package: the bundle. Model files, manifest, samples with expected outputs, load snippets; and the records for run.json."""

from __future__ import annotations

import base64
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from edgekd.assembly import beside, figures, networks, peers, records, search
from edgekd.assembly.context import Context
from edgekd.assembly.outputs import (
    ALL_INT8,
    DistillOutput,
    Evaluated,
    EvaluateOutput,
    ExportOutput,
    Synthesized,
)  # fmt: skip
from edgekd.assembly.samples import images as images_of
from edgekd.assembly.stage import Node, Work
from edgekd.bundle import manifest, samples
from edgekd.bundle.app_snippets import app_snippets
from edgekd.bundle.snippets import Bundled, snippet
from edgekd.data import fingerprint
from edgekd.devices import targets
from edgekd.distill import advice
from edgekd.profiling import verdicts
from edgekd.profiling.participants import SAMPLES
from edgekd.reads import file_sha256
from edgekd.recipe import Recipe
from edgekd.recipe.distill import Peer
from edgekd.recipe.export import split_name
from edgekd.recipe.student import Student
from edgekd.recipe.teacher import Teacher
from edgekd.results.findings import Finding, Missing, missing
from edgekd.results.layers import LayerRecord, RepairRecord
from edgekd.results.mistakes import CopiedErrors
from edgekd.results.models import Estimate, Metrics, ModelRecord, Of
from edgekd.results.profile import DeviceRecord, Failure, ProfileRecord
from edgekd.results.run import Curve, DataRecord, Picture, SeedRecord, best_of
from edgekd.results.runtime import FloatWeights
from edgekd.results.speed import Int8Speed
from edgekd.results.tuning import TuningRecord
from edgekd.runtimes import base as runtimes
from edgekd.stages import distill, evaluate, export, profile, quantize, tune
from edgekd.statistics import wilson
from edgekd.task import base
from edgekd.task.base import task_of
from edgekd.task.image_classification import IMAGE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgekd.data.dataset import DataSet


@dataclass(frozen=True)
class Bundle:
    """Results of the package stage, for run.json."""

    data: DataRecord
    models: tuple[ModelRecord, ...]
    curves: tuple[Curve, ...]
    profiles: tuple[ProfileRecord, ...]
    findings: tuple[Finding, ...]
    speeds: tuple[Int8Speed, ...]
    snippets: dict[str, str]
    not_measured: tuple[Missing, ...]
    layers: tuple[LayerRecord, ...]
    repair: RepairRecord | None
    seeds: tuple[SeedRecord, ...]
    tuning: TuningRecord | None
    baseline_tuning: TuningRecord | None
    copied: tuple[CopiedErrors, ...]
    float_weights: FloatWeights | None
    pictures: tuple[Picture, ...] = ()
    doubts: tuple[Finding, ...] = ()
    devices: tuple[DeviceRecord, ...] = ()
    failures: tuple[Failure, ...] = ()


def synthesized(context: Context) -> tuple[Finding, ...]:
    """Return that no real image taught the student, and how well the made ones are recognized."""
    if "synthesize" not in context.inputs:
        return ()
    made, teacher = context.output(Synthesized, "synthesize"), context.recipe.teacher is not None
    figures: dict[str, Any] = {
        "images": made.images, "norms": made.norms, "of": "teacher" if teacher else "student",
        "recognized": made.recognized, "test_is_real": context.recipe.data.source != "synthetic",
    }  # fmt: skip
    return (Finding("synthesized", "note", "synthesize", figures),)


def _pictures(context: Context) -> tuple[Picture, ...]:
    if "synthesize" not in context.inputs:
        return ()
    sheet = (context.inputs["synthesize"] / "sheet.jpg").read_bytes()
    caption = "Synthesized from the statistics of batch norms; a column is a class. This is what the student was trained on."
    return (Picture("Synthesized images", caption, "image/jpeg", base64.b64encode(sheet).decode()),)


def rewrites(context: Context) -> tuple[Finding, ...]:
    """Return the rewrites of the student before distillation, and the parts that are still slow in int8."""
    made = records.structure(context)
    if made is None:
        return ()
    found = [Finding("rewritten", figures={"changes": list(made.changes)})] if made.changes else []
    found += [Finding("reused", figures={"what": made.reused})] if made.reused else []
    found += [Finding("rewrite_left", figures={"reason": reason}) for reason in made.left]
    return (*found, *distill.advice(context.recipe, made))


def untrained(context: Context, models: Sequence[ModelRecord]) -> tuple[Finding, ...]:
    """Return the outputs that files ship although no loss of the distillation reads them."""
    if context.recipe.distill is None:
        return ()
    names = dict.fromkeys(port.name for model in models if model.role == "artifact" for port in model.outputs[1:])
    return (Finding("untrained_outputs", "warning", "distill", {"outputs": list(names)}),) if names else ()


def teaching(context: Context) -> tuple[Finding, ...]:
    """Return advice from the sizes and the accuracies of teachers and student."""
    found: list[Finding] = []
    for stage, taught in records.taught(context).items():
        key = "teacher" if stage == "distill" else f"{stage}.teacher"
        found += advice.gap(taught.student_params, taught.params, key)
        found += advice.softness(taught.softness)
        if stage == "distill" and "student_alone" in context.inputs and taught.val_score is not None:
            alone = context.output(DistillOutput, "student_alone").curve
            metric = base.record(task_of(context.recipe.task)).metric
            found += advice.weak(taught.val_score, best_of(alone), metric)
    return tuple(found)


@dataclass(frozen=True)
class _Network:
    """A network in torch, and the stage that it is from."""

    name: str
    role: Literal["teacher", "baseline", "peer", "student"]
    stage: str
    section: Teacher | Student | Peer


def _in_torch(recipe: Recipe) -> Iterator[_Network]:
    """Yield the networks that a recipe may have; those of baselines are there only if they were trained."""
    for name, section in recipe.teacher.lineage() if recipe.teacher else ():
        yield _Network(name, "teacher", name, section)
    if recipe.student is None:
        return
    for baseline in distill.BASELINES:
        yield _Network(baseline, "baseline", baseline, recipe.student)
    for name, peer in peers.sections(recipe).items():
        yield _Network(name, "peer", "distill", peer)
    yield _Network(networks.float_name(recipe), "student", networks.trained(recipe), recipe.student)
    if recipe.quantize:
        yield _Network(recipe.quantize.method, "student", "quantize", recipe.student)


def _networks(context: Context, found: Mapping[str, Evaluated], curves: tuple[Curve, ...], val: int) -> list[ModelRecord]:
    """The networks in torch, and their weights as safetensors; ``val`` is how many images the validation split has."""
    recipe, graph = context.recipe, records.graph(context)
    int8 = recipe.quantize.method if recipe.quantize else ""
    validation = {curve.model: best_of(curve) for curve in curves}
    judges: dict[str, Of] = {curve.model: curve.of for curve in curves}
    metric = task_of(recipe.task).metrics[0]
    if int8 and graph is not None and graph.val_score is not None:  # a repair comes after the curve
        validation[int8] = graph.val_score
    models = []
    for network in _in_torch(recipe):
        name = network.name
        if name not in found:
            continue
        metrics = [*found[name].metrics]
        if name in validation:
            of = judges.get(name, judges.get(networks.float_name(recipe), "labels"))
            estimate = Estimate(validation[name], *(wilson(validation[name], val) if metric.unit == "%" and val else ()))
            metrics.append(Metrics("val", val, {metric.name: estimate}, of))
        size_of = found[networks.float_name(recipe)] if name == int8 else found[name]
        record = ModelRecord(
            name=name, role=network.role, format=_format(network.section), precision=_precision(network),
            source=_source(network.section), params=size_of.params, macs=size_of.macs, metrics=tuple(metrics),
            fidelity=found[name].fidelity,
        )  # fmt: skip
        if name == int8:
            operators = () if graph is None else graph.float_ops
            record = replace(record, float_ops=operators, weight_bits=quantize.weight_bits(recipe))
        elif not _is_given(network):
            own = f"{name}.safetensors" if network.role == "peer" else "weights.safetensors"
            path, sha256, size = manifest.copy(context.inputs[network.stage] / own, context.out / f"{name}.safetensors")
            record = replace(record, path=path, sha256=sha256, bytes=size)
        models.append(record)
    return models


def _is_given(network: _Network) -> bool:
    """Return whether a network comes with its weights, and is not trained here."""
    section = network.section
    return network.stage == "student" or (isinstance(section, Teacher) and section.budget is None)


def _precision(network: _Network) -> str | None:
    """Return the precision of a network; None of a black box, whose is not known."""
    if isinstance(network.section, Teacher):
        if network.section.black_box:
            return None
        if network.section.train:
            return network.section.train.save_dtype
    return "int8" if network.stage == "quantize" else "float32"


def _artifacts(context: Context, found: Mapping[str, Evaluated]) -> list[ModelRecord]:
    models = []
    int8 = context.recipe.quantize.method if context.recipe.quantize else ""
    student = networks.float_name(context.recipe)
    for stage in (name for name in context.inputs if name.startswith("export.")):
        name = stage.removeprefix("export.")
        file, value = context.output(ExportOutput, stage).file, found[name]
        precision = split_name(stage)[1]
        is_int8 = precision == "int8"
        copies = [manifest.copy(context.inputs[stage] / path, context.out / path) for path in file.paths]
        models.append(
            ModelRecord(
                name=name, role="artifact", format=file.format, precision=precision, **_facts(context, stage),
                source=int8 if is_int8 else student, path=copies[0][0], sha256=copies[0][1],
                beside=tuple(file_sha256(part) for part in runtimes.files(context.out / Path(copies[0][0]).name)[1:]),
                bytes=file.bytes, params=found[student].params, macs=found[student].macs,
                metrics=value.metrics, parity=value.parity, fidelity=value.fidelity,
                float_ops=file.float_ops, float_tensors=file.float_tensors if is_int8 else None,
                inputs=file.inputs, outputs=file.outputs,
                runtime_graph=value.runtime_graph, default_precision=value.default_precision,
            )
        )  # fmt: skip
    return models


def _without_file(context: Context, failed: Collection[str]) -> list[ModelRecord]:
    """The artifacts that could not be delivered: rows without figures; the stage's record has the reason."""
    recipe = context.recipe
    models = []
    for stage in failed:
        format, precision = split_name(stage)
        source = recipe.quantize.method if recipe.quantize and precision == "int8" else networks.float_name(recipe)
        name, facts = stage.removeprefix("export."), _facts(context, stage)
        models.append(ModelRecord(name, "artifact", format, precision, source, **facts))
    return models


def _facts(context: Context, stage: str) -> dict[str, Any]:
    """What else a record says of the form of an artifact."""
    recipe, (format, precision) = context.recipe, split_name(stage)
    if precision != "int8":
        return {"twin_of": format} if recipe.quantize and precision == "float32" else {}
    io = next((item.io for item in recipe.export if (item.format, recipe.precision_of(item)) == (format, precision)), None)
    return {"weight_bits": quantize.weight_bits(recipe), "io": io}


def _raw_samples(context: Context) -> None:
    """Copy the raw samples of all devices into the run folder, where ``edgekd profile --against`` reads them."""
    folder = context.out.parent / SAMPLES
    for stage in (name for name in context.inputs if name.startswith("profile.")):
        folder.mkdir(exist_ok=True)
        raw = f"{stage.removeprefix('profile.')}.jsonl"
        shutil.copyfile(context.inputs[stage] / raw, folder / raw)


def _profiles(
    context: Context, models: Sequence[ModelRecord]
) -> tuple[tuple[ProfileRecord, ...], tuple[Finding, ...], tuple[Int8Speed, ...], tuple[Missing, ...]]:
    measured: list[ProfileRecord] = []
    findings: list[Finding] = []
    speeds: list[Int8Speed] = []
    absent: list[Missing] = []
    for name, found in records.measured(context).items():
        measured += found.profiles
        findings += found.findings
        findings += verdicts.settings(measured, models, name)
        speeds += verdicts.speeds(measured, models, targets.named(context.recipe, name).cpu(), name)
        compared = [failure for failure in found.failures if failure.model.endswith(ALL_INT8)]
        absent += [missing("", failure.reason, failure.model, failure.device) for failure in compared]
        absent += found.notes
    return tuple(measured), tuple(findings), tuple(speeds), tuple(absent)


def _data(recipe: Recipe, images: DataSet) -> DataRecord:
    source, license = _public(recipe.data.source), images.license
    record = DataRecord(
        source, fingerprint.of(recipe.data), images.classes, len(images.train), len(images.val), len(images.test),
        image_size=0, channels=0, mean=(), std=(), license=license,
    )  # fmt: skip
    if {*images.rules} != {IMAGE}:
        shapes = {port.name: port.shape()[1:] for port in images.purpose.signature.inputs}
        return replace(record, inputs=shapes)
    rule, (height, width) = images.preprocessing, recipe.data.size
    return replace(
        record, image_size=height, image_width=width if width != height else None,
        channels=rule.channels, mean=rule.mean, std=rule.std,
    )  # fmt: skip


def _outputs(context: Context) -> dict[str, NDArray[Any]]:
    """Outputs on the test split: of each artifact, and of the networks in torch that they are compared with."""
    import numpy as np

    folder = context.inputs["evaluate"]
    names = [stage.removeprefix("export.") for stage in context.inputs if stage.startswith("export.")]
    classes = "classes" in task_of(context.recipe.task).gives
    found = {samples.output(name, classes=classes): np.load(folder / f"{name}.npy") for name in names}
    for name in names:
        others = beside.first(folder, name)
        found |= {samples.output(name, classes=classes, port=port): values for port, values in others.items()}
    with np.load(folder / evaluate.TORCH) as stored:
        found |= {f"{samples.TORCH}{name}": stored[name] for name in stored}
        for name in stored:
            others = beside.first(folder, f"{evaluate.REFERENCE}{name}")
            found |= {f"{samples.TORCH}{name}.{port}": values for port, values in others.items()}
    return found


def _format(part: Teacher | Student | Peer) -> str:
    return part.black_box[0] if isinstance(part, Teacher) and part.black_box else "torch"


def _source(part: Teacher | Student | Peer) -> str:
    """Where a network is from, or of whom an ensemble is made."""
    if part.model is not None:
        return _public(part.model)
    return f"ensemble of {', '.join(part.members())}" if isinstance(part, Teacher) else ""


def _public(source: str) -> str:
    """A source without the folders of this machine: ``/home/me/net.py:Net`` → ``net.py:Net``."""
    kind, colon, rest = source.partition(":")
    if "/" in kind:
        return f"{Path(kind).name}{colon}{rest}"
    return f"{kind}{colon}{Path(rest).name}" if "/" in rest else source


class PackageStage:
    """The bundle, and the records for run.json: of whatever was finished."""

    name = "package"
    version = 4
    reused = False
    optional = False

    def packages(self, name: str) -> tuple[str, ...]:
        """Nothing decides a result that is never used again."""
        return ()

    def nodes(self, recipe: Recipe) -> Iterator[Node]:
        """Yield one, which reads everything."""
        found = [*evaluate.made(recipe), *profile.ProfileStage().nodes(recipe), *evaluate.EvaluateStage().nodes(recipe)]
        yield Node("package", self, tuple(node.name for node in found), recipe)

    def work(self, recipe: Recipe) -> Work:
        """Copy files."""
        return Work.FILES

    def config(self, recipe: Recipe, name: str) -> dict[str, Any]:
        """Nothing: it is made anew in every run."""
        return {}

    def run(self, context: Context) -> Bundle:
        """Write the bundle into ``context.out``, the run folder's ``artifacts/``."""
        failed = [name for name in export.names(context.recipe) if name not in context.inputs]
        images = images_of(context)
        tested = context.output(EvaluateOutput, "evaluate")
        found = tested.models
        record = _data(context.recipe, images)
        curves = records.curves(context)
        models = [
            *_networks(context, found, curves, len(images.val)),
            *_artifacts(context, found),
            *_without_file(context, failed),
        ]
        profiles, findings, speeds, lacking = _profiles(context, models)
        lacking = (*figures.absent(context), *lacking)
        layers, repair = records.layers(context)
        if context.recipe.teacher and "teacher" not in found:
            lacking += (Missing(Finding("no_test_outputs")),)
        snippets = {}
        if any(model.role == "artifact" and model.path is not None for model in models):
            whole = samples.write(context.out, images, _outputs(context))
            bundled = Bundled(whole, images.labelled and bool(images.classes), samples.grey(images))
            for model in models:
                if model.role == "artifact" and model.path is not None:
                    text = snippet(model, record, bundled)
                    if text is None:
                        continue
                    snippets[model.name] = text
                    for suffix, lines in {".py": text, **app_snippets(model, record)}.items():
                        (context.out / f"load_{model.name}{suffix}").write_text(lines, encoding="utf-8")
        manifest.write(context.out, base.record(task_of(context.recipe.task)), record, models)
        _raw_samples(context)
        tuning = tune.read(context.inputs["tune"]) if "tune" in context.inputs else None
        graph, measured = records.graph(context), records.measured(context)
        told = (
            *synthesized(context), *rewrites(context), *teaching(context), *untrained(context, models),
            *(Finding("copied_tensors", figures={"what": line}) for line in (graph.copies if graph is not None else ())),
            *findings,
        )  # fmt: skip
        return Bundle(
            data=record,
            models=tuple(models),
            curves=curves,
            profiles=profiles,
            findings=told,
            snippets=snippets,
            speeds=speeds,
            not_measured=lacking,
            layers=layers,
            repair=repair,
            seeds=tested.seeds,
            tuning=tuning,
            baseline_tuning=tune.read(context.inputs[search.KD]) if search.KD in context.inputs else None,
            copied=tested.copied,
            float_weights=None if graph is None else graph.float_weights,
            pictures=_pictures(context),
            doubts=tuple(records.doubts(context)),
            devices=tuple(one.device for one in measured.values()),
            failures=tuple(  # of a file for comparison alone: it is only not measured
                failure for one in measured.values() for failure in one.failures if not failure.model.endswith(ALL_INT8)
            ),
        )
