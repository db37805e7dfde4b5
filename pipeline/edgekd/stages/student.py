"""student: a student that is trained already, read from its checkpoint instead of being distilled."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from edgekd.assembly import figures, networks, wiring
from edgekd.assembly.context import Context
from edgekd.assembly.outputs import StudentOutput
from edgekd.assembly.stage import Node, Work
from edgekd.recipe import Recipe
from edgekd.results.findings import Finding
from edgekd.stages import distill


class StudentStage:
    """A student that is trained already."""

    name = "student"
    version = 6
    reused = True
    optional = False

    def packages(self, name: str) -> tuple[str, ...]:
        """Name what decides its result."""
        return ("torch", "torchvision")

    def nodes(self, recipe: Recipe) -> Iterator[Node]:
        """Yield one where nothing is distilled."""
        if recipe.student and not recipe.distill:
            yield Node("student", self, (), recipe)

    def work(self, recipe: Recipe) -> Work:
        """Read weights."""
        return Work.FILES

    def config(self, recipe: Recipe, name: str) -> dict[str, Any]:
        """Model and weights."""
        return networks.model_config(recipe, "student")

    def run(self, context: Context) -> StudentOutput:
        """Write ``weights.safetensors``."""
        from edgekd.data import dataset

        recipe = context.recipe
        images = dataset.load(recipe.data, context.progress, task=recipe.task)
        rewritten = networks.rewritten(recipe, images.purpose, say=context.progress.say)
        student = rewritten.model.eval()
        if rewritten.changes:  # which may compute something else before it is trained
            doubts: tuple[Finding, ...] = (wiring.UNCHECKED,)
            context.say(wiring.UNCHECKED)
        else:
            role = wiring.Role("student", teaches=False, normalized=recipe.data.mean is not None)
            doubts = wiring.check(student, images, recipe.data, role, context.progress)
        figures.note_outputs_and_order(context, "student", student, images.purpose)
        structure = distill.structure(context, rewritten, images.purpose)
        context.say(*distill.advice(recipe, structure))
        networks.save(student.state_dict(), context.out / "weights.safetensors")
        return StudentOutput(structure, doubts)
