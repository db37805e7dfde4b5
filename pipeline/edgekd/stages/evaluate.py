"""evaluate: the test split, touched once. Every network in torch and every file in its own runtime, on the same arrays."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from edgekd.assembly import beside, figures, graphs, launch, networks, peers, runtime_figures, samples
from edgekd.assembly.context import Context
from edgekd.assembly.outputs import DistillOutput, Evaluated, EvaluateOutput, ExportOutput, InsideFile
from edgekd.assembly.stage import Node, Stage, Work, in_order
from edgekd.errors import ExportError, FilesError
from edgekd.progress import Task
from edgekd.recipe import Recipe
from edgekd.recipe.data import Data
from edgekd.recipe.export import Precision, split_name
from edgekd.results.fidelity import WorstAgreement, WorstValue
from edgekd.results.findings import Finding, Missing
from edgekd.results.mistakes import CopiedErrors
from edgekd.results.models import FilePort, Metrics, Parity
from edgekd.results.run import SeedRecord
from edgekd.runtimes import base
from edgekd.stages import distill, export, quantize
from edgekd.stages.student import StudentStage
from edgekd.stages.synthesize import SynthesizeStage
from edgekd.stages.teacher import TeacherStage
from edgekd.stages.tune import TuneStage
from edgekd.task import primary
from edgekd.task.named import batches, call

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import fx, nn

    from edgekd.data.dataset import DataSet
    from edgekd.exporting.exporter import Exported
    from edgekd.metrics.quality import MetricRows
    from edgekd.task.base import Purpose

    Array = NDArray[np.float32]
    Taken = Mapping[str, NDArray[Any]]
    """Samples as a network takes them, by input of its files."""

TORCH = "torch.npz"  # what torch gives for the test split, by the name of an artifact's reference
REFERENCE = "torch_"  # begins the name of a reference, whose outputs beside the primary one are kept
BEST, LAST = "weights.safetensors", "last.safetensors"  # of a training stage, by validation and by epoch
FORCED = 4  # images that each layer of a file is compared with torch for, from the same input


def _rows(purpose: Purpose, output: Array, targets: NDArray[Any], most: int | None = None) -> MetricRows:
    """Return the rows of the task's metrics, of the first ``most``, for the primary output of a network."""
    from edgekd.metrics import quality

    primary = purpose.signature.primary
    return quality.rows_of(purpose.task.metrics[:most], {primary: output}, targets, primary)


def measure(context: Context, model: str, output: Array, targets: NDArray[Any], purpose: Purpose) -> Metrics:
    """Return all metrics of the task on the test split, against its own targets; what is not finite is noted as missing."""
    from edgekd.metrics import quality

    rows = _rows(purpose, output, targets)
    for name, value in quality.not_finite(rows).items():
        reason = Finding("not_finite", figures={"value": str(value), "split": "test"})
        figures.note(context, Missing(reason, rows[name][0].label, model))
    return quality.measured(rows, len(output))


def copied(logits: Mapping[str, Array], labels: NDArray[np.int64], networks: Sequence[str]) -> list[CopiedErrors]:
    """The teacher's mistakes that each student makes, too; nothing without a teacher or without mistakes.

    Args:
        logits: N×classes, by model name.
        labels: N.
        networks: Names of the networks in torch.
    """
    import numpy as np

    if "teacher" not in logits:
        return []
    classes = logits["teacher"].shape[1]
    theirs = logits["teacher"].argmax(axis=1)
    wrong = theirs != labels
    same = {name: (logits[name].argmax(axis=1) == theirs) & wrong for name in networks if not name.startswith("teacher")}
    records = []
    for name in same if wrong.any() else ():
        confusion = np.zeros((classes, classes))
        np.add.at(confusion, (labels, logits[name].argmax(axis=1)), 1)
        rates = confusion / np.maximum(1, confusion.sum(axis=1, keepdims=True))
        against = None if name == "student_alone" else same.get("student_alone")
        records.append(
            CopiedErrors(
                model=name, images=len(labels), mistakes=int(wrong.sum()), copied=int(same[name].sum()),
                chance=round(float(rates[labels[wrong], theirs[wrong]].sum()), 2),
                more=None if against is None else int((same[name] & ~against).sum()),
                fewer=None if against is None else int((against & ~same[name]).sum()),
            )
        )  # fmt: skip
    return records


