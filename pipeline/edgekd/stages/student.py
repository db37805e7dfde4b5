"""student: a student that is trained already, read from its checkpoint in the place of being distilled."""

from __future__ import annotations

from typing import Any

from edgekd.recipe import Recipe
from edgekd.stages import distill, figures, training, wiring
from edgekd.stages.context import Context

VERSION = 4
PACKAGES = ("torch", "torchvision")


def config(recipe: Recipe, name: str) -> dict[str, Any]:
    """Model and weights."""
    return training.model_config(recipe, "student")


def run(context: Context) -> None:
    """Write ``weights.safetensors``, and what the student has that int8 is slow at."""
    from edgekd import data

    recipe = context.recipe
    images = data.load(recipe.data, context.progress)
    rewritten = training.rewritten(recipe, len(images.classes), say=context.progress.say)
    student = rewritten.model.eval()
    if rewritten.changes:  # which may compute something else before it is trained
        doubts: tuple[str, ...] = (wiring.UNCHECKED,)
        context.progress.say(f"  warning: {wiring.UNCHECKED}")
    else:
        role = wiring.Role("student", teaches=False, normalized=recipe.data.mean is not None)
        doubts = wiring.check(student, images, recipe.data, role, context.progress)
    context.write(wiring.FILE, doubts)
    figures.note_dropped_outputs(context, "student", student)
    structure = distill.structure(context, student)
    for line in distill.advice(recipe, structure):
        context.progress.say(f"  advice: {line}")
    training.save(student.state_dict(), context.out / "weights.safetensors")
    changes = [str(change) for change in rewritten.changes]
    context.write("rewrite.json", {"changes": changes, "left": rewritten.left, **structure})
