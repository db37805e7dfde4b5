"""Conflicts of the student: what it needs beside it, and what it ships."""

from __future__ import annotations

from edgekd.loading.conflicts.found import Found
from edgekd.recipe import Recipe
from edgekd.recipe.quantize import Qat


def sections(recipe: Recipe) -> Found:
    """Find sections that need a student or a teacher where there is none."""
    if recipe.student is not None:
        return
    if recipe.teacher is None:
        yield "student", "there is no student and no teacher", "add student: {model: torchvision:mobilenet_v2}"
    for key in ("distill", "quantize", "export", "profile", "tune"):
        if getattr(recipe, key):
            yield key, "needs a student", "add student: {model: torchvision:mobilenet_v2}, or remove this section"


def trained(recipe: Recipe) -> Found:
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


def comparisons(recipe: Recipe) -> Found:
    """Find seeds and baselines that nothing can be trained for."""
    trained = recipe.student is not None and recipe.distill is not None
    if recipe.seeds > 1 and not trained:
        yield "seeds", "no student is trained here, so there is nothing to train several times", "remove seeds"
    for index, name in enumerate(recipe.baselines):
        if name in recipe.baselines[:index]:
            yield f"baselines[{index}]", f"{name} is listed twice", "remove one of them"
        elif name != "student_alone" and not trained:
            yield f"baselines[{index}]", f"no student is trained here to compare with {name}", f"remove {name}"
        elif name != "student_alone" and recipe.teacher is None:
            yield f"baselines[{index}]", f"{name} needs a teacher", f"remove {name}, or add a teacher"


def left_for_qat(recipe: Recipe) -> Found:
    """Find a distillation that leaves quantization-aware training without a term."""
    distill, qat = recipe.distill, recipe.quantize if isinstance(recipe.quantize, Qat) else None
    if recipe.student is None or distill is None or qat is None:
        return
    if not qat.self_distill and not any(loss.lasts() for loss in distill.losses):
        yield (
            "distill.losses",
            "no term is left for quantization-aware training: each has an end_epoch, weight 0, or reads preactivations",
            "add {kind: task} or {kind: kd}, or quantize: {self_distill: true}",
        )


def shipped(recipe: Recipe) -> Found:
    """A student that ends in a part of the teacher has only its output."""
    reused = [loss.kind for loss in (recipe.distill.losses if recipe.distill else ()) if loss.reuses_teacher and loss.weight]
    if reused and recipe.student is not None and recipe.student.outputs != "primary":
        what = f"with {reused[0]} the student ends in the teacher's classifier, which has one output"
        yield "student.outputs", what, f"remove outputs, or the loss {reused[0]}"
