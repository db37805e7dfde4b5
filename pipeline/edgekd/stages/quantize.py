"""quantize: the distilled student in int8. qat: by training, with the distillation losses kept on; ptq: by calibration."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from edgekd.assembly import float_layers, graphs, launch, networks, peers, samples, teacher_outputs, views
from edgekd.assembly.context import Context, recent_graphs
from edgekd.assembly.outputs import QuantizeOutput
from edgekd.assembly.recent import Recent
from edgekd.assembly.stage import Node, Work
from edgekd.devices import targets
from edgekd.metrics.base import shown
from edgekd.recipe import Recipe
from edgekd.recipe.base import need
from edgekd.recipe.loss import Loss
from edgekd.recipe.quantize import Ptq, Qat
from edgekd.recipe.train import Train
from edgekd.results.run import best_of
from edgekd.stages import distill
from edgekd.task.named import count

if TYPE_CHECKING:
    from torch import Tensor, fx, nn

    from edgekd.data.dataset import DataSet
    from edgekd.quantization.ptq import Calibrated
    from edgekd.quantization.qat import Prepared
    from edgekd.task.base import Purpose

CALIBRATION = 512  # images that learned scales start from
LAYER_PIXELS = 32 * 64 * 64  # of all images that single layers are looked at with: each costs half an inference a layer


def weight_bits(recipe: Recipe) -> Literal[7, 8]:
    """The recipe's weight bits; ``auto`` looks at its targets."""
    bits = need(recipe.quantize, "quantize").weight_bits
    if bits != "auto":
        return bits
    return targets.weight_bits_for(targets.of(recipe))


def _qat(recipe: Recipe) -> Qat:
    return need(recipe.quantize if isinstance(recipe.quantize, Qat) else None, "quantize: {method: qat}")


def budget(recipe: Recipe) -> Train:
    """Distillation's budget (the default one where the student is given) with quantization's epochs and learning rate.

    No warm-up, for the student is trained; a cosine, whatever distillation's schedule; float32, for the steps of int8 are
    finer than those of bf16.
    """
    settings = _qat(recipe)
    base = recipe.distill or Train(epochs=settings.epochs)
    changes = {
        "epochs": settings.epochs,
        "lr": settings.lr,
        "warmup_epochs": 0.0,
        "schedule": "cosine",  # milestones are of the float training
        "ema": None,
        "precision": "32-true",
    }
    return base.model_copy(update=changes)


def taught_by(recipe: Recipe) -> str:
    """The stage whose network is the teacher of the int8 one."""
    return networks.trained(recipe) if isinstance(recipe.quantize, Qat) and recipe.quantize.self_distill else "teacher"


def prepare(
    recipe: Recipe, purpose: Purpose, weights: Path, taps: tuple[str, ...] = (), keep_float: Collection[str] = (),
    made: Recent[fx.GraphModule] | None = None,
) -> tuple[Prepared, nn.Module]:  # fmt: skip
    """The graph that becomes int8, without the operators of ``keep_float``, and the float student it is made from.

    Args:
        recipe: It decides the network.
        purpose: What the student is for.
        weights: Of a finished stage.
        taps: Modules whose outputs are returned behind the logits.
        keep_float: Operators that stay in float.
        made: Graphs of this run.
    """
    from edgekd.quantization import qat

    student = networks.student(recipe, purpose, weights, whole=True).eval()
    graph = graphs.normalised(recent_graphs() if made is None else made, recipe, purpose, student, weights, taps)
    return qat.prepare_graph(graph, weight_bits=weight_bits(recipe), keep_float=keep_float), student


