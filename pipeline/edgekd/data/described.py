"""Describe the data before a run: samples, classes, and files that are not read."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from edgekd.data import decoding, image_folders
from edgekd.data.dataset import _split
from edgekd.data.decoding import Images
from edgekd.data.splits import stratified
from edgekd.errors import printable
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
    raw, kept, _ = _split(data, progress, None)
    return Purpose(task_of(task), samples_of(data, raw.classes)), len(kept)


def described(data: Data, progress: Progress | None = None) -> list[str]:
    """Say in lines what will be read of a source, what of it will not, and what is in both train and test.

    Raises:
        DataError: As ``load``.
    """
    kind, _, rest = data.source.partition(":")
    if kind in ("torchvision", "random", "synthetic"):  # torchvision says it when it has looked for the files
        return []
    if kind == "images":
        paths = image_folders.image_files(image_folders.existing(Path(rest)))
        _check_undecoded(data, {"": paths}, progress or Silent())
        head = f"data: {data.source}: {len(paths):,} images without labels"
        return [head, *_not_read(Path(rest), paths), *decoding.dark(paths)]
    if kind != "imagefolder":
        raw, kept, held_out = _split(data, None, None)
        twins = _twins(raw.train, raw.test)
        counted = _counted(data, raw.classes, (len(kept), len(held_out), len(raw.test)))
        return [
            counted,
            *raw.notes,
            *_both([f"image {one} of test is image {other} of train" for one, other in twins], len(raw.test)),
        ]
    found = image_folders.listed(Path(rest))
    files = {split: [path for path, _ in entries] for split, entries in found.splits.items()}
    own = files.pop("val", [])
    train = [*files["train"], *own]
    _check_undecoded(data, {"train": train, "test": files["test"]}, progress or Silent())
    labels = np.array([label for _, label in found.splits["train"]], np.int64)
    held = len(own) or len(stratified(labels, data.val_fraction)[1])
    same = [f"{one} is {other}" for one, other in image_folders.twins(train, files["test"])]
    return [
        _counted(data, found.classes, (len(train) - held, held, len(files["test"]))),
        *found.notes,
        *_not_read(Path(rest), found.paths),
        *_nested(found),
        *decoding.dark(found.paths),
        *_both(same, len(files["test"])),
    ]


def _check_undecoded(data: Data, files: Mapping[str, Sequence[Path]], progress: Progress) -> None:
    """Look through the splits that are decoded while they are used; of the others, decoding finds what is damaged."""
    for split, paths in files.items():
        if decoding.on_demand(len(paths), data):
            decoding.check_undecoded(paths, split or data.source, progress)


def _counted(data: Data, classes: Sequence[str], counts: tuple[int, int, int]) -> str:
    classes = [str(name) for name in data.class_order or classes]
    names = f"{', '.join(classes[:6])}{', …' if len(classes) > 6 else ''}"
    train, val, test = (f"{count:,}" for count in counts)
    images = f"{train} images for training, {val} for validation, {test} for the test"
    return f"data: {data.source}: {len(classes)} classes ({names}); {images}"


def _not_read(root: Path, read: Sequence[Path]) -> list[str]:
    found = image_folders.not_read(root, {*read})
    return [f"  not read: {', '.join(found)}"] if found else []


def _nested(found: image_folders.Listing) -> list[str]:
    images = [item for entries in found.splits.values() for item in entries]
    deep = [(path, found.classes[label]) for path, label in images if printable(path.parent.name) != found.classes[label]]
    if not deep:
        return []
    path, name = deep[0]
    return [f"  {len(deep)} images are in folders below a class, and of that class: {path.parent} is {name}"]


def _both(same: Sequence[str], count: int) -> list[str]:
    if not same:
        return []
    return [
        f"  warning: {len(same)} of {count} test images are training images too ({same[0]}): right on them proves nothing\n"
        "    → take them out of one of the two"
    ]


def _twins(train: Images, test: Images) -> list[tuple[int, int]]:
    """Test images that are training images too, pixel for pixel: (test, train)."""
    known = {hashlib.sha256(train[i].tobytes()).digest(): i for i in range(len(train))}
    digests = (hashlib.sha256(test[i].tobytes()).digest() for i in range(len(test)))
    return [(index, known[digest]) for index, digest in enumerate(digests) if digest in known]
