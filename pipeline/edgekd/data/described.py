"""Describe the data before a run: samples, classes, and files that are not read."""

from __future__ import annotations

import hashlib

from edgekd.data.dataset import split
from edgekd.data.decoding import Images
from edgekd.data.sources import summary
from edgekd.data.sources.base import Described, source_of
from edgekd.progress import Progress, Silent
from edgekd.recipe.data import Data
from edgekd.task.base import Purpose, task_of
from edgekd.task.image_classification import samples_of


def known(data: Data, task: str, progress: Progress | None = None) -> tuple[Purpose, int]:
    """Return what a network of the data is for, and the number of samples that are trained on, without looking at images.

    Args:
        data: The recipe's section.
        task: The recipe's task.
        progress: Where to report.

    Raises:
        DataError: As ``load``.
    """
    raw, kept, _ = split(data, progress, None)
    return Purpose(task_of(task), samples_of(data, raw.classes)), len(kept)


def described(data: Data, progress: Progress | None = None) -> list[str]:
    """Say in lines what will be read of a source, what of it will not, and what is in both train and test.

    Raises:
        DataError: As ``load``.
    """
    source, place = source_of(data)
    if isinstance(source, Described):
        return source.described(place, data, progress or Silent())
    raw, kept, held_out = split(data, None, None)
    same = [f"image {one} of test is image {other} of train" for one, other in _twins(raw.train, raw.test)]
    counted = summary.counted(data, raw.classes, (len(kept), len(held_out), len(raw.test)))
    return [counted, *raw.notes, *summary.both(same, len(raw.test))]


def _twins(train: Images, test: Images) -> list[tuple[int, int]]:
    """Test images that are training images too, pixel for pixel: (test, train)."""
    known = {hashlib.sha256(train[i].tobytes()).digest(): i for i in range(len(train))}
    digests = (hashlib.sha256(test[i].tobytes()).digest() for i in range(len(test)))
    return [(index, known[digest]) for index, digest in enumerate(digests) if digest in known]