def _train(fabric: Any, context: Context) -> QuantizeOutput | None:
    from edgekd.distill.terms import Terms
    from edgekd.models import build
    from edgekd.models.checkpoints import read
    from edgekd.quantization import calibrate, histogram, qat, repair, scales
    from edgekd.registry import losses
    from edgekd.train.loop import Freeze, Teaching, Trainable, fit

    recipe, settings = context.recipe, _qat(context.recipe)
    images = samples.images(context, context.progress if fabric.global_rank == 0 else None)
    purpose = images.purpose
    weights = context.inputs[networks.trained(recipe)] / "weights.safetensors"
    taught = recipe.teacher is not None and not settings.self_distill
    teacher = networks.teacher(recipe.teacher, "teacher", context, images) if recipe.teacher and taught else None
    if settings.self_distill:
        teacher = networks.student(recipe, purpose, weights).eval()
    elif peers.sections(recipe):  # they are trained, and teach as they are
        teacher = peers.trained(recipe, purpose, context.inputs["distill"])
    own = recipe.distill.losses if recipe.distill else (losses.get("task")(),)
    chosen = (losses.get("kd")(),) if settings.self_distill else own
    facts = samples.facts(images)
    if fabric.global_rank == 0:
        for loss in chosen:
            if loss.weight and loss.rests():
                context.progress.say(f"  {loss.kind}: switched off in int8 training: {loss.rests()}")
    terms = Terms(
        [_after_distillation(loss) for loss in chosen], networks.student(recipe, purpose), teacher,
        build.example(purpose.signature), facts,
        views.examples(recipe.teacher, recipe.data, purpose) if taught else None,
    )  # fmt: skip
    if recipe.distill and not settings.self_distill:
        saved = read(context.inputs["distill"] / "adapters.safetensors")
        terms.adapters.load_state_dict({name: saved[name] for name in terms.adapters.state_dict()})
    recording = teacher_outputs.recording(context, taught_by(recipe), fabric.global_rank)
    again = partial(prepare, recipe, purpose, weights, terms.student_paths, made=context.graphs)
    prepared, student = again(keep_float=settings.named_float())
    if settings.learn_scales:
        examples = calibration_images(images, CALIBRATION)
        calibrate.check(examples)
        with context.progress.task("ranges", 2 * count(examples)) as task:
            calibrate.calibrate(prepared.module, examples, histogram.mse, task, student)
        scales.learn(prepared.module)
    # other draws than distillation's, unless the recorded outputs of the teacher are read
    seed = recipe.seed if recording else recipe.seed + 1
    freeze = Freeze(1 - settings.freeze_last, scales.freeze if settings.learn_scales else qat.freeze_observers)
    trainable = Trainable("qat", prepared.module, terms, budget(recipe), seed, scales.state, freeze)
    seen_by_teacher = views.opened(recipe.teacher, recipe.data, images) if taught else ()
    teaching = Teaching.of(teacher, terms, seen_by_teacher, recording)
    fitted = fit(fabric, trainable, images, recipe.data, context.progress, teaching)
    if fabric.global_rank != 0:
        return None
    networks.save_fitted(context, fitted)
    val_score = best_of(fitted.curve)
    trained, student = again(keep_float=settings.named_float())  # without what training has put into it
    qat.load_state(trained.module, fitted.best)

    def requantize(names: Collection[str]) -> Prepared:
        made, _ = again(keep_float=names)
        repair.adopt(made.module, trained.module)
        return made

    seen = layer_images(recipe, images)
    done = float_layers.Quantized(trained, student, requantize, val_score, terms.student_paths)
    return QuantizeOutput(float_layers.conclude(context, images, seen, done), fitted.curve)


def _after_distillation(loss: Loss) -> Loss:
    """The loss as it goes on in int8: from the first step, or not at all."""
    return loss.model_copy(update={"start_epoch": 0.0, "warmup_epochs": 0.0, "weight": loss.weight if loss.lasts() else 0.0})


def calibration_images(images: DataSet, number: int) -> dict[str, Tensor]:
    """``number`` training samples as the network takes them, by input of its files: the same for every seed of a recipe."""
    import numpy as np
    import torch

    from edgekd.data import splits

    chosen = np.random.default_rng(splits.SPLIT_SEED).permutation(len(images.train))[:number]
    taken = images.taken(images.train.stacked(chosen))
    return {name: torch.from_numpy(value) for name, value in graphs.named(images.purpose, taken).items()}


