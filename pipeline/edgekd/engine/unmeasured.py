"""Figures that a run does not have, listed with their reasons."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from edgekd.bundle import several
from edgekd.bundle.app_snippets import app_snippets
from edgekd.recipe import Recipe
from edgekd.recipe.quantize import Qat
from edgekd.results.findings import Finding, Missing
from edgekd.results.models import ModelRecord
from edgekd.results.profile import ProfileRecord
from edgekd.results.run import DataRecord
from edgekd.runtimes import base

MINI = "fashion-mnist-mini"
MINI_IMAGES = 2000
"""Test images of it."""


def limits(recipe: Recipe, profiles: Sequence[ProfileRecord]) -> Iterator[Missing]:
    """Yield what a run cannot say, whatever it found."""
    if not recipe.profile:
        yield _of("no_profile")
    elif recipe.profile.devices == ("host",):
        yield _of("host_only")
    if not any(profile.energy for profile in profiles):
        yield _of("no_power_meter")
    if (
        recipe.distill
        or (recipe.teacher and any(part.budget for _, part in recipe.teacher.lineage()))
        or isinstance(recipe.quantize, Qat)
    ):
        yield from _one_seed(recipe)
    yield from unlabelled(recipe, recipe.baselines)
    if recipe.student and recipe.student.weights and not recipe.distill and recipe.data.teaches:
        yield _of("given_weights_may_know_test")
    if recipe.data.source == "random":
        height, width = recipe.data.size
        yield _of("random_images", height=height, width=width)
    yield from small_split(recipe)


def small_split(recipe: Recipe) -> Iterator[Missing]:
    """Yield that the data that ships with edgekd are few."""
    if recipe.data.source == MINI:
        yield _of("small_test_split", source=MINI, images=MINI_IMAGES)


def unlabelled(recipe: Recipe, baselines: Sequence[str]) -> Iterator[Missing]:
    """Yield what is not known without labels, or without real images; ``baselines``: the requested ones."""
    data = recipe.data
    if data.classes is not None or data.labels == "none":
        yield _of("no_labels_used", teacher=recipe.teacher is not None)
    if not data.teaches and recipe.distill and "student_alone" in baselines:
        yield _of("student_alone_needs_labels")
    if data.source == "synthetic":
        yield _of("no_real_images")


def not_bundled(models: Iterable[ModelRecord], data: DataRecord) -> Iterator[Missing]:
    """Yield what the bundle lacks: programs for apps, and load snippets of several inputs or outputs."""
    files = [model for model in models if model.role == "artifact" and model.path is not None]
    runtimes = {model.format: base.of(model.format) for model in files}
    apps = [model for model in files if runtimes[model.format].cpp or runtimes[model.format].kotlin]
    if lacking := [model.name for model in apps if not app_snippets(model, data)]:
        yield _of("no_app_program", models=lacking)
    without = [model for model in files if several.is_for(model) and not several.known(model)]
    for format in dict.fromkeys(model.format for model in without):
        own = [model for model in without if model.format == format]
        if several_in := [model.name for model in own if len(model.inputs) > 1]:
            yield _of("no_load_snippet", models=several_in, format=format)
        if beside := [model.name for model in own if len(model.inputs) == 1]:
            yield _of("primary_output_only", models=beside, format=format)


def _one_seed(recipe: Recipe) -> Iterator[Missing]:
    """What only one seed was drawn for."""
    if recipe.seeds == 1:
        yield _of("one_seed", seed=recipe.seed)
        return
    if recipe.teacher and any(part.budget for _, part in recipe.teacher.lineage()):
        yield _of("one_teacher")
    if recipe.quantize or recipe.export:
        yield _of("files_of_one_seed", seed=recipe.seed)


def _of(code: str, **figures: object) -> Missing:
    return Missing(Finding(code, figures=figures))
