"""The layers that a recipe's losses compare, found before anything is trained: from random weights, in a second or two."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING

from edgekd.assembly import networks, peers, views, wiring
from edgekd.progress import Progress
from edgekd.recipe import Recipe
from edgekd.recipe.base import need
from edgekd.recipe.loss import FeatureLoss
from edgekd.recipe.student import Student

if TYPE_CHECKING:
    from edgekd.distill.terms import Terms


def compared(recipe: Recipe) -> bool:
    """Return whether any loss of the recipe compares layers."""
    losses = recipe.distill.losses if recipe.distill else ()
    return any(isinstance(loss, FeatureLoss) and loss.weight > 0 for loss in losses)


def named(recipe: Recipe) -> bool:
    """Return whether a loss of the recipe names layers, which may not be there."""
    return any(
        isinstance(loss, FeatureLoss) and loss.weight > 0 and not isinstance(loss.layers, str)
        for _, lesson in lessons(recipe)
        for loss in (lesson.distill.losses if lesson.distill else ())
    )


def lessons(recipe: Recipe) -> Iterator[tuple[str, Recipe]]:
    """Yield the stage of each network that is distilled, and the recipe of which it is the student."""
    data = recipe.teacher.views(recipe.data) if recipe.teacher else {}
    for name, section in recipe.teacher.lineage() if recipe.teacher else ():
        if section.model is not None and section.distill is not None:
            taught = Student(model=section.model, args=section.args)
            roles = {"student": taught, "distill": section.distill, "teacher": section.teacher}
            yield name, recipe.model_copy(update=roles | {"data": data[name]})
    if recipe.distill is not None:
        yield "distill", recipe


def find(recipe: Recipe, progress: Progress | None = None, lesson: str = "distill") -> Terms:
    """Build the networks with random weights and return what the losses would compare in them.

    Args:
        recipe: The recipe.
        progress: Where to report.
        lesson: The stage whose recipe it is, of those that ``lessons`` yields.

    Raises:
        LayerError: A network does not have the layers.
        ModelError: A network cannot be built; or a peer begins as another network does.
        DataError: The data cannot be opened.
    """
    import torch

    from edgekd.data import described
    from edgekd.distill import mutual
    from edgekd.distill.outputs import Facts
    from edgekd.distill.terms import Terms
    from edgekd.models import build

    budget = need(recipe.distill, "distill")
    purpose, images = described.known(recipe.data, recipe.task, progress)
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the stages that train will say it
        torch.default_generator.manual_seed(recipe.seed)
        student = networks.rewritten(recipe, purpose).model
        example = build.example(purpose.signature)
        facts = Facts(len(purpose.samples.classes), images, criterion=purpose.task.criterion)
        if budget.peers:
            untrained = peers.untrained(recipe, purpose)
            return mutual.cohort(budget.losses, student, untrained, budget.combine, example, facts)[0]
        teacher = networks.untrained(recipe.teacher, purpose, recipe.data) if recipe.teacher else None
        seen = views.examples(recipe.teacher, recipe.data, purpose)
        key = lesson if lesson == "distill" else f"{lesson}.distill"
        return Terms(budget.losses, student, teacher, example, facts, seen, key)


def check_student(recipe: Recipe, progress: Progress) -> None:
    """Build the student that is to be trained, and see that it gives logits.

    Raises:
        ModelError: It cannot be built, or gives probabilities.
        DataError: The data cannot be opened.
    """
    import torch

    from edgekd.data import described

    purpose, _ = described.known(recipe.data, recipe.task, progress)
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the stage that trains will say it
        student = networks.rewritten(recipe, purpose).model
        wiring.refuse_probabilities(student, purpose, "student")


def told(terms: Terms) -> Iterator[str]:
    """Yield a line for each pair, and one for what is trained beside the student."""
    for term in terms.terms:
        for pair in term.pairs:
            yield f"{term.name}: {pair}"
        if term.name in terms.adapters:
            yield f"{term.name}: {parameters(terms, term.name):,} extra parameters, used in training only"


def parameters(terms: Terms, name: str) -> int:
    """Number of parameters that a term trains beside the student."""
    return sum(p.numel() for p in terms.adapters[name].parameters()) if name in terms.adapters else 0
