"""Conflicts of recipes without labels or without images."""

from __future__ import annotations

from collections.abc import Sequence

from edgekd.loading.conflicts.found import Found
from edgekd.recipe import Recipe
from edgekd.recipe.distill import Distill
from edgekd.recipe.quantize import Ptq
from edgekd.recipe.source import parts
from edgekd.recipe.teacher import Teacher

LABELLED = "give images with labels: source: imagefolder:DIR"


def unlabelled(recipe: Recipe, teachers: Sequence[tuple[str, Teacher]]) -> Found:
    """Yield (key, message, hint); ``teachers`` are all of the recipe with their places in it."""
    data, kind = recipe.data, parts(recipe.data.source)[0]
    if data.has_labels and data.classes is not None:
        yield "data.classes", f"the labels of {kind} already give the number of classes", "remove classes"
    if not data.has_labels and data.classes is None:
        yield "data.classes", "these images have no labels, so the number of classes is unknown", "add classes: NUMBER"
    if not data.has_labels and data.class_order is not None:
        yield "data.class_order", "these images have no labels", "remove class_order"
    if not data.has_labels and data.labels != "all":
        yield "data.labels", "these images have no labels", "remove labels"
    if data.made is not None:
        yield from _synthesized(recipe, teachers)
    if data.teaches:
        return
    for place, section in teachers:
        if section.train is not None and not data.made:
            yield f"{place}.train", "training with hard labels needs labels, and these images have none", LABELLED
        if section.distill is not None:
            yield from _losses(section.distill, f"{place}.distill")
        if section.combine == "confidence":
            yield f"{place}.combine", "confidence reads labels, and these images have none", "use combine: probabilities"
    if recipe.distill is not None:
        yield from _losses(recipe.distill, "distill")
        if kind == "random" and data.made is None:
            yield (
                "distill",
                "noise cannot teach a student",
                "give images: source: images:DIR, or make them: source: synthetic",
            )
    if recipe.quantize is not None and kind == "random" and data.made is None:
        yield "quantize", "the ranges of int8 cannot come from random images", "give real ones: source: images:DIR"
    elif recipe.quantize is not None and recipe.distill is None and not isinstance(recipe.quantize, Ptq):
        hint = f"use method: ptq, or {LABELLED}"
        yield "quantize.method", "training with hard labels needs labels, and these images have none", hint
    yield from _gates(recipe)


def _losses(distill: Distill, key: str) -> Found:
    if distill.peers:
        yield (
            f"{key}.peers",
            "peers need labels, and these images have none",
            f"{LABELLED}, or a teacher instead of peers",
        )
    for index, loss in enumerate(distill.losses):
        if loss.reads_labels and loss.weight:
            yield (
                f"{key}.losses[{index}].kind",
                f"{loss.kind} reads labels, and these training images have none",
                "use {kind: kd}, or another loss that does not read labels",
            )


def _gates(recipe: Recipe) -> Found:
    """Accuracy needs labels of the test images; where there are none, a drop is one of agreement with the teacher."""
    data = recipe.data
    if data.has_labels and data.labels != "none":
        return
    if recipe.gates.top1 is not None and recipe.gates.top1.level != "off":
        yield "gates.top1", "accuracy needs labels, and these images have none", LABELLED
    drop = recipe.gates.accuracy_drop
    if drop is not None and drop.level != "off" and (recipe.teacher is None or recipe.distill is None):
        hint = f"write agreement: {{min: 0.95}}, which needs none, or {LABELLED}"
        yield "gates.accuracy_drop", "accuracy needs labels, and these images have none", hint


def _synthesized(recipe: Recipe, teachers: Sequence[tuple[str, Teacher]]) -> Found:
    """Images are made from one network with batch norm that is trained already."""
    data = recipe.data
    if data.mean is None and data.std is None:
        yield (
            "data.mean",
            "there is no image to compute mean and std from",
            "add mean and std that the teacher was trained with, such as mean: [0.485, 0.456, 0.406], "
            "std: [0.229, 0.224, 0.225]",
        )
    if data.made is not None and data.made.grey and max(len(data.mean or ()), len(data.std or ())) > 1:
        yield "data.synthetic.grey", "grey images have one mean and one std", "give one number of each, or remove grey"
    if recipe.student is None or (recipe.distill is not None and recipe.teacher is None):
        yield (
            "data.synthetic" if data.synthetic else "data.source",
            "images are made from a trained network, and the recipe has none",
            "add teacher: {model: torchvision:resnet18, weights: resnet18.pt}",
        )
    for place, section in teachers:
        if section.data is not None:
            yield f"{place}.data", "the images are made in the teacher's own view", "remove data here"
        if section.black_box:
            yield (
                f"{place}.model",
                f"images are made from a network's layers, and {section.black_box[1]} shows none",
                "give a network in torch, or images: source: images:DIR",
            )
        elif section.ensemble:
            yield f"{place}.ensemble", "images are made from one teacher", f"write {place}: {{model: …, weights: …}}"
        elif section.budget is not None:
            key = "train" if section.train else "distill"
            yield f"{place}.{key}", "images are made from a trained teacher", f"give {place}.weights: FILE"
