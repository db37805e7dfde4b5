"""package: the bundle. Model files, manifest, samples with expected outputs, load snippets; and the records for run.json."""

from __future__ import annotations

import base64
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from edgekd.assembly import figures, networks, peers, runtime_figures, search, wiring
from edgekd.assembly.context import Context
from edgekd.assembly.samples import images as images_of
from edgekd.assembly.stage import Node, Work
from edgekd.bundle import manifest, samples
from edgekd.bundle.app_snippets import app_snippets
from edgekd.bundle.snippets import snippet
from edgekd.data import fingerprint
from edgekd.devices import targets
from edgekd.distill import advice
from edgekd.profiling import verdicts
from edgekd.profiling.participants import SAMPLES
from edgekd.recipe import Recipe
from edgekd.recipe.distill import Peer
from edgekd.recipe.export import split_name
from edgekd.recipe.student import Student
from edgekd.recipe.teacher import Teacher
from edgekd.results import mistakes
from edgekd.results.codec import from_json
from edgekd.results.fidelity import Fidelity
from edgekd.results.layers import LayerRecord, RepairCost, RepairRecord
from edgekd.results.mistakes import CopiedErrors
from edgekd.results.models import Estimate, Metrics, ModelRecord, Of, Parity, TensorSpec
from edgekd.results.profile import DeviceRecord, Failure, ProfileRecord
from edgekd.results.run import Curve, DataRecord, Picture, SeedRecord, best_of
from edgekd.results.runtime import DefaultPrecision, FloatWeights, RuntimeGraph
from edgekd.results.tuning import TuningRecord
from edgekd.results.tuning import told as sentences
from edgekd.stages import distill, evaluate, export, profile, quantize, tune
from edgekd.statistics import wilson
from edgekd.task.base import task_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

T = TypeVar("T")

MEASURES = ("runtimes", "differences")  # of LayerRecord, by artifact


@dataclass(frozen=True)
class Bundle:
    """Results of the package stage, for run.json."""

    data: DataRecord
    models: tuple[ModelRecord, ...]
    curves: tuple[Curve, ...]
    profiles: tuple[ProfileRecord, ...]
    findings: tuple[str, ...]
    snippets: dict[str, str]
    not_measured: tuple[str, ...]
    layers: tuple[LayerRecord, ...]
    repair: RepairRecord | None
    seeds: tuple[SeedRecord, ...]
    tuning: TuningRecord | None
    copied: tuple[CopiedErrors, ...]
    float_weights: FloatWeights | None
    pictures: tuple[Picture, ...] = ()
    doubts: tuple[str, ...] = ()
    devices: tuple[DeviceRecord, ...] = ()
    failures: tuple[Failure, ...] = ()


def synthesized(context: Context) -> tuple[str, ...]:
    """That no real image taught the student, and how well the made ones are recognized."""
    if "synthesize" not in context.inputs:
        return ()
    value, teacher = context.read("synthesize", "synthetic.json"), context.recipe.teacher is not None
    real = context.recipe.data.source != "synthetic"
    seen = "only the test images are real" if real else "no real image was used, not even in evaluation"
    return (
        f"All {value['images']:,} images of training, validation and calibration were synthesized from {value['norms']} "
        f"batch norms of the {'teacher' if teacher else 'student'}, which finds the wanted class in "
        f"{100 * value['recognized']:.1f} % of them; {seen}.",
    )


def _pictures(context: Context) -> tuple[Picture, ...]:
    if "synthesize" not in context.inputs:
        return ()
    sheet = (context.inputs["synthesize"] / "sheet.jpg").read_bytes()
    caption = "Synthesized from the statistics of batch norms; a column is a class. This is what the student was trained on."
    return (Picture("Synthesized images", caption, "image/jpeg", base64.b64encode(sheet).decode()),)


def rewrites(context: Context) -> tuple[str, ...]:
    """Yield the rewrites of the student before distillation, and the parts that are still slow in int8."""
    trained = networks.trained(context.recipe)
    if trained not in context.inputs:
        return ()
    value = context.read(trained, "rewrite.json")
    sentences = []
    if value["changes"]:
        sentences.append(f"The student was rewritten for int8 before distillation: {'; '.join(value['changes'])}.")
    if value.get("reused"):
        sentences.append(f"The student ends in the teacher's classifier: {value['reused']}.")
    sentences += [f"The rewrite left {reason}." for reason in value["left"]]
    sentences += [f"Advice: {line}." for line in distill.advice(context.recipe, value)]
    return tuple(sentences)


