"""Noise: enough to trace a network and to compare files with it, and nothing more."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgekd.data.sources.base import Raw, unlabelled
from edgekd.progress import Progress
from edgekd.recipe.data import Data
from edgekd.registry import sources

COUNTS = (16, 32)  # train, test


@sources.register("random")
class Random:
    """Random images, the same in every run."""

    form = "random"
    summary = "noise without labels, to compare files with"
    labelled = False
    pictures = False
    is_path = False
    opens_libraries = False

    def read(self, place: str, data: Data, progress: Progress) -> Raw:
        """Draw them."""
        random = np.random.default_rng(0)
        shape = (data.channels, *data.size)
        train, test = (random.integers(0, 256, (count, *shape), np.uint8) for count in COUNTS)
        return unlabelled(train, test, data)

    def files(self, place: str) -> Sequence[tuple[str, Path]]:
        """Return nothing."""
        return []

    def described(self, place: str, data: Data, progress: Progress) -> list[str]:
        """Return nothing."""
        return []
