"""Conflicts of a teacher that sees another view of the samples."""

from __future__ import annotations

from edgekd.loading.conflicts.found import Found
from edgekd.recipe import Recipe
from edgekd.recipe.base import need
from edgekd.recipe.data import Data
from edgekd.recipe.distill import Distill
from edgekd.recipe.source import declared, parts
from edgekd.recipe.teacher import Teacher


def conflicts(recipe: Recipe) -> Found:
    """Yield (key, message, hint) for each impossible combination."""
    yield from _channels(recipe.data, "data")
    if recipe.teacher is not None:
        yield from _teacher(recipe.teacher, recipe.data, "teacher")
        if recipe.distill is not None:
            yield from _taught(recipe.distill, recipe.teacher, recipe.data, "")


def _teacher(teacher: Teacher, student_sees: Data, key: str) -> Found:
    """``key`` is the place of the teacher in the recipe."""
    seen = teacher.seen(student_sees)
    if teacher.data is not None:
        yield from _view(teacher, student_sees, f"{key}.data")
    for name in ("mean", "std"):
        for place, numbers in ((f"{key}.{name}", getattr(teacher, name)),
                               (f"{key}.data.{name}", getattr(teacher.data, name, None))):  # fmt: skip
            if numbers is not None and len(numbers) not in {1, seen.channels}:
                yield (
                    place,
                    f"{len(numbers)} numbers for {seen.channels} channel{'s' * (seen.channels > 1)}",
                    "give one for each channel, or one for all",
                )
    if teacher.teacher is not None:
        yield from _teacher(teacher.teacher, seen, f"{key}.teacher")
        if teacher.distill is not None:
            yield from _taught(teacher.distill, teacher.teacher, seen, f"{key}.")
    for index, member in enumerate(teacher.ensemble or ()):
        yield from _teacher(member, seen, f"{key}.ensemble[{index}]")


def _view(teacher: Teacher, student_sees: Data, key: str) -> Found:
    view, seen = need(teacher.data, f"{key}.data"), teacher.seen(student_sees)
    if view.channels is not None or view.source is not None:
        yield from _channels(seen, key)
    if (view.mean is None) != (view.std is None):
        name, other = ("mean", "std") if view.std is None else ("std", "mean")
        yield f"{key}.{name}", f"{name} is given without {other}", f"add {other}, or remove {name}"
    if teacher.black_box and teacher.black_box[0] == "outputs":
        yield key, "stored outputs take no images", "remove data"
    if student_sees.has_labels != seen.has_labels:
        several = sorted((student_sees, seen), key=lambda data: not data.has_labels)
        labelled, other = (parts(data.source)[0] for data in several)
        yield (
            f"{key}.source",
            f"{labelled} has labels and {other} has none, so they are not known to be the same samples",
            "give two views of one data set",
        )
    if "trivial" in seen.augment and seen.image_size != student_sees.image_size:
        yield (
            f"{key}.image_size",
            f"trivial moves images by whole pixels, which differs at sizes {_size(student_sees)} and {_size(seen)}",
            "use crop, flip and rotate in data.augment, or give both views one size",
        )


def _taught(distill: Distill, teacher: Teacher, student_sees: Data, prefix: str) -> Found:
    """Losses that need both to see images of one form; ``prefix`` leads to ``distill``."""
    seen = teacher.seen(student_sees)
    if (seen.image_size, seen.channels) == (student_sees.image_size, student_sees.channels):
        return
    for index, loss in enumerate(distill.losses):
        if loss.reuses_teacher and loss.weight:
            yield (
                f"{prefix}distill.losses[{index}].kind",
                f"{loss.kind} copies the teacher's classifier, and teacher and student see images of different shapes",
                "use a feature loss such as fitnet here",
            )


def _channels(data: Data, key: str) -> Found:
    if data.channels not in (1, 3) and declared(data.source).pictures:
        yield (
            f"{key}.channels",
            f"{parts(data.source)[0]} has pictures, of 1 or 3 channels, not {data.channels}",
            "write channels: 3, or give arrays: source: npz:FILE",
        )


def _size(data: Data) -> str:
    return str(data.image_size) if isinstance(data.image_size, int) else "×".join(map(str, data.image_size))