def teaching(context: Context) -> tuple[str, ...]:
    """Yield advice from the sizes and the accuracies of teachers and student."""
    lines: list[str] = []
    stages = [name for name, _ in context.recipe.teacher.lineage()] if context.recipe.teacher else []
    for stage in (*stages, "distill"):
        if stage in context.inputs and (context.inputs[stage] / "teacher.json").exists():
            value = context.read(stage, "teacher.json")
            key = "teacher" if stage == "distill" else f"{stage}.teacher"
            lines += advice.gap(value["student_params"], value["params"], key)
            lines += advice.softness(value["softness"])
            if stage == "distill" and "student_alone" in context.inputs:
                alone = from_json(Curve, context.read("student_alone", "curve.json"))
                lines += advice.weak(value["val_top1"], best_of(alone))
    return tuple(f"Advice: {line}." for line in lines)


def _networks(context: Context, found: dict[str, Any], curves: tuple[Curve, ...], val: int) -> list[ModelRecord]:
    """The networks in torch, and their weights as safetensors; ``val`` is how many images the validation split has."""
    recipe = context.recipe
    int8 = recipe.quantize.method if recipe.quantize else ""
    teachers = dict(recipe.teacher.lineage()) if recipe.teacher else {}
    rows = (
        *((name, "teacher", name, section) for name, section in teachers.items()),
        *((name, "baseline", name, recipe.student) for name in distill.BASELINES),
        *((name, "peer", "distill", peer) for name, peer in peers.sections(recipe).items()),
        (networks.float_name(recipe), "student", networks.trained(recipe), recipe.student),
        (int8, "student", "quantize", recipe.student),
    )
    validation = {curve.model: best_of(curve) for curve in curves}
    judges: dict[str, Of] = {curve.model: curve.of for curve in curves}
    metric = task_of(recipe.task).metrics[0]
    if int8:  # a repair comes after the curve
        top1 = context.read("quantize", "graph.json")["val_top1"]
        validation |= {} if top1 is None else {int8: top1}
    models = []
    for name, role, stage, part in rows:
        if name not in found or part is None:
            continue
        value = found[name]
        path, sha256, size = None, None, None
        given = stage == "student" or (name in teachers and teachers[name].budget is None)
        if name != int8 and not given:
            own = f"{name}.safetensors" if role == "peer" else "weights.safetensors"
            path, sha256, size = manifest.copy(context.inputs[stage] / own, context.out / f"{name}.safetensors")
        metrics = [from_json(Metrics, metrics) for metrics in value["metrics"]]
        if name in validation:
            of = judges.get(name, judges.get(networks.float_name(recipe), "labels"))
            estimate = Estimate(validation[name], *(wilson(validation[name], val) if metric.unit == "%" and val else ()))
            metrics.append(Metrics("val", val, {metric.name: estimate}, of))
        precision: str | None = "int8" if name == int8 else "float32"
        if name in teachers and teachers[name].black_box:
            precision = None
        elif name in teachers and (train := teachers[name].train):
            precision = train.save_dtype
        size_of = found[networks.float_name(recipe)] if name == int8 else value
        models.append(
            ModelRecord(
                name=name, role=role, format=_format(part), precision=precision,  # type: ignore[arg-type]  # rows are literals
                source=_source(part), path=path, sha256=sha256, bytes=size,
                params=size_of.get("params"), macs=size_of.get("macs"), metrics=tuple(metrics),
                fidelity=_fidelity(value),
                float_ops=tuple(context.read("quantize", "graph.json")["float_ops"]) if name == int8 else (),
                weight_bits=quantize.weight_bits(recipe) if name == int8 else None,
            )
        )  # fmt: skip
    return models


def _fidelity(value: dict[str, Any]) -> Fidelity | None:
    return from_json(Fidelity, value["fidelity"]) if "fidelity" in value else None


def _doubts(context: Context) -> Iterator[str]:
    """What is doubtful of the networks whose weights were given."""
    for stage, folder in context.inputs.items():
        if (folder / wiring.FILE).exists():
            yield from context.read(stage, wiring.FILE)


def _graph_findings(context: Context) -> tuple[str, ...]:
    """What the quantize stage found about the form of the network, as sentences."""
    return tuple(context.read("quantize", "graph.json")["findings"]) if "quantize" in context.inputs else ()


def _float_weights(context: Context) -> FloatWeights | None:
    if "quantize" not in context.inputs:
        return None
    return from_json(FloatWeights, context.read("quantize", "graph.json")["float_weights"])


def _layers(context: Context) -> tuple[tuple[LayerRecord, ...], RepairRecord | None]:
    """What int8 does to the layers, in torch and in each runtime, and what a repair cost."""
    if "quantize" not in context.inputs:
        return (), None
    graph = context.read("quantize", "graph.json")
    inside = context.read("evaluate", "inside.json")
    layers = tuple(
        from_json(LayerRecord, layer | {measure: _of_layer(inside, measure, layer["name"]) for measure in MEASURES})
        for layer in graph["layers"]
    )
    if "repair" not in graph:
        return layers, None
    costs = [cost for stage in context.inputs if stage.startswith("export.") for cost in _costs(context, stage)]
    return layers, replace(from_json(RepairRecord, graph["repair"]), costs=tuple(costs))


