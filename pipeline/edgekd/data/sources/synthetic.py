"""Images that a stage makes from a network: instead of a source, or of a source's training images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgekd.data.image_folders import held_out
from edgekd.data.sources.base import UNLABELLED_TEST, Raw, unlabelled
from edgekd.errors import DataError
from edgekd.progress import Progress
from edgekd.recipe.data import Data
from edgekd.registry import sources

MADE = "images.npy"  # what the stage synthesize writes


@sources.register("synthetic")
class Synthetic:
    """No images: all are made from the teacher."""

    form = "synthetic"
    summary = "no images: all are made from the teacher"
    labelled = False
    pictures = False
    is_path = False
    opens_libraries = False

    def read(self, place: str, data: Data, progress: Progress) -> Raw:
        """Return blank images, which stand for those that are not made yet."""
        return whole(data, None)

    def files(self, place: str) -> Sequence[tuple[str, Path]]:
        """Return nothing."""
        return []

    def described(self, place: str, data: Data, progress: Progress) -> list[str]:
        """Return nothing."""
        return []


def whole(data: Data, made: Path | None) -> Raw:
    """Return synthesized images alone, a fixed part of them as the test split."""
    images = synthesized(data, made)
    test, train = held_out(range(len(images)), UNLABELLED_TEST)
    return unlabelled(images[train], images[test], data)


def synthesized(data: Data, made: Path | None) -> NDArray[np.uint8]:
    """Return the images that the stage synthesize made, N×C×H×W; blank ones before they are made."""
    if made is not None:
        images: NDArray[np.uint8] = np.load(made / MADE, allow_pickle=False)
        return images
    if data.made is None:
        raise DataError(f"{data.source} is not synthesized", "add data.synthetic: true")
    shape = (data.made.images, 1 if data.made.grey else data.channels, *data.size)
    return np.broadcast_to(np.uint8(0), shape)