def agreement(output: Array, teacher: Array, purpose: Purpose) -> Metrics:
    """Return the task's first metric on the test split, against what the teacher says (logits, N×classes, of both)."""
    from edgekd.metrics import quality

    return quality.measured(_rows(purpose, output, teacher.argmax(axis=1), most=1), len(output), of="teacher")


def compare(
    name: str, reference: Mapping[str, Array], output: Mapping[str, Array], ports: Sequence[FilePort], purpose: Purpose
) -> Parity:
    """Compare every output of a file with its torch reference.

    Args:
        name: Of the reference.
        reference: What torch gives, by output.
        output: What the file gives.
        ports: Its outputs, the primary one first; without a step, as in a float file, there are no LSB.
        purpose: What the network is for.
    """
    from edgekd.exporting import parity

    found, classes = {}, "classes" in purpose.task.gives
    for port in ports:
        wanted, given = reference[port.name], output[port.name]
        found[port.name] = parity.compare(wanted, given, port.step, classes=classes and port is ports[0])
    return Parity(name, len(output[ports[0].name]), found)


def _networks(context: Context, images: DataSet) -> dict[str, nn.Module]:
    """Every torch network of the run, and every teacher and peer, by model name."""
    recipe, purpose = context.recipe, images.purpose
    nets: dict[str, nn.Module] = {}
    views = recipe.teacher.views(recipe.data) if recipe.teacher else {}
    for name, section in recipe.teacher.lineage() if recipe.teacher else ():
        nets[name] = networks.teacher(section, name, context, images, views[name])
    for own in distill.trainings(recipe):
        if own.seed == recipe.seed:
            nets[own.model] = networks.student(own.recipe, purpose, context.inputs[own.stage] / BEST).eval()
    if peers.sections(recipe):
        found = peers.trained(recipe, purpose, context.inputs["distill"])
        nets |= {f"peer.{name}": network for name, network in found.members.items()}
    if not recipe.distill and recipe.student:
        nets["student"] = networks.student(recipe, purpose, context.inputs["student"] / BEST).eval()
    if recipe.quantize:
        nets[recipe.quantize.method] = export.source(context, purpose, "int8").int8(fold_weights=True)
    return nets


def _seeds(context: Context, images: DataSet, x: Taken, known: dict[str, Array], judge: Array | None) -> list[SeedRecord]:
    """Each student of each seed on the test split, with the weights that were kept and with those of the last epoch.

    Without labels it is agreement with ``judge``; without either, nothing is known of the test split.
    """
    from edgekd.metrics.base import shown

    rows: list[SeedRecord] = []
    metric = images.purpose.task.metrics[0]
    for own in distill.trainings(context.recipe):
        folder, curve = context.inputs[own.stage], context.output(DistillOutput, own.stage).curve
        scores = curve.val[metric.name]
        row = SeedRecord(own.model, own.seed, scores[curve.best_epoch], scores[-1])
        if judge is None and not images.test.labelled:
            rows.append(row)
            continue
        tested = []
        for file in (BEST, LAST):
            logits = known.get(own.model) if own.seed == context.recipe.seed and file == BEST else None
            if logits is None:
                network = networks.student(own.recipe, images.purpose, folder / file).eval()
                logits = _torch_logits(network, x)
            targets = images.test.labels if judge is None else judge.argmax(axis=1)
            _, of_it = _rows(images.purpose, logits, targets, most=1)[metric.name]
            tested.append(metric.reduce(of_it))
        kept, last = (value if math.isfinite(value) else None for value in tested)
        rows.append(replace(row, test_kept=kept, test_last=last))
        if kept is not None:
            context.progress.say(f"  {own.model}, seed {own.seed}: {shown(metric, kept)} on test")
    return rows


