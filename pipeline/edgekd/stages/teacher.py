"""teacher: the teacher's weights, read from a checkpoint or trained in this run."""

from __future__ import annotations

from typing import Any

from edgekd.recipe import Recipe
from edgekd.stages import training
from edgekd.stages.context import Context

VERSION = 2
PACKAGES = training.PACKAGES


def config(recipe: Recipe, name: str) -> dict[str, Any]:
    """Model, weights or budget, seed."""
    assert recipe.teacher is not None
    value = training.model_config(recipe, "teacher")
    if recipe.teacher.train:
        value["teacher"]["train"] = recipe.teacher.train.model_dump(mode="json")
        value["seed"] = recipe.seed
    return value


def run(context: Context) -> None:
    """Write ``weights.safetensors`` (and, when trained, the last epoch's and the curve)."""
    assert context.recipe.teacher is not None
    budget = context.recipe.teacher.train
    if budget is not None:
        training.launch(context, budget, _train)
        return
    from edgekd import data, models

    teacher = context.recipe.teacher
    assert teacher.weights is not None
    classes = data.load(context.recipe.data, context.progress).classes
    model = models.build(teacher.model, teacher.args, len(classes), context.recipe.data)
    models.load_weights(model, models.weights_path(teacher.weights))
    training.save(model.state_dict(), context.out / "weights.safetensors")


def _train(fabric: Any, context: Context) -> None:
    import torch

    from edgekd import data, models
    from edgekd.distill.loop import fit
    from edgekd.distill.outputs import Facts
    from edgekd.distill.taps import Tapped
    from edgekd.distill.terms import Terms
    from edgekd.registry import losses

    recipe = context.recipe
    teacher = recipe.teacher
    assert teacher is not None
    assert teacher.train is not None
    images = data.load(recipe.data, context.progress if fabric.global_rank == 0 else None)
    model = models.build(teacher.model, teacher.args, len(images.classes), recipe.data)
    task = losses.get("task")(label_smoothing=teacher.train.label_smoothing)
    facts = Facts(len(images.classes), len(images.train))
    fitted = fit(
        fabric, Tapped(model), Terms([task], model, None, models.example(recipe.data), facts), None,
        teacher.train, images, recipe.data,
        name="teacher", seed=recipe.seed, progress=context.progress,
        snapshot=lambda network: dict(network.network.state_dict()),  # type: ignore[union-attr]  # Tapped
    )  # fmt: skip
    if fabric.global_rank == 0:
        dtype = getattr(torch, teacher.train.save_dtype)
        best = {name: v.to(dtype) if v.is_floating_point() else v for name, v in fitted.best.items()}
        training.save_fitted(context, fitted)
        training.save(best, context.out / "weights.safetensors")
