"""student: a student that is trained already, read from its checkpoint in the place of being distilled."""

from __future__ import annotations

from typing import Any

from edgekd.recipe import Recipe
from edgekd.stages import distill, training
from edgekd.stages.context import Context

VERSION = 1
PACKAGES = ("torch", "torchvision")


def config(recipe: Recipe, name: str) -> dict[str, Any]:
    """Model and weights."""
    return training.model_config(recipe, "student")


def run(context: Context) -> None:
    """Write ``weights.safetensors``, and what the student has that int8 is slow at."""
    from edgekd import data, models
    from edgekd.rewrite import squeeze
    from edgekd.rewrite.activations import census

    recipe = context.recipe
    classes = len(data.load(recipe.data, context.progress).classes)
    rewritten = training.rewritten(recipe, classes, say=context.progress.say)
    example = models.example(recipe.data)
    student = rewritten.model.eval()
    structure = {"activations": census(student, example), "squeezes": len(squeeze.find(student, example))}
    for line in distill.advice(recipe, structure):
        context.progress.say(f"  advice: {line}")
    training.save(student.state_dict(), context.out / "weights.safetensors")
    changes = [str(change) for change in rewritten.changes]
    context.write("rewrite.json", {"changes": changes, "left": rewritten.left, **structure})
