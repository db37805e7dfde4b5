"""Data sets of torchvision with a train and a test split."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgekd import cache
from edgekd.data import decoding
from edgekd.data.sources.base import Raw
from edgekd.errors import DataError, did_you_mean
from edgekd.models.torchvision import import_torchvision
from edgekd.progress import Progress
from edgekd.recipe.data import Data
from edgekd.registry import sources
from edgekd.task.image_classification import IMAGE

if TYPE_CHECKING:
    from PIL import Image


@sources.register("torchvision")
class Torchvision:
    """A data set of torchvision, downloaded where it is not there."""

    form = "torchvision:NAME"
    summary = "any torchvision data set with a train and a test split, such as torchvision:CIFAR100"
    labelled = True
    pictures = True
    is_path = False
    opens_libraries = True

    def read(self, place: str, data: Data, progress: Progress) -> Raw:
        """Open it.

        Raises:
            DataError: torchvision has none of this name, or it cannot be had.
        """
        return _read(place, data, progress)

    def files(self, place: str) -> Sequence[tuple[str, Path]]:
        """Return nothing: torchvision checks its downloads itself."""
        return []

    def version(self, place: str) -> str:
        """Return its name and torchvision's version."""
        return f"{place} {version('torchvision')}"

    def described(self, place: str, data: Data, progress: Progress) -> list[str]:
        """Return nothing: it is said when torchvision has looked for the files."""
        return []


def _read(name: str, data: Data, progress: Progress) -> Raw:
    datasets = import_torchvision().datasets
    known = [cls for cls in datasets.__all__ if hasattr(getattr(datasets, cls), "__getitem__")]
    if name not in known:
        raise DataError(f"torchvision has no data set {name!r}", did_you_mean(name, known))
    root = Path(data.root).expanduser() if data.root else cache.user_folder() / "torchvision"
    builder = getattr(datasets, name)
    parts = []
    for split in ("train", "test"):
        part = _built(builder, root, split, data.download)
        parts.append(part)
        progress.say(f"  {name} {split}: {len(part)} images")
    images = [
        decoding.kept_in_memory(len(part), partial(_image_of, part), data, split, progress)
        for part, split in zip(parts, ("train", "test"), strict=True)
    ]
    labels = [_labels(part) for part in parts]
    names = getattr(parts[0], "classes", None) or range(int(labels[0].max()) + 1)
    return Raw({IMAGE: images[0]}, labels[0], {IMAGE: images[1]}, labels[1], tuple(str(item) for item in names))


def _image_of(part: Any, index: int) -> Image.Image:
    image: Image.Image = part[index][0]
    return image


def _built(builder: Any, root: Path, split: str, download: bool) -> Any:
    """Data sets name their splits in two ways: ``train=True`` or ``split="train"``; both are tried."""
    failures = []
    for keywords in ({"train": split == "train"}, {"split": split}):
        try:
            return builder(root=str(root), download=download, **keywords)
        except TypeError as error:  # it has no such keyword
            failures.append(error)
        except Exception as error:  # torchvision raises whatever its downloader met
            hint = "check the network" if download else "set data.download: true"
            raise DataError(
                f"torchvision:{builder.__name__} could not be had in {root}: {error}",
                f"{hint}, or put the files there yourself and set data.root",
            ) from error
    raise DataError(
        f"torchvision:{builder.__name__} has no train and test split for classification: {failures[-1]}",
        "use imagefolder:DIR for it",
    )


def _labels(part: Any) -> NDArray[np.int64]:
    for name in ("targets", "labels", "_labels"):
        values = getattr(part, name, None)
        if values is not None and len(values) == len(part):
            return np.asarray(values, np.int64)
    return np.array([part[i][1] for i in range(len(part))], np.int64)
