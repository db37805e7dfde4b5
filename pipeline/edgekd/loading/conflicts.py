"""What no single key of a recipe shows: combinations that cannot be run."""

from __future__ import annotations

from collections.abc import Iterator

from edgekd.recipe import Recipe, Train


def conflicts(recipe: Recipe) -> Iterator[tuple[str, str, str]]:
    """Yield (key, message, hint) for each impossible combination."""
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
    if distill is None:
        yield (
            "distill",
            "a student needs a training budget",
            "add distill: {epochs: 8, losses: [{kind: task}]}",
        )
    else:
        for index, loss in enumerate(distill.losses):
            if loss.needs_teacher and teacher is None:
                yield (
                    f"distill.losses[{index}].kind",
                    f"{loss.kind} needs a teacher",
                    "add teacher: {model: torchvision:resnet18, train: {epochs: 6}}, or use {kind: task}",
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
    seen: set[str] = set()
    for index, export in enumerate(recipe.export):
        if export.format in seen:
            yield f"export[{index}]", f"{export.format} is exported twice", "remove one of them"
        seen.add(export.format)
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


def _warmup(section: str, train: Train) -> tuple[str, str, str]:
    return (
        f"{section}.warmup_epochs",
        f"{train.warmup_epochs:g} epochs of warm-up do not fit into {train.epochs} epochs of training",
        "make the warm-up shorter, such as 0.5",
    )