def _inside(context: Context, images: DataSet, stages: Sequence[str], graph: nn.Module) -> dict[str, InsideFile]:
    """What the runtimes compute in each layer, by artifact."""
    from edgekd.exporting import inside
    from edgekd.exporting.capture import captured
    from edgekd.quantization.sensitivity import exact_outputs
    from edgekd.runtimes.inside import Tensor

    prepared, _ = export.quantized(context, images.purpose)
    x = quantize.layer_images(context.recipe, images)
    exact = [
        {name: Tensor(scale, values.numpy()) for name, (scale, values) in found.items()}
        for found in (exact_outputs(prepared.module, sample) for sample in batches(x, 1))
    ]
    files: dict[str, InsideFile] = {}
    for stage in stages:
        file = context.output(ExportOutput, stage).file.at(context.inputs[stage])

        def look(file: Exported = file) -> InsideFile:
            with captured(context.log, f"looking into {file.paths[0].name}"):
                found = inside.look(file, {name: value.numpy() for name, value in x.items()})
            few = {name: value[:FORCED].numpy() for name, value in x.items()}
            differences = inside.differences(graph, few, found[:FORCED])
            return InsideFile(inside.sqnr(exact, found), differences)

        name = stage.removeprefix("export.")
        if (rows := figures.measured(context, f"layers in {name}", look)) is not None:
            files[name] = rows
    return files


def _arrays(images: DataSet) -> Taken:
    """The test samples as a network takes them."""
    return graphs.named(images.purpose, images.taken(images.test.stacked(range(len(images.test)))))


def _seen(recipe: Recipe) -> dict[str, tuple[Data, ...]]:
    """What each teacher sees, where it is something else than the student; of an ensemble, each in turn."""
    views = recipe.teacher.views(recipe.data) if recipe.teacher else {}
    lineage = recipe.teacher.lineage() if recipe.teacher else ()
    found = {name: tuple(views[stage] for stage in section.stages(name)) for name, section in lineage}
    return {name: seen for name, seen in found.items() if any(view != recipe.data for view in seen)}


def _inputs(seen: Mapping[str, tuple[Data, ...]], task: str) -> dict[str, tuple[Taken, ...]]:
    """The test images as these teachers take them."""
    from edgekd.data import dataset

    views = dict.fromkeys(view for several in seen.values() for view in several)
    arrays = {view: _arrays(dataset.load(view, task=task)) for view in views}
    return {name: tuple(arrays[view] for view in several) for name, several in seen.items()}


def _torch_logits(network: nn.Module, *views: Taken, size: int = 250) -> Array:
    """The primary output for samples, or for what each member of an ensemble sees of them, N×…."""
    import numpy as np
    import torch

    parts = []
    with torch.inference_mode():
        split = (batches({name: torch.from_numpy(value) for name, value in view.items()}, size) for view in views)
        for seen in zip(*split, strict=True):
            several = tuple(next(iter(view.values())) for view in seen)  # of an ensemble, images
            parts.append(primary.first(call(network, seen[0]) if len(seen) == 1 else network(several)).numpy())
    return np.concatenate(parts)


MADE: tuple[Stage, ...] = (
    TeacherStage(), SynthesizeStage(), distill.DistillStage(), TuneStage(), StudentStage(), quantize.QuantizeStage(),
    export.ExportStage(),
)  # fmt: skip
"""The stages that make networks and files, in the order of a run; a search comes right before what it is for."""


def made(recipe: Recipe) -> list[Node]:
    """All that a recipe makes before the test split is touched, in the order of a run."""
    return in_order(node for stage in MADE for node in stage.nodes(recipe))


