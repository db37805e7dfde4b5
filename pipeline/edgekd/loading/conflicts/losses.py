"""Conflicts of a training: its losses with the teacher, its budget, and what is kept of the teacher."""

from __future__ import annotations

from edgekd.errors import did_you_mean
from edgekd.loading.conflicts import peers
from edgekd.loading.conflicts.found import Found
from edgekd.recipe.distill import Distill, TeacherCache
from edgekd.recipe.loss import Loss
from edgekd.recipe.teacher import Teacher
from edgekd.recipe.train import Train


def conflicts(distill: Distill, teacher: Teacher | None, prefix: str) -> Found:
    """The losses of a student, or of a teacher that is taught: ``prefix`` leads to its ``distill`` and ``teacher``."""
    yield from peers.conflicts(distill, teacher, prefix)
    for index, loss in enumerate(() if distill.peers else distill.losses):
        if loss.needs_teacher and teacher is None:
            yield (
                f"{prefix}distill.losses[{index}].kind",
                f"{loss.kind} needs a teacher",
                f"add {prefix}teacher: {{model: torchvision:resnet18, train: {{epochs: 6}}}}, or use {{kind: task}}",
            )
        elif wrong := _named(loss, teacher):
            yield f"{prefix}distill.losses[{index}].{wrong[0]}", *wrong[1:]
    reusing = [loss.kind for loss in distill.losses if loss.reuses_teacher and loss.weight]
    if len(reusing) > 1:
        yield (
            f"{prefix}distill.losses",
            f"{' and '.join(reusing)} both copy the teacher's classifier",
            "keep one of them",
        )
    elif reusing and teacher and (prefix or teacher.ensemble):
        yield (
            f"{prefix}distill.losses",
            f"{reusing[0]} copies the classifier of one teacher that teaches the student directly",
            "use a feature loss such as fitnet here",
        )
    if all(loss.weight == 0 for loss in distill.losses):
        yield f"{prefix}distill.losses", "all weights are 0", "give at least one loss a weight above 0"
    elif teacher and not any(loss.needs_teacher and loss.weight for loss in distill.losses):
        yield (
            f"{prefix}distill.losses",
            "there is a teacher but no loss uses it",
            f"add {{kind: kd}} to the losses, or remove {prefix}teacher",
        )
    for index, loss in enumerate(distill.losses):
        yield from _times(loss, distill.epochs, f"{prefix}distill.losses[{index}]")
    if distill.teacher_cache and not distill.peers:
        yield from _teacher_cache(distill, teacher, f"{prefix}distill.teacher_cache")
    yield from budget(f"{prefix}distill", distill)


def _named(loss: Loss, teacher: Teacher | None) -> tuple[str, str, str] | None:
    """What is wrong with the teacher that a loss names, or does not name: (key, message, hint)."""
    names = tuple(teacher.members()) if teacher is not None else ()
    taught_by = teacher.members().get(loss.teacher) if teacher and loss.teacher else teacher
    if taught_by is not None and taught_by.black_box and loss.needs_teacher and loss.reads != "logits":
        return (
            "kind",
            f"{loss.kind} compares layers, and of {taught_by.black_box[1]} only the outputs are known",
            ("use kd, or another loss on logits"),
        )
    if loss.teacher is None:
        if names and loss.needs_teacher and loss.reads != "logits":
            return (
                "kind",
                f"{loss.kind} compares layers with one teacher, and there are {len(names)}",
                (f"add teacher: {names[0]}, or another of {', '.join(names)}"),
            )
        return None
    if not loss.needs_teacher:
        return "teacher", f"{loss.kind} does not use a teacher", "remove teacher"
    if not names:
        return "teacher", "there is one teacher, which needs no name", "remove teacher, or give an ensemble of teachers"
    if loss.teacher not in names:
        return "teacher", f"there is no teacher {loss.teacher!r} in the ensemble", did_you_mean(loss.teacher, names)
    return None


def _times(loss: Loss, epochs: int, key: str) -> Found:
    """A term that never begins, or never has its weight: only int8 training would have it, from its first step."""
    if not loss.weight:
        return
    end = epochs if loss.end_epoch is None else min(epochs, loss.end_epoch)
    if loss.start_epoch >= epochs:
        yield (
            f"{key}.start_epoch",
            f"this term begins at epoch {loss.start_epoch:g}, and training ends at {epochs}",
            "let it begin earlier, or train for more epochs",
        )
    elif loss.start_epoch + loss.warmup_epochs > end:
        yield (
            f"{key}.warmup_epochs",
            f"the warm-up ends at epoch {loss.start_epoch + loss.warmup_epochs:g}, but the term ends at epoch {end:g}",
            f"make its warm-up shorter: {end - loss.start_epoch:g} at most",
        )


def _teacher_cache(distill: Distill, teacher: Teacher | None, key: str) -> Found:
    """What is kept of a teacher: there has to be one, and top_k is for the logits of one."""
    if teacher is None:
        yield key, "there is no teacher", "remove teacher_cache, or add a teacher"
    elif key != "distill.teacher_cache":
        yield key, "only the student's own teacher is cached", "remove teacher_cache here; distill has one too"
    elif teacher.black_box and teacher.black_box[0] == "outputs":
        yield key, "the teacher's outputs are stored already", "remove teacher_cache"
    elif isinstance(distill.teacher_cache, TeacherCache) and distill.teacher_cache.top_k:
        if teacher.ensemble:
            yield f"{key}.top_k", "the largest logits of several teachers are not of the same classes", "remove top_k"
        for index, loss in enumerate(distill.losses):
            standardizes = getattr(loss, "standardize", False)  # Z-scores of what stands for the rest, too
            if loss.weight and loss.needs_teacher and (loss.reads_all_logits or standardizes):
                said = f"{loss.kind} with standardize" if standardizes else loss.kind
                hint = f"{loss.kind} without standardize" if not loss.reads_all_logits else "kd or dkd"
                place = f"distill.losses[{index}]"
                message = f"{said} ({place}) reads all logits, not only the largest"
                yield f"{key}.top_k", message, f"remove top_k, or use {hint} there"


def budget(section: str, train: Train) -> Found:
    """Find keys of one training budget that do not fit together."""
    if train.warmup_epochs >= train.epochs:
        yield (
            f"{section}.warmup_epochs",
            f"{train.warmup_epochs:g} epochs of warm-up do not fit into {train.epochs} epochs of training",
            "make the warm-up shorter, such as 0.5",
        )
    if train.schedule == "step" and not train.milestones:
        yield f"{section}.schedule", "a step schedule needs milestones", f"add milestones: [{max(1, train.epochs // 2)}]"
    if train.schedule != "step" and train.milestones:
        yield f"{section}.milestones", "only a step schedule has milestones", "add schedule: step, or remove milestones"
    if list(train.milestones) != sorted(set(train.milestones)):
        yield f"{section}.milestones", "milestones must rise", f"write {sorted(set(train.milestones))}"
