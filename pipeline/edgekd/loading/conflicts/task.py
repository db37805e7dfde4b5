"""Conflicts of the task with the losses and teachers of a recipe."""

from __future__ import annotations

from collections.abc import Sequence

from edgekd.loading.conflicts.found import Found
from edgekd.recipe import Recipe
from edgekd.recipe.loss import Loss
from edgekd.recipe.teacher import Teacher
from edgekd.task.base import Task, task_of

_WORDS = {"classes": "classes", "images": "images as its only input"}


def conflicts(recipe: Recipe, teachers: Sequence[tuple[str, Teacher]]) -> Found:
    """Yield (key, message, hint); ``teachers`` are all of the recipe with their places in it."""
    task = task_of(recipe.task)
    for place, section in teachers:
        if section.distill is not None:
            yield from _losses(section.distill.losses, task, f"{place}.distill")
        if section.train is not None and section.train.label_smoothing and "classes" not in task.gives:
            yield f"{place}.train.label_smoothing", f"{task.kind} has no classes to smooth", "remove label_smoothing"
        if "classes" not in task.gives:
            yield from _of_classes(section, task, place)
        if section.ensemble is not None and section.combine != "logits" and "classes" not in task.gives:
            yield f"{place}.combine", f"{task.kind} has no classes, so there are no probabilities", "write combine: logits"
    if recipe.distill is not None:
        yield from _losses(recipe.distill.losses, task, "distill")
    if "classes" not in task.gives:
        for index, name in enumerate(recipe.baselines):
            if name != "student_alone":
                yield f"baselines[{index}]", f"{name} needs classes, and {task.kind} has none", f"remove {name}"


def _of_classes(section: Teacher, task: Task, place: str) -> Found:
    """Options of a teacher that are for classes, where the task has none."""
    if section.black_box is not None and section.black_box[0] != "outputs":
        yield (
            f"{place}.model",
            f"{section.black_box[0]} files teach classes of images, and {task.kind} has no classes",
            "compute its outputs once, and give model: outputs:FILE, or give a network with its weights",
        )
    for name in ("outputs", "classes"):
        if getattr(section, name) != Teacher.model_fields[name].default:
            yield f"{place}.{name}", f"{task.kind} has no classes", f"remove {name}"


def _losses(losses: Sequence[Loss], task: Task, key: str) -> Found:
    for index, loss in enumerate(losses):
        for need in loss.needs:
            if need not in task.gives and loss.weight:
                yield (
                    f"{key}.losses[{index}].kind",
                    f"{loss.kind} needs {_WORDS[need]}, which {task.kind} does not give",
                    "use {kind: mse_logits}, or another loss that compares the primary outputs",
                )
                break
        if getattr(loss, "label_smoothing", 0) and "classes" not in task.gives:
            yield f"{key}.losses[{index}].label_smoothing", f"{task.kind} has no classes to smooth", "remove label_smoothing"
