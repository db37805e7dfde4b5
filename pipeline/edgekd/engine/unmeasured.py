"""Figures that a run does not have, listed with their reasons."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from edgekd.bundle import several
from edgekd.bundle.app_snippets import app_snippets
from edgekd.recipe import Recipe
from edgekd.recipe.quantize import Qat
from edgekd.results.models import ModelRecord
from edgekd.results.profile import ProfileRecord
from edgekd.results.run import DataRecord
from edgekd.runtimes import base


def limits(recipe: Recipe, profiles: Sequence[ProfileRecord]) -> Iterator[str]:
    """Yield what a run cannot say, whatever it found."""
    if not recipe.profile:
        yield "latency and memory: the recipe has no profile section"
    elif recipe.profile.devices == ("host",):
        yield "any other device: only the host was profiled"
    if not any(profile.energy for profile in profiles):
        yield "energy: no power meter is read"
    if (
        recipe.distill
        or (recipe.teacher and any(part.budget for _, part in recipe.teacher.lineage()))
        or isinstance(recipe.quantize, Qat)
    ):
        yield from _one_seed(recipe)
    yield from unlabelled(recipe, recipe.baselines)
    if recipe.student and recipe.student.weights and not recipe.distill and recipe.data.teaches:
        yield "images that are new to the network: whether the given weights were trained on the test images is not known"
    if recipe.data.source == "random":
        height, width = recipe.data.size
        yield f"the size and the normalization of the weights' training: the images are random, {height}×{width}, as written"
    if recipe.data.source == "fashion-mnist-mini":
        yield "other data: fashion-mnist-mini has 2,000 test images; one point of top-1 is 20 images"


def unlabelled(recipe: Recipe, baselines: Sequence[str]) -> Iterator[str]:
    """Yield what is not known without labels, or without real images; ``baselines``: the requested ones."""
    data = recipe.data
    if data.classes is not None or data.labels == "none":
        instead = "files were only compared with the network in torch"
        if recipe.teacher:
            instead = "top-1 is agreement with the teacher, mistakes of the teacher included"
        yield f"accuracy: no labels were used, so {instead}"
    if not data.teaches and recipe.distill and "student_alone" in baselines:
        yield "the student alone: it needs labels"
    if data.source == "synthetic":
        yield "real images: none in training, calibration or evaluation; all were made from a network"


def not_bundled(models: Iterable[ModelRecord], data: DataRecord) -> Iterator[str]:
    """Yield what the bundle lacks: programs for apps, and load snippets of several inputs or outputs."""
    files = [model for model in models if model.role == "artifact" and model.path is not None]
    runtimes = {model.format: base.of(model.format) for model in files}
    apps = [model for model in files if runtimes[model.format].cpp or runtimes[model.format].kotlin]
    if lacking := [model.name for model in apps if not app_snippets(model, data)]:
        yield f"C++ and Kotlin for {', '.join(lacking)}: they are only for files that take one image and give its class"
    without = [model for model in files if several.is_for(model) and not several.known(model)]
    for format in dict.fromkeys(model.format for model in without):
        own = [model for model in without if model.format == format]
        if several_in := [model.name for model in own if len(model.inputs) > 1]:
            yield f"loading of {', '.join(several_in)}: {base.label(format)} has no lines for a file with several inputs"
        if beside := [model.name for model in own if len(model.inputs) == 1]:
            yield (
                f"outputs of {', '.join(beside)} beside the primary one: the load snippet skips them, as "
                f"{base.label(format)} has no lines for it"
            )


def _one_seed(recipe: Recipe) -> Iterator[str]:
    """What only one seed was drawn for."""
    if recipe.seeds == 1:
        yield f"spread over seeds: one seed ({recipe.seed})"
        return
    if recipe.teacher and any(part.budget for _, part in recipe.teacher.lineage()):
        yield "spread over teachers: the same teacher taught the students of all seeds"
    if recipe.quantize or recipe.export:
        yield f"spread of the files over seeds: they are made from the first seed's student ({recipe.seed})"