def _of_layer(inside: dict[str, dict[str, dict[str, Any]]], measure: str, layer: str) -> dict[str, Any]:
    return {name: found[measure][layer] for name, found in inside.items() if layer in found[measure]}


def _costs(context: Context, stage: str) -> Iterator[RepairCost]:
    """An artifact beside its like all in int8, on each device, or by its size alone."""
    exported, name = context.read(stage, "exported.json"), stage.removeprefix("export.")
    if "all_int8" not in exported:
        return
    size = RepairCost(name, exported["bytes"], exported["all_int8"]["bytes"])
    found = False
    for device in (stage for stage in context.inputs if stage.startswith("profile.")):
        value = context.read(device, "profile.json")
        pair = [*value["profiles"], *value["all_int8"]]
        now, then = (
            next((from_json(ProfileRecord, record) for record in pair if record["model"] == model), None)
            for model in (name, f"{name}{export.ALL_INT8}")
        )
        if now is not None and then is not None:
            found = True
            yield replace(
                size, device=now.device,
                p50=now.latency_ms.p50, p50_ci=now.latency_ms.ci,
                p50_int8=then.latency_ms.p50, p50_int8_ci=then.latency_ms.ci,
                trusted=now.trust.verdict == then.trust.verdict == "trusted",
            )  # fmt: skip
    if not found:
        yield size


