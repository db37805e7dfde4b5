"""quantize: int8 quantization-aware training from the distilled student, with the distillation losses kept on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from edgekd.profile import device
from edgekd.recipe import Qat, Recipe, Train
from edgekd.stages import distill, training
from edgekd.stages.context import Context

if TYPE_CHECKING:
    from torch import nn

    from edgekd.quantize.qat import Prepared

VERSION = 1
PACKAGES = (*training.PACKAGES, "torchao")


def config(recipe: Recipe, name: str) -> dict[str, Any]:
    """What decides the student, and the quantization settings with the bits resolved."""
    assert recipe.quantize is not None
    settings = recipe.quantize.model_dump(mode="json")
    return {**distill.config(recipe, name), "quantize": settings | {"weight_bits": weight_bits(recipe)}}


def weight_bits(recipe: Recipe) -> Literal[7, 8]:
    """The recipe's weight bits; ``auto`` looks at the devices it profiles on, or at this machine."""
    assert recipe.quantize is not None
    bits = recipe.quantize.weight_bits
    if bits != "auto":
        return bits
    return device.weight_bits_for(device.load(name) for name in (recipe.profile.devices if recipe.profile else ("host",)))


def run(context: Context) -> None:
    """Write the state of the trained graph, the taps it was made with and the curve."""
    assert context.recipe.distill is not None
    training.launch(context, context.recipe.distill, _train)


def budget(recipe: Recipe) -> Train:
    """Distillation's budget with quantization's epochs and learning rate.

    No warm-up, for the student is trained; float32, for the steps of int8 are finer than those of bf16.
    """
    assert isinstance(recipe.quantize, Qat)
    assert recipe.distill is not None
    changes = {
        "epochs": recipe.quantize.epochs,
        "lr": recipe.quantize.lr,
        "warmup_epochs": 0.0,
        "ema": None,
        "precision": "32-true",
    }
    return recipe.distill.model_copy(update=changes)


def prepare(recipe: Recipe, classes: int, weights: Path, taps: tuple[str, ...] = ()) -> tuple[Prepared, nn.Module]:
    """The graph that trains in int8, and the float student it is made from."""
    from edgekd import models
    from edgekd.distill.taps import Tapped
    from edgekd.quantize import qat

    student = training.student(recipe, classes, weights).eval()
    tapped = Tapped(student, taps).eval()
    return qat.prepare(tapped, models.example(recipe.data), weight_bits=weight_bits(recipe)), student


def _train(fabric: Any, context: Context) -> None:
    from edgekd import data, models
    from edgekd.distill.loop import Freeze, fit
    from edgekd.distill.taps import Tapped
    from edgekd.distill.terms import Terms
    from edgekd.models import read_weights
    from edgekd.quantize import qat

    recipe = context.recipe
    assert isinstance(recipe.quantize, Qat)
    assert recipe.distill is not None
    images = data.load(recipe.data, context.progress if fabric.global_rank == 0 else None)
    classes = len(images.classes)
    weights = context.inputs["distill"] / "weights.safetensors"
    teacher = training.teacher(recipe, classes, context.inputs["teacher"]) if recipe.teacher else None
    terms = Terms(recipe.distill.losses, training.student(recipe, classes), teacher, models.example(recipe.data))
    terms.adapters.load_state_dict(read_weights(context.inputs["distill"] / "adapters.safetensors"))
    prepared, _ = prepare(recipe, classes, weights, terms.student_paths)
    if fabric.global_rank == 0:
        for op in prepared.float_ops:
            context.progress.say(f"  stays float: {op}")
    fitted = fit(
        fabric, prepared.module, terms,
        Tapped(teacher, terms.teacher_paths) if teacher is not None and terms.needs_teacher else None,
        budget(recipe), images, recipe.data,
        name="qat", seed=recipe.seed + 1, progress=context.progress, snapshot=qat.state,
        freeze=Freeze(1 - recipe.quantize.freeze_last, qat.freeze_observers),
    )  # fmt: skip
    if fabric.global_rank == 0:
        training.save_fitted(context, fitted)
        context.write("graph.json", {"taps": terms.student_paths, "float_ops": prepared.float_ops})
