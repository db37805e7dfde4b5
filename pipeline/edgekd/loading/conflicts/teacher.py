"""Conflicts of a teacher: it is given, trained or taught, a black box, or an ensemble."""

from __future__ import annotations

from collections.abc import Iterator

from edgekd.loading.conflicts import losses
from edgekd.loading.conflicts.found import Found
from edgekd.recipe.base import need
from edgekd.recipe.teacher import Teacher
from edgekd.runtimes import tensorflow


def conflicts(teacher: Teacher, key: str) -> Found:
    """A teacher is given, trained, or taught by a teacher of its own; ``key`` is its place in the recipe."""
    if teacher.ensemble is not None:
        yield from _ensemble(teacher, key)
        return
    for name in ("combine", "temperature"):
        if getattr(teacher, name) != Teacher.model_fields[name].default:
            yield f"{key}.{name}", "there is one teacher, and nothing to combine", "remove it, or give an ensemble"
    if teacher.name is not None and not key.endswith("]"):
        yield f"{key}.name", "only a teacher of an ensemble has a name", "remove name"
    if teacher.black_box is not None:
        yield from _black_box(teacher, key)
        return
    for name in ("signature", "mean", "std"):
        if getattr(teacher, name) != Teacher.model_fields[name].default:
            yield f"{key}.{name}", "only a black box has this option", "remove it, or give model: onnx:FILE"
    for name in ("outputs", "classes"):
        if teacher.budget is not None and getattr(teacher, name) != Teacher.model_fields[name].default:
            yield f"{key}.{name}", "a network that is trained here returns logits, in the order of the data", "remove it"
    given = [name for name in ("weights", "train", "distill") if getattr(teacher, name) is not None]
    if not given or {"train", "distill"} <= {*given}:
        yield (
            key,
            "train and distill are given" if given else "none of weights, train and distill is given",
            "give weights: FILE for a trained teacher, train: {epochs: N} to train it here (from weights, if given), "
            "or distill: {epochs: N, losses: [{kind: kd}]} to have it taught by a teacher of its own",
        )
    if teacher.train:
        yield from losses.budget(f"{key}.train", teacher.train)
    if teacher.distill is not None:
        yield from losses.conflicts(teacher.distill, teacher.teacher, f"{key}.")
    elif teacher.teacher is not None:
        yield (
            f"{key}.teacher",
            "there is a teacher of the teacher, and nothing is distilled from it",
            f"write {key}.distill: {{epochs: 8, losses: [{{kind: kd}}]}} instead of {given[-1] if given else 'train'}, "
            "or remove this teacher",
        )
    if teacher.seed is not None and teacher.budget is None:
        yield f"{key}.seed", "this teacher is trained already, so the seed has no effect", "remove seed"
    if teacher.teacher is not None:
        yield from conflicts(teacher.teacher, f"{key}.teacher")


def _black_box(teacher: Teacher, key: str) -> Found:
    """A file of which only the outputs are known."""
    for name in ("args", "weights", "train", "distill", "teacher"):
        if getattr(teacher, name):
            yield f"{key}.{name}", "a black box is used as it is", f"remove {name}"
    if teacher.seed is not None:
        yield f"{key}.seed", "this teacher is trained already, so the seed has no effect", "remove seed"
    kind, _ = need(teacher.black_box, "black box among its teachers")
    if kind in tensorflow.FORMATS and not tensorflow.installed():
        yield (
            f"{key}.model",
            f"{kind} files are run by TensorFlow, which is not installed",
            "pip install 'edgekd[tensorflow]'",
        )
    if teacher.signature is not None and kind != "savedmodel":
        yield f"{key}.signature", "only a savedmodel has signatures", "remove it"
    if kind == "outputs":
        for name in ("mean", "std"):
            if getattr(teacher, name) is not None:
                yield f"{key}.{name}", "stored outputs take no images", f"remove {name}"
        if key != "teacher":
            yield f"{key}.model", "stored outputs can only teach the student", "give a file that can be run"
    elif (teacher.mean is None) != (teacher.std is None):
        name, other = ("mean", "std") if teacher.std is None else ("std", "mean")
        yield f"{key}.{name}", f"{name} is given without {other}", f"add {other}, or remove {name}"


def _ensemble(teacher: Teacher, key: str) -> Found:
    """Several teachers instead of one."""
    for name in ("model", "args", "weights", "train", "distill", "teacher", "seed", "signature", "mean", "std", "classes"):
        if getattr(teacher, name):
            yield f"{key}.{name}", "this belongs to one teacher, and there is an ensemble", "move it into the ensemble"
    if len(teacher.ensemble or ()) < 2:
        yield f"{key}.ensemble", "an ensemble has two teachers at least", f"add another, or write {key}: {{model: …}}"
    names = [member.name for member in teacher.ensemble or () if member.name]
    for index, member in enumerate(teacher.ensemble or ()):
        place = f"{key}.ensemble[{index}]"
        if member.ensemble is not None:
            yield f"{place}.ensemble", "an ensemble in an ensemble", "list all teachers in one"
            continue
        if member.name and names.count(member.name) > 1:
            yield f"{place}.name", f"there are {names.count(member.name)} teachers called {member.name}", "give each a name"
        yield from conflicts(member, place)


def places(teacher: Teacher, key: str) -> Iterator[tuple[str, Teacher]]:
    """A teacher and all behind it, with their places in the recipe."""
    yield key, teacher
    if teacher.teacher is not None:
        yield from places(teacher.teacher, f"{key}.teacher")
    for index, member in enumerate(teacher.ensemble or ()):
        yield from places(member, f"{key}.ensemble[{index}]")