def _artifacts(context: Context, found: dict[str, Any]) -> list[ModelRecord]:
    models = []
    int8 = context.recipe.quantize.method if context.recipe.quantize else ""
    student = networks.float_name(context.recipe)
    looked = context.read("evaluate", "runtimes.json")
    for stage in (name for name in context.inputs if name.startswith("export.")):
        name = stage.removeprefix("export.")
        exported = context.read(stage, "exported.json")
        precision = split_name(stage)[1]
        is_int8 = precision == "int8"
        copies = [manifest.copy(context.inputs[stage] / path, context.out / path) for path in exported["paths"]]
        models.append(
            ModelRecord(
                name=name, role="artifact", format=exported["format"], precision=precision, **_facts(context, stage),
                source=int8 if is_int8 else student, path=copies[0][0], sha256=copies[0][1],
                bin_sha256=next((copy[1] for copy in copies[1:] if copy[0].endswith(".bin")), None),
                bytes=exported["bytes"], params=found[student].get("params"), macs=found[student].get("macs"),
                metrics=tuple(from_json(Metrics, metrics) for metrics in found[name]["metrics"]),
                parity=from_json(Parity, found[name]["parity"]),
                fidelity=_fidelity(found[name]),
                float_ops=tuple(exported.get("float_ops", ())),
                float_tensors=tuple(exported.get("float_tensors", ())) if is_int8 else None,
                inputs=tuple(from_json(TensorSpec, value) for value in exported["inputs"]),
                outputs=tuple(from_json(TensorSpec, value) for value in exported["outputs"]),
                runtime_graph=_looked(RuntimeGraph, looked.get(name, {}).get(runtime_figures.GRAPH)),
                default_precision=_looked(DefaultPrecision, looked.get(name, {}).get(runtime_figures.DEFAULT)),
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


def _looked(kind: type[T], value: Any) -> T | None:
    """A record of what a runtime runs, where it could be looked at."""
    return None if value is None else from_json(kind, value)


def _devices(context: Context) -> Iterator[DeviceRecord]:
    """The devices as they were found when they were measured on."""
    for stage in (name for name in context.inputs if name.startswith("profile.")):
        yield from_json(DeviceRecord, context.read(stage, "profile.json")["device"])


def _failures(context: Context) -> Iterator[Failure]:
    """The files that failed on a device; one for comparison alone is only not measured."""
    for stage in (name for name in context.inputs if name.startswith("profile.")):
        for failure in _failed_in(context.read(stage, "profile.json")):
            if not failure.model.endswith(export.ALL_INT8):
                yield failure


def _failed_in(value: Mapping[str, Any]) -> list[Failure]:
    return [from_json(Failure, failure) for failure in value["failures"]]


def _raw_samples(context: Context) -> None:
    """Copy the raw samples of all devices into the run folder, where ``edgekd profile --against`` reads them."""
    folder = context.out.parent / SAMPLES
    for stage in (name for name in context.inputs if name.startswith("profile.")):
        folder.mkdir(exist_ok=True)
        raw = f"{stage.removeprefix('profile.')}.jsonl"
        shutil.copyfile(context.inputs[stage] / raw, folder / raw)


def _profiles(
    context: Context, models: Sequence[ModelRecord]
) -> tuple[tuple[ProfileRecord, ...], tuple[str, ...], tuple[str, ...]]:
    records: list[ProfileRecord] = []
    findings: list[str] = []
    missing: list[str] = []
    for stage in (name for name in context.inputs if name.startswith("profile.")):
        value = context.read(stage, "profile.json")
        records += [from_json(ProfileRecord, record) for record in value["profiles"]]
        name = stage.removeprefix("profile.")
        findings += value["findings"]
        findings += verdicts.findings(records, models, targets.named(context.recipe, name).cpu(), name)
        compared = [failure for failure in _failed_in(value) if failure.model.endswith(export.ALL_INT8)]
        missing += [f"{failure.model} on {failure.device}: {failure.reason}" for failure in compared]
        missing += value["notes"]
    return tuple(records), tuple(findings), tuple(missing)


def _logits(context: Context) -> dict[str, NDArray[np.float32]]:
    """Logits on the test split: of each artifact, and of the networks in torch that they are compared with."""
    import numpy as np

    folder = context.inputs["evaluate"]
    names = [stage.removeprefix("export.") for stage in context.inputs if stage.startswith("export.")]
    found = {f"logits_{name}": np.load(folder / f"{name}.npy") for name in names}
    with np.load(folder / evaluate.TORCH) as stored:
        return found | {f"{samples.TORCH}{name}": stored[name] for name in stored}


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
        found = context.read("evaluate", "metrics.json")
        height, width = context.recipe.data.size
        record = DataRecord(
            source=_public(context.recipe.data.source), fingerprint=fingerprint.of(context.recipe.data),
            classes=images.classes,
            train=len(images.train), val=len(images.val), test=len(images.test),
            image_size=height, image_width=width if width != height else None, channels=images.channels,
            mean=images.mean, std=images.std, license=images.license,
        )  # fmt: skip
        lineage = context.recipe.teacher.lineage() if context.recipe.teacher else ()
        curves = tuple(
            # A training may be another run's, or another part of this one, too: it is called by the first that needed it.
            curve if stage == "quantize" else replace(curve, model="distilled" if stage == "distill" else stage)
            for stage in (*(name for name, _ in lineage), *distill.BASELINES, "distill", "quantize")
            if stage in context.inputs and (context.inputs[stage] / "curve.json").exists()
            for curve in (from_json(Curve, context.read(stage, "curve.json")),)
        )
        curves += tuple(from_json(Curve, context.read("distill", f"{name}.json")) for name in peers.sections(context.recipe))
        seeds = context.read("evaluate", "seeds.json") if context.recipe.seeds > 1 else []
        models = [
            *_networks(context, found, curves, len(images.val)),
            *_artifacts(context, found),
            *_without_file(context, failed),
        ]
        profiles, findings, missing = _profiles(context, models)
        missing = (*figures.missing(context), *missing)
        layers, repair = _layers(context)
        if context.recipe.teacher and "teacher" not in found:
            missing += ("the teacher on the test split: its stored outputs have no `test`",)
        snippets = {}
        if any(model.role == "artifact" and model.path is not None for model in models):
            whole = samples.write(context.out, images, _logits(context))
            for model in models:
                if model.role == "artifact" and model.path is not None:
                    text = snippet(model, record, whole=whole, labelled=images.labelled)
                    snippets[model.name] = text
                    for suffix, lines in {".py": text, **app_snippets(model, record)}.items():
                        (context.out / f"load_{model.name}{suffix}").write_text(lines, encoding="utf-8")
        manifest.write(context.out, record, models)
        _raw_samples(context)
        tuning = tune.read(context.inputs["tune"]) if "tune" in context.inputs else None
        searched = [f"{line[:1].upper()}{line[1:]}." for line in (sentences(tuning) if tuning else ())]
        if search.KD in context.inputs:
            searched += [f"The baseline tuned_kd: {line}." for line in sentences(tune.read(context.inputs[search.KD]))]
        copied = tuple(from_json(CopiedErrors, value) for value in context.read("evaluate", "copied.json"))
        rows = tuple(from_json(SeedRecord, row) for row in seeds)
        told = (
            *synthesized(context), *rewrites(context), *searched, *teaching(context), *mistakes.told(copied),
            *_graph_findings(context), *findings,
        )  # fmt: skip
        return Bundle(
            record, tuple(models), curves, profiles, told, snippets, missing, layers, repair, rows, tuning, copied,
            _float_weights(context), _pictures(context), tuple(_doubts(context)), tuple(_devices(context)),
            tuple(_failures(context)),
        )  # fmt: skip
