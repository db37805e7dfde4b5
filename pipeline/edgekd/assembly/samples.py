"""The samples that a stage trains with, labelled by the teacher where they have no labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from edgekd.assembly.context import Context
from edgekd.progress import Progress
from edgekd.recipe import Recipe

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

    from edgekd.data.dataset import DataSet
    from edgekd.distill.outputs import Facts


_JUDGED = "judged.npy"  # classes that the teacher finds in the validation images, where they have no labels


FED = 8
"""Test samples that every artifact is fed in turn on a device: a handful, as a figure on one would be that one's."""


def spread(total: int, count: int) -> NDArray[np.int64]:
    """Return ``count`` places from all over ``total``."""
    import numpy as np

    return np.unique(np.linspace(0, total - 1, min(count, total)).round().astype(np.int64))


def made(recipe: Recipe) -> tuple[str, ...]:
    """The stage that makes the images of a recipe; empty where they are given."""
    return ("synthesize",) if recipe.data.made else ()


def images(context: Context, progress: Progress | None = None) -> DataSet:
    """The data as a stage sees it, with the images and the judgements that stages before it have made."""
    import numpy as np

    from edgekd.data import dataset

    recipe = context.recipe
    found = dataset.load(recipe.data, progress, context.inputs.get("synthesize"), task=recipe.task)
    judged = context.inputs["distill"] / _JUDGED if "distill" in context.inputs else None
    return dataset.judged(found, np.load(judged, allow_pickle=False)) if judged and judged.exists() else found


def judge(teacher: nn.Module | None, found: DataSet, seen: Sequence[DataSet], context: Context, fabric: Any) -> DataSet:
    """The data with what the teacher says of the validation images, where nothing else does; kept for later stages.

    ``seen`` is what the teacher sees, where that is not ``found``.
    """
    if found.train.labelled or teacher is None:
        return found
    import numpy as np

    from edgekd.data import dataset

    fabric.to_device(teacher)
    empty = not len(found.val)
    said = np.zeros(0, np.int64) if empty else val_logits(teacher, None, seen or [found], fabric.device).argmax(1)
    if fabric.global_rank == 0:
        np.save(context.out / _JUDGED, said)
    return dataset.judged(found, said)


def facts(found: DataSet) -> Facts:
    """Return what the losses of a training may know of its data."""
    import torch

    from edgekd.distill.outputs import Facts

    targets = torch.from_numpy(found.train.targets)
    return Facts(len(found.classes), len(found.train), targets, found.purpose.task.criterion)


def val_logits(teacher: nn.Module, name: str | None, views: Sequence[DataSet], device: Any) -> NDArray[np.float32]:
    """Logits on the validation split, N×classes, of a teacher, or of the one called ``name``, that sees ``views``."""
    from edgekd.distill import looks, teachers

    network = teachers.member(teacher, name)
    if isinstance(network, teachers.Stored):
        return network.val_logits.numpy()
    if name is not None and len(views) > 1:  # each sees its own
        views = [views[list(cast(teachers.Ensemble, teacher).members).index(name)]]
    return looks.logits(network, views, device).float().cpu().numpy()
