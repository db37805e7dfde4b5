"""Conflicts of the data section: numbers of a normalization, and images that stored outputs do not know."""

from __future__ import annotations

from edgekd.loading.conflicts.found import Found
from edgekd.loading.conflicts.teacher import places
from edgekd.recipe import Recipe


def conflicts(recipe: Recipe) -> Found:
    """Numbers of a normalization that do not fit, and images that stored outputs do not know."""
    data = recipe.data
    for _, section in places(recipe.teacher, "teacher") if recipe.teacher else ():
        if section.black_box and section.black_box[0] == "outputs" and data.augment:
            yield (
                "data.augment",
                "the teacher's outputs are stored, of images that are not augmented",
                "remove augment, or give the teacher itself, such as model: onnx:FILE",
            )
    if (data.mean is None) != (data.std is None):
        key, other = ("mean", "std") if data.std is None else ("std", "mean")
        yield f"data.{key}", f"{key} is given without {other}", f"add {other}, or remove {key} to measure both"
    for key in ("mean", "std"):
        numbers = getattr(data, key)
        if numbers is not None and len(numbers) not in {1, data.channels}:
            yield (
                f"data.{key}",
                f"{len(numbers)} numbers for {data.channels} channels",
                "give one for each channel, or one for all",
            )
