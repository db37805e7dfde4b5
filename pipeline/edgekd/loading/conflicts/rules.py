"""All rules but those of a search, which applies them to its own values."""

from __future__ import annotations

from edgekd.loading.conflicts import data, devices, export, gates, losses, peers, student, task, teacher, views
from edgekd.loading.conflicts.found import Found
from edgekd.loading.conflicts.labels import unlabelled
from edgekd.recipe import Recipe


def conflicts(recipe: Recipe) -> Found:
    """Yield (key, message, hint) for each impossible combination of a recipe without its search."""
    yield from student.sections(recipe)
    if recipe.teacher is not None:
        yield from teacher.conflicts(recipe.teacher, "teacher")
    if recipe.student is not None:
        if recipe.distill is not None:
            yield from losses.conflicts(recipe.distill, recipe.teacher, "")
        yield from student.left_for_qat(recipe)
        yield from gates.one_sided(recipe)
        yield from gates.without_meaning(recipe)
        yield from gates.unreachable(recipe)
        yield from export.options(recipe)
        yield from devices.conflicts(recipe)
        yield from gates.without_figure(recipe)
    yield from student.comparisons(recipe)
    yield from student.trained(recipe)
    yield from student.shipped(recipe)
    yield from data.conflicts(recipe)
    teachers = [] if recipe.teacher is None else list(teacher.places(recipe.teacher, "teacher"))
    yield from unlabelled(recipe, teachers)
    yield from export.precisions(recipe)
    yield from views.conflicts(recipe)
    yield from peers.alike(recipe)
    yield from of_task(recipe)


def of_task(recipe: Recipe) -> Found:
    """Yield what does not go with the recipe's task; nothing can be said of it where the task is not known."""
    yield from task.conflicts(recipe, [] if recipe.teacher is None else list(teacher.places(recipe.teacher, "teacher")))
    yield from gates.of_metrics(recipe)
