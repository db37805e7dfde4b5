"""The operators of the student that the requested formats cannot have, found before anything is trained: by one trace."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from edgekd.progress import Progress
from edgekd.recipe import Recipe
from edgekd.stages import training

if TYPE_CHECKING:
    from edgekd.export.lacks import Lack


def lacking(recipe: Recipe, progress: Progress | None = None) -> tuple[Lack, ...]:
    """Trace the student with random weights and return what a format of ``export`` cannot have.

    Empty for a recipe without files.

    Args:
        recipe: The recipe.
        progress: Where to report.

    Raises:
        ModelError: The student cannot be built.
        DataError: The data cannot be opened.
        QuantizeError: The student cannot be traced, so that no format can have it.
    """
    import torch

    from edgekd import data, models
    from edgekd.export.capture import captured
    from edgekd.export.lacks import lacks
    from edgekd.quantize.fold import fold

    if not recipe.export or recipe.student is None:
        return ()
    classes, _ = data.counts(recipe.data, progress)
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the stages will say it
        torch.default_generator.manual_seed(recipe.seed)
        student = training.rewritten(recipe, classes).model
        graph = fold(student, models.example(recipe.data))
        with captured(None, "reading the converters' tables"):
            return lacks(graph, [export.format for export in recipe.export])


def check_keep_float(recipe: Recipe, progress: Progress | None = None) -> None:
    """Quantize the student with random weights, if the recipe names layers to leave in float, and see that it has them.

    Args:
        recipe: The recipe.
        progress: Where to report.

    Raises:
        ModelError: The student cannot be built.
        DataError: The data cannot be opened.
        QuantizeError: It has no such layer, or cannot be quantized.
    """
    import torch

    from edgekd import data, models
    from edgekd.quantize.qat import prepare

    if recipe.student is None or recipe.quantize is None or not recipe.quantize.named_float():
        return
    classes, _ = data.counts(recipe.data, progress)
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the stages will say it
        torch.default_generator.manual_seed(recipe.seed)
        student = training.rewritten(recipe, classes).model
        prepare(student, models.example(recipe.data), keep_float=recipe.quantize.named_float())


def impossible(recipe: Recipe, found: tuple[Lack, ...]) -> bool:
    """Whether no requested format can have the student."""
    return bool(recipe.export) and {export.format for export in recipe.export} <= {lack.format for lack in found}