class _Outputs:
    """Outputs of networks and files on the test split.

    Attributes:
        int8: The name of the int8 graph; empty without one.
        x: The test split, by input of the files.
        found: The figures that are known without the targets, by the name of a network or a file.
        primary: The primary outputs, of references too.
        references: Of each file, the name of the outputs that it is compared with.
        compressed: Names of the outputs that are compared with the float student's.
        worst: Of each compressed file, what is harmed most among its outputs without classes: floats, and other types.
    """

    def __init__(self, context: Context, images: DataSet, x: Taken, task: Task) -> None:
        recipe = context.recipe
        self.context, self.images, self.x, self._task = context, images, x, task
        self.int8: str = recipe.quantize.method if recipe.quantize else ""
        self.found: dict[str, Evaluated] = {}
        self.primary: dict[str, Array] = {}
        self.references: dict[str, str] = {}
        self.compressed: list[str] = [self.int8] if self.int8 else []
        self.worst: dict[str, tuple[WorstValue | None, WorstAgreement | None]] = {}
        self._float: Mapping[str, Array] = {}
        self._failures: dict[str, ExportError] = {}
        self._seen = _seen(recipe)
        self._inputs = _inputs(self._seen, recipe.task)

    def network(self, name: str, network: nn.Module) -> None:
        """Run a network in torch."""
        from edgekd.data.dataset import viewed
        from edgekd.distill.teachers import Stored, is_open
        from edgekd.models import build

        if isinstance(network, Stored):
            if network.test_logits is None:  # not known
                return
            self.primary[name] = network.test_logits.numpy()
        else:
            self.primary[name] = _torch_logits(network, *self._inputs.get(name, (self.x,)))
        self.found[name] = Evaluated()
        if name != self.int8 and is_open(network):  # the float student's, in integers
            views = self._seen.get(name, (self.context.recipe.data,))
            taken = [viewed(self.images.purpose, view).signature for view in views]
            macs = figures.measured(self.context, f"MACs of {name}", partial(build.macs, network, *taken))
            self.found[name] = Evaluated(params=build.parameters(network), macs=macs)
        self._task.advance(len(self.images.test), name)

    def file(self, stage: str) -> None:
        """Run the file of an export stage in its own runtime, and compare it with its reference."""
        import numpy as np

        from edgekd.exporting import outputs

        context, purpose, name = self.context, self.images.purpose, stage.removeprefix("export.")
        file = context.output(ExportOutput, stage).file.at(context.inputs[stage])
        precision = split_name(stage)[1]
        if precision != "float32":
            self.compressed.append(name)
        reference = self._reference(precision)
        try:
            answer = file.outputs[0].name
            wanted, advance = {answer: self.primary[reference]}, partial(self._task.advance, 1, name)
            if len(file.outputs) > 1:
                wanted = export.source(context, purpose, precision).computed(precision, self.x)
            given = outputs.run(file, self.x, wanted, context.log, advance)
        except ExportError as error:  # the others are run, so that all that fail are named at once
            self._failures[stage] = error
            return
        self.primary[name] = given[answer]
        if precision != "float32":
            self.worst[name] = self._worst(given, answer)
        self.references[name] = reference
        self.found[name] = Evaluated(parity=compare(reference, wanted, given, file.outputs, purpose))
        np.save(context.out / f"{name}.npy", self.primary[name])
        beside.write(context.out, name, given, answer)
        beside.write(context.out, f"{REFERENCE}{reference}", wanted, answer)

    def _reference(self, precision: Precision) -> str:
        """Return the name of the outputs that a file of ``precision`` is compared with; they are known afterwards."""
        from edgekd.quantization.rounded import BITS

        reference = self.int8 if precision == "int8" else networks.float_name(self.context.recipe)
        if precision in BITS:  # its weights are rounded, and so are the reference's
            reference = f"{reference}, {BITS[precision]}-bit weights"
            if reference not in self.primary:
                network = export.source(self.context, self.images.purpose, precision).model
                self.primary[reference] = _torch_logits(network, self.x)
        return reference

    def _worst(self, given: Mapping[str, Array], answer: str) -> tuple[WorstValue | None, WorstAgreement | None]:
        """Compare the outputs of a file with those of the float student, without the primary one where that has classes."""
        from edgekd.metrics import fidelity

        context, purpose = self.context, self.images.purpose
        names = [name for name in given if name != answer or "classes" not in purpose.task.gives]
        if not names:
            return None, None
        if len(given) == 1:
            exact: Mapping[str, Array] = {answer: self.primary[networks.float_name(context.recipe)]}
        else:
            exact = self._float = self._float or export.source(context, purpose, "float32").computed("float32", self.x)
        wanted = {name: exact[name] for name in names}
        return fidelity.worst(wanted, given), fidelity.worst_agreement(wanted, given)

    def write(self) -> None:
        """Write the outputs of the references.

        Raises:
            FilesError: Files that do not run in their own runtime.
        """
        import numpy as np

        torch_outputs = {name: self.primary[name] for name in dict.fromkeys(self.references.values())}
        np.savez(self.context.out / TORCH, allow_pickle=False, **torch_outputs)
        if self._failures:
            raise FilesError("; ".join(error.message for error in self._failures.values()), failures=self._failures)


