"""Impossible combinations of a recipe's sections: about trained weights, images without labels, what a format can hold."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from edgekd.recipe import UNLABELLED, Ptq, Recipe
from edgekd.registry import exporters

Found = Iterator[tuple[str, str, str]]


def combinations(recipe: Recipe) -> Found:
    """Yield (key, message, hint) for each, as ``recipe.conflicts`` does."""
    yield from _trained_student(recipe)
    yield from _images(recipe)
    yield from _precisions(recipe)


def _trained_student(recipe: Recipe) -> Found:
    """A student without a distill section is used with the weights it is given."""
    student = recipe.student
    if student is None or recipe.distill is not None:
        return
    if student.weights is None:
        yield (
            "distill",
            "a student needs a training budget",
            "add distill: {epochs: 8, losses: [{kind: task}]}, or weights: FILE to a student that is trained already",
        )
        return
    if recipe.teacher is not None:
        yield (
            "teacher",
            "there is a teacher, and nothing is distilled",
            "add distill: {epochs: 8, losses: [{kind: kd}]}, or remove teacher",
        )
    changed = [name for name in ("hardswish", "silu", "gelu") if getattr(student.rewrite, name)]
    changed += [name for name in ("gate", "se") if getattr(student.rewrite, name) != "keep"]
    for name in changed:
        yield (
            f"student.rewrite.{name}",
            "this changes what the student computes, and nothing trains it afterwards",
            "add distill: {epochs: 8, losses: [{kind: task}]}, or remove this rewrite",
        )


def _images(recipe: Recipe) -> Found:
    """What images without labels, or none at all, cannot do; and half a normalization."""
    data = recipe.data
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
    kind = data.source.partition(":")[0]
    if kind not in UNLABELLED:
        if data.classes is not None:
            yield "data.classes", f"the labels of {kind} tell the number of classes", "remove classes"
        return
    if data.classes is None:
        yield "data.classes", "these images have no labels that tell the number of classes", "add classes: NUMBER"
    labelled = "give images with labels: source: imagefolder:DIR"
    if recipe.teacher is not None and recipe.teacher.train is not None:
        yield "teacher.train", "training needs labels, and these images have none", labelled
    if recipe.distill is not None:
        yield "distill", "training needs labels, and these images have none", labelled
    if recipe.quantize is not None:
        if kind == "random":
            yield "quantize", "the ranges of int8 cannot come from random images", "give real ones: source: images:DIR"
        elif not isinstance(recipe.quantize, Ptq):
            yield "quantize.method", "training needs labels, and these images have none", f"use method: ptq, or {labelled}"
    for name in ("accuracy_drop", "top1"):
        if getattr(recipe.gates, name) is not None:
            yield f"gates.{name}", "accuracy needs labels, and these images have none", labelled


def _precisions(recipe: Recipe) -> Found:
    """What a format or this recipe cannot have; each exporter says so of itself."""
    for index, export in enumerate(recipe.export):
        key = f"export[{index}].precision"
        refused: Any = getattr(exporters.get(export.format), "precisions", {}).get(export.precision)
        if hasattr(refused, "why"):
            yield key, f"{export.format} has no {export.precision}: {refused.why}", refused.instead
        elif export.precision == "int8" and recipe.quantize is None:
            yield key, "int8 needs a quantized model", "add quantize: {method: ptq}, or use int8-weights"
        elif export.precision == "int16x8" and recipe.data.source == "random":
            yield key, "the ranges of int16 cannot come from random images", "give real ones: source: images:DIR"
        if export.io == "int8" and recipe.quantize and export.precision not in (None, "int8"):
            yield f"export[{index}].io", f"{export.precision} has float32 input and output", "remove io here"