def layer_images(recipe: Recipe, images: DataSet) -> dict[str, Tensor]:
    """The training samples that single layers are looked at with; few where they are large images."""
    return calibration_images(images, max(4, min(32, LAYER_PIXELS // math.prod(recipe.data.size))))


def _calibrate(context: Context, settings: Ptq) -> QuantizeOutput:
    import torch

    from edgekd.data.batches import Prepare
    from edgekd.quantization import ptq
    from edgekd.train.loop import score

    recipe, say = context.recipe, context.progress.say
    launch.seed(recipe.seed, context.threads)
    images = samples.images(context, context.progress)
    weights = context.inputs[networks.trained(recipe)] / "weights.safetensors"
    again = partial(prepare, recipe, images.purpose, weights, made=context.graphs)
    prepared, student = again(keep_float=settings.named_float())
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    module = prepared.module.to(device)
    found = calibration_images(images, settings.calibration_images)
    chosen = {name: value.to(device) for name, value in found.items()}
    done = ptq.quantize(module, chosen, settings, seed=recipe.seed, progress=context.progress, student=student)
    ready = Prepare(images).to(device)
    scores: list[float | None] = [None, None]
    if len(images.val) and images.val.labelled:
        nets = (student.to(device), module)
        scores = [score(network, images.val, ready, device, images.purpose) for network in nets]
    for line in _told(done, settings, images.noun):
        say(f"  {line}")
    if scores[0] is not None and scores[1] is not None:
        what, metric = "" if images.of == "labels" else " agreement with the teacher", images.purpose.task.metrics[0]
        say(f"  validation{what}: {shown(metric, scores[0])} in float, {shown(metric, scores[1])} in int8")

    def requantize(names: Collection[str]) -> Prepared:
        made, _ = again(keep_float=names)
        ptq.quantize(made.module.to(device), chosen, settings, seed=recipe.seed)
        made.module.cpu()
        return made

    module.cpu()
    seen = layer_images(recipe, images)
    quantized = float_layers.Quantized(prepared, student.cpu(), requantize, scores[1])
    return QuantizeOutput(float_layers.conclude(context, images, seen, quantized))


def _told(done: Calibrated, settings: Ptq, noun: str) -> Iterator[str]:
    fewer = " (all there are)" if done.images < settings.calibration_images else ""
    yield f"ranges by {settings.observer} from {done.images} training {noun}s{fewer}"
    if settings.equalize:
        yield f"{done.equalized_pairs} pairs of layers equalized"
    if 0 < done.reconstruction_images < done.images:
        yield f"rounding and biases from {done.reconstruction_images} of them, because memory is too small"
    errors = [(layer.nearest_error, layer.learned_error) for layer in done.layers]
    better = [now / before for before, now in errors if before and now is not None]
    if better:
        yield f"AdaRound: the error of a layer is {100 * sum(better) / len(better):.0f} % of that of rounding to nearest"
    corrected = sum(layer.shift is not None for layer in done.layers)
    if corrected:
        yield f"biases of {corrected} layers corrected"


class QuantizeStage:
    """The student in int8."""

    name = "quantize"
    version = 15
    reused = True
    optional = False

    def packages(self, name: str) -> tuple[str, ...]:
        """Name what decides its result."""
        return (*launch.PACKAGES, "torchao")

    def nodes(self, recipe: Recipe) -> Iterator[Node]:
        """Yield one where the recipe quantizes; it reads the student, and the teacher where that teaches in int8, too."""
        if recipe.student and recipe.quantize:
            taught = recipe.quantize.method == "qat" and not recipe.quantize.self_distill
            teachers = networks.teachers(recipe) if taught else ()
            yield Node("quantize", self, (networks.trained(recipe), *teachers, *samples.made(recipe)), recipe)

    def work(self, recipe: Recipe) -> Work:
        """Train or calibrate."""
        return Work.TRAINING if isinstance(recipe.quantize, Qat) else Work.TORCH

    def config(self, recipe: Recipe, name: str) -> dict[str, Any]:
        """Return the student's configuration, and the quantization settings with the bits resolved."""
        settings = need(recipe.quantize, "quantize").model_dump(mode="json")
        value = {**distill.config(recipe), "quantize": settings | {"weight_bits": weight_bits(recipe)}}
        if isinstance(recipe.quantize, Qat) and teacher_outputs.teacher_cache(recipe):
            value["draws"] = "as distilled"  # other augmentation than without a cache
        return value

    def run(self, context: Context) -> QuantizeOutput | None:
        """Write the state of the int8 graph and the taps it was made with; of training, the curve as well."""
        if isinstance(context.recipe.quantize, Ptq):
            return _calibrate(context, context.recipe.quantize)
        return launch.launch(context, budget(context.recipe), _train)  # not distillation's precision