def _figures(run: _Outputs, judge: Array | None) -> dict[str, Evaluated]:
    """Return the figures of all outputs, with the metrics and the distance from the float student.

    Args:
        run: The outputs.
        judge: The teacher's, where it labels the samples.
    """
    from edgekd.metrics import fidelity, quality

    images, found = run.images, dict(run.found)
    labels = images.test.labels if images.test.labelled else None if judge is None else judge.argmax(axis=1)
    student = networks.float_name(run.context.recipe)
    classes = "classes" in images.purpose.task.gives
    for name in run.compressed:
        drops = None
        if labels is not None:
            drops = quality.drops(*(_rows(images.purpose, run.primary[model], labels) for model in (name, student)))
        close = fidelity.compare(student, run.primary[student], run.primary[name], drops, classes=classes)
        floats, others = run.worst.get(name, (None, None))
        found[name] = replace(found[name], fidelity=replace(close, worst=floats, worst_agreement=others))
    for name, value in found.items():
        targets, context = images.test.labels, run.context
        metrics = [measure(context, name, run.primary[name], targets, images.purpose)] if images.test.labelled else []
        if judge is not None and name != "teacher":
            metrics.append(agreement(run.primary[name], judge, images.purpose))
        found[name] = replace(value, metrics=tuple(metrics))
    return found


class EvaluateStage:
    """All figures of the test split."""

    name = "evaluate"
    version = 15
    reused = True
    optional = False

    def packages(self, name: str) -> tuple[str, ...]:
        """Name what decides its result."""
        return ("torch", "torchvision", *base.packages(), "numpy")

    def nodes(self, recipe: Recipe) -> Iterator[Node]:
        """Yield one, which reads all that was made."""
        yield Node("evaluate", self, tuple(node.name for node in made(recipe)), recipe)

    def work(self, recipe: Recipe) -> Work:
        """Compute with torch."""
        return Work.TORCH

    def config(self, recipe: Recipe, name: str) -> dict[str, Any]:
        """Return the compared baselines and seeds, and how an ensemble teaches; the inputs decide the rest."""
        return {
            "baselines": recipe.baselines,
            **({"seeds": recipe.seeds} if recipe.seeds > 1 else {}),
            **networks.teaching(recipe.teacher),
        }

    def run(self, context: Context) -> EvaluateOutput:
        """Run every network and every file on the test split; write the logits of the artifacts and of their references.

        Raises:
            FilesError: Files that do not run in their own runtime.
        """
        images = samples.images(context)
        launch.seed(context.recipe.seed, context.threads)
        nets = _networks(context, images)
        files = [name for name in context.inputs if name.startswith("export.")]
        with context.progress.task("test split", len(images.test) * (len(nets) + len(files))) as task:
            run = _Outputs(context, images, _arrays(images), task)
            for name, network in nets.items():
                run.network(name, network)
            for stage in files:
                run.file(stage)
        run.write()
        recipe, labelled = context.recipe, images.test.labelled
        judge = None if images.train.labelled else run.primary.get("teacher")
        found, classes = _figures(run, judge), "classes" in images.purpose.task.gives
        shared = copied(run.primary, images.test.labels, list(nets)) if images.labelled and classes else []
        seeds = _seeds(context, images, run.x, run.primary, None if labelled else judge) if recipe.seeds > 1 else ()
        inside: Mapping[str, InsideFile] = {}
        graph = None
        if run.int8:
            graph = cast("fx.GraphModule", nets[run.int8])
            looked_into = [name for name in files if split_name(name)[1] == "int8"]
            look = partial(_inside, context, images, looked_into, graph)
            inside = figures.measured(context, "layers in the files", look) or {}
        ran = runtime_figures.figures(context, run.x, run.primary, run.references, graph, classes=classes)
        for name, row in ran.items():
            found[name] = replace(found[name], runtime_graph=row.runtime_graph, default_precision=row.default_precision)
        return EvaluateOutput(found, tuple(shared), tuple(seeds), inside)
