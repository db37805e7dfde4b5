"""distill: the student trained with the recipe's losses. student_alone: the same budget with hard labels only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgekd.profile import device
from edgekd.profile.advice import advise
from edgekd.recipe import Distill, Loss, Recipe
from edgekd.registry import losses
from edgekd.stages import layers, training
from edgekd.stages.context import Context

VERSION = 3
PACKAGES = training.PACKAGES


def config(recipe: Recipe, name: str) -> dict[str, Any]:
    """Student, budget with its losses where there is one, seed."""
    return {
        **training.model_config(recipe, "student"),
        "distill": recipe.distill.model_dump(mode="json") if recipe.distill else None,
        "seed": recipe.seed,
    }


def alone(recipe: Recipe) -> Recipe:
    """The recipe of the baseline: no teacher, the task loss alone, everything else the same."""
    assert recipe.distill is not None
    task: Loss = next((loss for loss in recipe.distill.losses if loss.kind == "task"), losses.get("task")())
    distill = recipe.distill.model_copy(update={"losses": (task.model_copy(update={"weight": 1.0}),)})
    return recipe.model_copy(update={"teacher": None, "distill": distill})


def advice(recipe: Recipe, structure: Mapping[str, Any]) -> tuple[str, ...]:
    """What is slow in int8 on the recipe's devices: ``structure`` is what the student has, as in ``rewrite.json``."""
    if recipe.quantize is None:
        return ()
    targets = [device.load(name) for name in (recipe.profile.devices if recipe.profile else ("host",))]
    io = next((export.io for export in recipe.export if export.format == "tflite"), "float32")
    formats = [export.format for export in recipe.export]
    return advise(structure["activations"], structure["squeezes"], formats, targets, io)


def run(context: Context) -> None:
    """Write the student's best and last weights, the adapters, the curve and what was rewritten."""
    assert context.recipe.distill is not None
    training.launch(context, context.recipe.distill, _train)


def _train(fabric: Any, context: Context) -> None:
    import torch

    from edgekd import data, models
    from edgekd.distill.loop import fit
    from edgekd.distill.outputs import Facts
    from edgekd.distill.taps import Tapped
    from edgekd.distill.terms import Terms
    from edgekd.rewrite import squeeze
    from edgekd.rewrite.activations import census

    recipe = context.recipe
    budget = recipe.distill
    assert isinstance(budget, Distill)
    first = fabric.global_rank == 0
    images = data.load(recipe.data, context.progress if first else None)
    classes = len(images.classes)
    example = models.example(recipe.data)
    torch.manual_seed(recipe.seed)  # the student starts from the same weights with and without a teacher
    rewritten = training.rewritten(recipe, classes, say=context.progress.say if first else None)
    student = rewritten.model
    structure = {"activations": census(student, example), "squeezes": len(squeeze.find(student, example))}
    if first and context.name == "distill":
        for line in advice(recipe, structure):
            context.progress.say(f"  advice: {line}")
    teacher = training.teacher(recipe, classes, context.inputs["teacher"]) if recipe.teacher else None
    terms = Terms(budget.losses, student, teacher, example, Facts(classes, len(images.train)))
    if first:
        for line in layers.told(terms):
            context.progress.say(f"  {line}")
    fitted = fit(
        fabric, Tapped(student, terms.student_paths), terms,
        Tapped(teacher, terms.teacher_paths) if teacher is not None and terms.needs_teacher else None,
        budget, images, recipe.data,
        name="distilled" if recipe.teacher else "student_alone", seed=recipe.seed, progress=context.progress,
        # the average's weights where there is one; a traced network lacks what its logits do not need
        snapshot=lambda network: {**student.state_dict(), **network.network.state_dict()},  # type: ignore[union-attr]
    )  # fmt: skip
    if first:
        training.save_fitted(context, fitted)
        changes = [str(change) for change in rewritten.changes]
        context.write("rewrite.json", {"changes": changes, "left": rewritten.left, **structure})
