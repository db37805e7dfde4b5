"""Describe the data before a run: samples, classes, and files that are not read."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np

from edgekd.data.dataset import split
from edgekd.data.sources import summary
from edgekd.data.sources.base import Described, Inputs, source_of
from edgekd.progress import Progress, Silent
from edgekd.recipe.data import Data
from edgekd.task.base import Purpose
from edgekd.task.image_classification import IMAGE, KIND


def known(data: Data, task: str, progress: Progress | None = None) -> tuple[Purpose, int]:
    """Return what a network of the data is for, and the number of samples that are trained on, without looking at images.

    Args:
        data: The recipe's section.
        task: The recipe's task.
        progress: Where to report.

    Raises:
        DataError: As ``load``.
    """
    found = split(data, progress, None, task=task)
    return found.purpose, len(found.kept)


def described(data: Data, progress: Progress | None = None, *, task: str = KIND) -> list[str]:
    """Say in lines what will be read of a source, what of it will not, and what is in both train and test.

    Args:
        data: The recipe's section.
        progress: Where to report.
        task: The recipe's task.

    Raises:
        DataError: As ``load``.
    """
    source, place = source_of(data)
    if isinstance(source, Described):
        return source.described(place, data, progress or Silent())
    found = split(data, None, None, task=task)
    raw, word = found.raw, "image" if IMAGE in found.raw.train else "sample"
    same = [f"{word} {one} of test is {word} {other} of train" for one, other in _twins(raw.train, raw.test)]
    counts = (len(found.kept), len(found.held_out), len(raw.y_test))
    return [summary.counted(data, raw.classes, counts, word), *raw.notes, *summary.both(same, counts[2], word)]


def _twins(train: Inputs, test: Inputs) -> list[tuple[int, int]]:
    """Return test samples that are training samples too, byte for byte: (test, train)."""
    known = {digest: index for index, digest in enumerate(_digests(train))}
    return [(index, known[digest]) for index, digest in enumerate(_digests(test)) if digest in known]


def _digests(inputs: Inputs) -> Iterator[bytes]:
    for rows in zip(*([each[i] for i in range(len(each))] for each in inputs.values()), strict=True):
        yield hashlib.sha256(b"".join(np.ascontiguousarray(row).tobytes() for row in rows)).digest()
