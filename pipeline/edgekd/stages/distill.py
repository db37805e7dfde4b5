"""distill: the student trained with the recipe's losses. student_alone: the same budget with hard labels only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgekd.profile import device
from edgekd.profile.advice import advise
from edgekd.recipe import Recipe
from edgekd.recipe_distill import Distill, Loss
from edgekd.registry import losses
from edgekd.stages import layers, training
from edgekd.stages.context import Context

VERSION = 3
PACKAGES = training.PACKAGES


def config(recipe: Recipe, name: str) -> dict[str, Any]:
    """Student, budget with its losses where there is one, seed; the teacher cache where it changes the student."""
    settings = training.teacher_cache(recipe)
    same = settings is None or settings.exact
    left_out = {"teacher_cache"} if same else {"teacher_cache": {"features"}}
    return {
        **training.model_config(recipe, "student"),
        "distill": recipe.distill.model_dump(mode="json", exclude=left_out) if recipe.distill else None,
        "seed": recipe.seed,
        **training.teaching(recipe.teacher),
    }


def alone(recipe: Recipe) -> Recipe:
    """The recipe of the baseline: no teacher, the task loss alone, everything else the same."""
    assert recipe.distill is not None
    task: Loss = next((loss for loss in recipe.distill.losses if loss.kind == "task"), losses.get("task")())
    always = {"start_epoch": 0.0, "end_epoch": None, "warmup_epochs": 0.0}
    distill = recipe.distill.model_copy(
        update={"losses": (task.model_copy(update=always | {"weight": 1.0}),), "teacher_cache": False}
    )
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
    """Write the student's best and last weights, the adapters, the curve, what was rewritten, and what its teacher is."""
    assert context.recipe.distill is not None
    training.launch(context, context.recipe.distill, _train)


def _train(fabric: Any, context: Context) -> None:
    import torch

    from edgekd import models
    from edgekd.distill.loop import fit
    from edgekd.distill.outputs import Facts
    from edgekd.distill.reuse import Reused, adopt
    from edgekd.distill.taps import Tapped
    from edgekd.distill.teachers import tapped
    from edgekd.distill.terms import Terms
    from edgekd.rewrite import squeeze
    from edgekd.rewrite.activations import census

    recipe = context.recipe
    budget = recipe.distill
    assert isinstance(budget, Distill)
    first = fabric.global_rank == 0
    images = training.images(context, context.progress if first else None)
    classes = len(images.classes)
    example = models.example(recipe.data)
    torch.manual_seed(recipe.seed)  # the student starts from the same weights with and without a teacher
    rewritten = training.rewritten(recipe, classes, say=context.progress.say if first else None)
    student = rewritten.model
    structure = {"activations": census(student, example), "squeezes": len(squeeze.find(student, example))}
    if first and context.name == "distill":
        for line in advice(recipe, structure):
            context.progress.say(f"  advice: {line}")
    teacher = training.teacher(recipe.teacher, "teacher", context, images) if recipe.teacher else None
    images = training.judge(teacher, images, context, fabric)
    reused = student.cost if isinstance(student, Reused) else ""
    if teacher is not None and isinstance(student, Reused):
        adopt(student, teacher)
    facts = Facts(classes, len(images.train), torch.from_numpy(images.train.labels))
    terms = Terms(budget.losses, student, teacher, example, facts)
    if first:
        if reused:
            context.progress.say(f"  reused: {reused}")
        for line in layers.told(terms):
            context.progress.say(f"  {line}")
        if teacher is not None:
            training.look_at(teacher, student, images, context, fabric, "teacher")
    fitted = fit(
        fabric, Tapped(student, terms.student_paths), terms,
        tapped(teacher, terms.teacher_paths) if teacher is not None and terms.needs_teacher else None,
        budget, images, recipe.data,
        name="distilled" if training.taught(recipe) else "student_alone", seed=recipe.seed, progress=context.progress,
        # the average's weights where there is one; a traced network lacks what its logits do not need
        snapshot=lambda network: {**student.state_dict(), **network.network.state_dict()},  # type: ignore[union-attr]
        recording=training.recording(context, "teacher", fabric.global_rank),
    )  # fmt: skip
    if first:
        training.save_fitted(context, fitted)
        changes = [str(change) for change in rewritten.changes]
        context.write("rewrite.json", {"changes": changes, "left": rewritten.left, "reused": reused, **structure})
