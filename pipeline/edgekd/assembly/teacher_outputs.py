"""Recorded outputs of a teacher: their folder, and the configuration that decides them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekd import cache
from edgekd.assembly import black_box, views
from edgekd.assembly.context import Context
from edgekd.data.sources.synthetic import MADE
from edgekd.distill.teacher_cache.rows import folder
from edgekd.progress import Silent
from edgekd.recipe import Recipe
from edgekd.recipe.base import need
from edgekd.recipe.distill import TeacherCache

if TYPE_CHECKING:
    from edgekd.distill.teacher_cache.recording import Recording


def teacher_cache(recipe: Recipe) -> TeacherCache | None:
    """The recipe's settings for what is kept of the teacher; None: nothing is."""
    chosen = recipe.distill.teacher_cache if recipe.distill else False
    return chosen if isinstance(chosen, TeacherCache) else None


def recorded(recipe: Recipe, taught_by: str) -> tuple[str, ...]:
    """The stages that decide what is recorded: of the teacher, or of each of several, and of synthesized images."""
    teachers = recipe.teacher.stages() if recipe.teacher and taught_by == "teacher" else (taught_by,)
    return (*teachers, "synthesize") if recipe.data.made else teachers


def records_folder(recipe: Recipe, made: Mapping[str, Path], taught_by: str) -> Path:
    """Return the folder with the recorded outputs of the network of stage ``taught_by``, or of several teachers.

    A stage's key says what its network sees and is built of; its weights may still be others, trained with another number of
    threads. So may synthesized images, which all seeds of a recipe share. The seed of the draws is the recipe's, in
    quantization-aware training too, which thus reads what distillation wrote.

    Args:
        recipe: The recipe.
        made: Folders of finished stages, which are named by their keys.
        taught_by: The stage.
    """
    folders = [made[name] for name in recorded(recipe, taught_by)]
    material: dict[str, Any] = {"stages": [[folder.name, _digest(folder)] for folder in folders]}
    if taught_by == "teacher" and views.differ(recipe.teacher, recipe.data):  # its views get the draws of the student's
        material["student"] = recipe.data.image_size
    return folder(cache.key_of(material), recipe.seed, need(recipe.distill, "distill").batch_size)


def _digest(folder: Path) -> str:
    """Hash of what a finished stage leaves to teach with: weights, what a black box has written of its files, or images."""
    found = cache.digests(folder)
    return next(found[name] for name in ("weights.safetensors", black_box.ABOUT, MADE) if name in found)


def recording(context: Context, taught_by: str, rank: int) -> Recording | None:
    """Return the recording of a finished stage's network; None: no teacher cache. Process 0 reports it."""
    from edgekd.distill.teacher_cache.recording import Recording

    recipe, settings = context.recipe, teacher_cache(context.recipe)
    if settings is None or (taught_by == "teacher" and recipe.teacher is None):
        return None
    progress = context.progress if rank == 0 else Silent()
    return Recording(records_folder(recipe, context.inputs, taught_by), settings, cached(recipe, taught_by), progress.say)


def cached(recipe: Recipe, taught_by: str) -> str:
    """Return the name of the network whose outputs are recorded."""
    part = need(recipe.teacher, "teacher") if taught_by == "teacher" else need(recipe.student, "student")
    return part.model or "several teachers"
