"""The operators of the student that the requested formats cannot have, found before anything is trained: by one trace."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from edgekd.assembly import graphs, networks
from edgekd.progress import Progress
from edgekd.recipe import Recipe

if TYPE_CHECKING:
    from torch import nn

    from edgekd.exporting.lacks import Lack
    from edgekd.task.named import Inputs


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
    from edgekd.exporting.capture import captured
    from edgekd.exporting.lacks import lacks
    from edgekd.quantization.fold import fold

    if not recipe.export or recipe.student is None:
        return ()
    with _student(recipe, progress) as (student, example):
        graph = fold(student, example)
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
    from edgekd.quantization.qat import prepare

    if recipe.student is None or recipe.quantize is None or not recipe.quantize.named_float():
        return
    with _student(recipe, progress) as (student, example):
        prepare(student, example, keep_float=recipe.quantize.named_float())


@contextmanager
def _student(recipe: Recipe, progress: Progress | None) -> Iterator[tuple[nn.Module, Inputs]]:
    """The student with random weights, and an input of it; nothing that is drawn or warned of inside is seen outside."""
    import torch

    from edgekd.data import described

    purpose, _ = described.known(recipe.data, recipe.task, progress)
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the stages will say it
        torch.default_generator.manual_seed(recipe.seed)
        yield networks.student(recipe, purpose, whole=True), graphs.example(purpose)


def impossible(recipe: Recipe, found: tuple[Lack, ...]) -> bool:
    """Return whether no requested format can have the student."""
    return bool(recipe.export) and {export.format for export in recipe.export} <= {lack.format for lack in found}
