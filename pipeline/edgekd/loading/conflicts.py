"""What no single key of a recipe shows: combinations that cannot be run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from edgekd.recipe import UNLABELLED, Ptq, Recipe, Train
from edgekd.registry import exporters

Found = Iterator[tuple[str, str, str]]


def conflicts(recipe: Recipe) -> Found:
    """Yield (key, message, hint) for each impossible combination."""
    yield from _sections(recipe)
    yield from _trained_student(recipe)
    yield from _images(recipe)
    yield from _precisions(recipe)


def _sections(recipe: Recipe) -> Found:
    """What one section needs of another."""
    teacher, student, distill = recipe.teacher, recipe.student, recipe.distill
    if teacher is None and student is None:
        yield (
            "student",
            "there is no student and no teacher",
            "add student: {model: torchvision:mobilenet_v2}",
        )
    if teacher and (teacher.weights is None) == (teacher.train is None):
        what = "both weights and train are given" if teacher.weights else "neither weights nor train is given"
        yield (
            "teacher",
            what,
            "give weights: FILE for a trained teacher, or train: {epochs: N} to train it here",
        )
    if teacher and teacher.train and teacher.train.warmup_epochs >= teacher.train.epochs:
        yield _warmup("teacher.train", teacher.train)
    if student is None:
        for key in ("distill", "quantize", "export", "profile"):
            if getattr(recipe, key):
                yield key, "needs a student", "add student: {model: torchvision:mobilenet_v2}, or remove this section"
        return
    if distill is not None:
        for index, loss in enumerate(distill.losses):
            if loss.needs_teacher and teacher is None:
                yield (
                    f"distill.losses[{index}].kind",
                    f"{loss.kind} needs a teacher",
                    "add teacher: {model: torchvision:resnet18, train: {epochs: 6}}, or use {kind: task}",
                )
        reusing = [loss.kind for loss in distill.losses if loss.reuses_teacher and loss.weight]
        if len(reusing) > 1:
            yield (
                "distill.losses",
                f"{' and '.join(reusing)} both give the student the teacher's end",
                "keep one of them",
            )
        if all(loss.weight == 0 for loss in distill.losses):
            yield "distill.losses", "all weights are 0", "give at least one loss a weight above 0"
        elif teacher and not any(loss.needs_teacher and loss.weight for loss in distill.losses):
            yield (
                "distill.losses",
                "there is a teacher but no loss uses it",
                "add {kind: kd} to the losses, or remove teacher",
            )
        if distill.warmup_epochs >= distill.epochs:
            yield _warmup("distill", distill)
    drop = recipe.gates.accuracy_drop
    if recipe.quantize and recipe.quantize.keep_float == "auto" and (drop is None or drop.max is None):
        yield (
            "quantize.keep_float",
            "auto needs to know what accuracy is enough, and there is no such gate",
            "add gates: {accuracy_drop: {max: 0.01}}, or name the layers: keep_float: [features.0]",
        )
    seen: set[tuple[str, str | None]] = set()
    for index, export in enumerate(recipe.export):
        if (export.format, export.precision) in seen:
            yield f"export[{index}]", f"{export.format} is exported twice", "remove one of them"
        seen.add((export.format, export.precision))
        if export.io == "int8" and export.format != "tflite":
            yield (
                f"export[{index}].io",
                f"{export.format} has float32 input and output, always",
                "only tflite can have int8; remove io here",
            )
        if export.io == "int8" and recipe.quantize is None:
            yield f"export[{index}].io", "int8 io needs a quantized model", "add quantize: {method: qat}"
    if recipe.profile and not recipe.export:
        yield "profile", "there is nothing to profile: nothing is exported", "add export: [onnx]"
    for name, gate in recipe.gates.limits():
        profiled = recipe.profile.devices if recipe.profile else ()
        if name.startswith(("latency", "peak_memory")) and gate.device not in profiled:
            devices = ", ".join((*profiled, gate.device))
            yield (
                f"gates.{name}.device",
                f"nothing is profiled on {gate.device}, so this gate would have no figure",
                f"write profile: {{devices: [{devices}]}}",
            )
        elif not recipe.export and not name.startswith("parity"):
            yield f"gates.{name}", "nothing is exported, so this gate would have no figure", "add export: [onnx]"
        elif name in {"accuracy_drop", "size_ratio"} and recipe.quantize is None:
            yield (
                f"gates.{name}",
                "this gate compares int8 with float, and nothing is quantized",
                "add quantize: {method: qat}",
            )


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


def _warmup(section: str, train: Train) -> tuple[str, str, str]:
    return (
        f"{section}.warmup_epochs",
        f"{train.warmup_epochs:g} epochs of warm-up do not fit into {train.epochs} epochs of training",
        "make the warm-up shorter, such as 0.5",
    )
