"""Conflicts between several keys of a recipe: combinations that cannot be run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from edgekd.errors import did_you_mean
from edgekd.loading.conflicts import gates, peers, task, views
from edgekd.loading.conflicts.labels import unlabelled
from edgekd.loading.conflicts.tune import searched
from edgekd.recipe import Recipe
from edgekd.recipe.distill import Distill, TeacherCache
from edgekd.recipe.export import INT8_IO
from edgekd.recipe.gates import Gate, Gates
from edgekd.recipe.loss import Loss
from edgekd.recipe.quantize import Qat
from edgekd.recipe.teacher import Teacher
from edgekd.recipe.train import Train
from edgekd.registry import exporters
from edgekd.results.gates import QUALITY
from edgekd.runtimes import tensorflow

Found = Iterator[tuple[str, str, str]]


def conflicts(recipe: Recipe) -> Found:
    """Yield (key, message, hint) for each impossible combination."""
    yield from _sections(recipe)
    yield from _comparisons(recipe)
    yield from _trained_student(recipe)
    yield from _shipped(recipe)
    yield from _images(recipe)
    teachers = [] if recipe.teacher is None else list(_places(recipe.teacher, "teacher"))
    yield from unlabelled(recipe, teachers)
    yield from task.conflicts(recipe, teachers)
    yield from _precisions(recipe)
    yield from views.conflicts(recipe)
    yield from peers.alike(recipe)
    yield from gates.of_metrics(recipe)
    yield from searched(recipe, conflicts)


def _sections(recipe: Recipe) -> Found:
    """What one section needs of another."""
    teacher, student, distill = recipe.teacher, recipe.student, recipe.distill
    if teacher is None and student is None:
        yield (
            "student",
            "there is no student and no teacher",
            "add student: {model: torchvision:mobilenet_v2}",
        )
    if teacher is not None:
        yield from _teacher(teacher, "teacher")
    if student is None:
        for key in ("distill", "quantize", "export", "profile", "tune"):
            if getattr(recipe, key):
                yield key, "needs a student", "add student: {model: torchvision:mobilenet_v2}, or remove this section"
        return
    if distill is not None:
        yield from _losses(distill, teacher, "")
        qat = recipe.quantize if isinstance(recipe.quantize, Qat) else None
        if qat and not qat.self_distill and not any(loss.lasts() for loss in distill.losses):
            yield (
                "distill.losses",
                "no term is left for quantization-aware training: each has an end_epoch, weight 0, or reads preactivations",
                "add {kind: task} or {kind: kd}, or quantize: {self_distill: true}",
            )
    auto = recipe.quantize is not None and recipe.quantize.keep_float == "auto"
    for name in ("accuracy_drop", "expected_drop", "agreement", "sqnr_db") if auto else ():
        quality = getattr(recipe.gates, name)
        if quality is not None and (quality.max if name.endswith("drop") else quality.min) is None:
            side = "max: 0.01" if name.endswith("drop") else "min: 0.95" if name == "agreement" else "min: 15"
            yield (
                f"gates.{name}",
                "quantize: {keep_float: auto} needs a limit to reach, and this gate has none",
                f"write {name}: {{{side}}}, or name the layers: keep_float: [features.0]",
            )
    seen: set[tuple[str, str | None]] = set()
    for index, export in enumerate(recipe.export):
        if (export.format, export.precision) in seen:
            yield f"export[{index}]", f"{export.format} is exported twice", "remove one of them"
        seen.add((export.format, export.precision))
        if export.io == "int8" and export.format not in INT8_IO:
            yield (
                f"export[{index}].io",
                f"{export.format} has float32 input and output, always",
                "only tflite can have int8; remove io here",
            )
        int8 = (export.precision or ("int8" if recipe.quantize else "float32")) == "int8"
        if export.activations and not (export.format == "onnx" and int8):
            yield f"export[{index}].activations", "only an int8 ONNX file has a choice of activations", "remove it here"
        if export.zero_points and not (export.format == "openvino" and int8):
            yield f"export[{index}].zero_points", "only an int8 OpenVINO file has a choice of zero points", "remove it here"
        if export.io == "int8" and recipe.quantize is None:
            yield f"export[{index}].io", "int8 io needs a quantized model", "add quantize: {method: qat}"
    if recipe.profile and not recipe.export:
        yield "profile", "there is nothing to profile: nothing is exported", "add export: [onnx]"
    named = recipe.profile.names if recipe.profile else ()
    for index, device in enumerate(named):
        if device in named[:index]:
            what = f"two devices are called {device}"
            yield f"profile.devices[{index}]", what, "remove one of them, or give its file another name"
    compresses = recipe.quantize is not None or any(item.precision not in (None, "float32") for item in recipe.export)
    for name, gate in recipe.gates.limits():
        if gate.level == "off":
            continue
        profiled = recipe.profile.names if recipe.profile else ()
        place = _place(recipe.gates, name, gate)
        if name.startswith(("latency", "peak_memory")) and gate.device not in profiled:
            meant = did_you_mean(gate.device, profiled)
            devices = ", ".join((*(recipe.profile.devices if recipe.profile else ()), gate.device))
            yield (
                f"{place}.device",
                f"nothing is profiled on {gate.device}, so this gate would have no figure",
                meant if meant.startswith("did you mean") else f"write profile: {{devices: [{devices}]}}",
            )
        elif gate.formats and not name.startswith(("latency", "peak_memory")):
            yield f"{place}.formats", "only a latency or memory gate is for single formats", "remove it here"
        elif not recipe.export and not name.startswith("parity"):
            yield f"gates.{name}", "nothing is exported, so this gate would have no figure", "add export: [onnx]"
        elif name in QUALITY and not compresses:
            yield (
                f"gates.{name}",
                "this gate compares compressed files with float, and nothing is compressed",
                "add quantize: {method: qat}",
            )
        elif name == "size_ratio" and recipe.quantize is None:
            yield (
                f"gates.{name}",
                "this gate compares int8 with float, and nothing is quantized",
                "add quantize: {method: qat}",
            )


def _place(gates: Gates, name: str, gate: Gate) -> str:
    """Return the key of a gate, which may be one of several of its name."""
    given = getattr(gates, name)
    number = next((index for index, one in enumerate(given) if one is gate), 0) if isinstance(given, tuple) else None
    return f"gates.{name}" if number is None else f"gates.{name}[{number}]"


def _comparisons(recipe: Recipe) -> Found:
    """What stands beside the student: its like of other seeds and other losses."""
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


def _teacher(teacher: Teacher, key: str) -> Found:
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
        yield from _budget(f"{key}.train", teacher.train)
    if teacher.distill is not None:
        yield from _losses(teacher.distill, teacher.teacher, f"{key}.")
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
        yield from _teacher(teacher.teacher, f"{key}.teacher")


def _black_box(teacher: Teacher, key: str) -> Found:
    """A file of which only the outputs are known."""
    for name in ("args", "weights", "train", "distill", "teacher"):
        if getattr(teacher, name):
            yield f"{key}.{name}", "a black box is used as it is", f"remove {name}"
    if teacher.seed is not None:
        yield f"{key}.seed", "this teacher is trained already, so the seed has no effect", "remove seed"
    assert teacher.black_box is not None
    kind = teacher.black_box[0]
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
    """Several teachers in the place of one."""
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
        yield from _teacher(member, place)


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


def _places(teacher: Teacher, key: str) -> Iterator[tuple[str, Teacher]]:
    """A teacher and all behind it, with their places in the recipe."""
    yield key, teacher
    if teacher.teacher is not None:
        yield from _places(teacher.teacher, f"{key}.teacher")
    for index, member in enumerate(teacher.ensemble or ()):
        yield from _places(member, f"{key}.ensemble[{index}]")


def _losses(distill: Distill, teacher: Teacher | None, prefix: str) -> Found:
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
    yield from _budget(f"{prefix}distill", distill)


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


def _shipped(recipe: Recipe) -> Found:
    """A student that ends in a part of the teacher has only its output."""
    reused = [loss.kind for loss in (recipe.distill.losses if recipe.distill else ()) if loss.reuses_teacher and loss.weight]
    if reused and recipe.student is not None and recipe.student.outputs != "primary":
        what = f"with {reused[0]} the student ends in the teacher's classifier, which has one output"
        yield "student.outputs", what, f"remove outputs, or the loss {reused[0]}"


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
    """Numbers of a normalization that do not fit, and images that stored outputs do not know."""
    data = recipe.data
    for _, section in _places(recipe.teacher, "teacher") if recipe.teacher else ():
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


def _budget(section: str, train: Train) -> Found:
    """What keys of one training budget need of each other."""
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
