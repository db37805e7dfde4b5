"""edgekd's own sources in the suite for everyone's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from tests.conftest import make_arrays

from edgekd.registry import sources
from edgekd.testing import SourceSuite

NOT_HERE = {
    "fashion-mnist": "needs a Debian package; tests/unit/data/test_sources.py reads it where it is installed",
    "torchvision": "needs downloads; tests/unit/data/test_sources.py reads one that is made there",
    "synthetic": "has no samples before a stage makes them; tests/unit/stages covers it",
}


def pictures(folder: Path, count: int) -> None:
    folder.mkdir(parents=True)
    for number in range(count):
        noise = np.random.default_rng(abs(hash((folder.parts[-2:], number))) % 2**32).integers(0, 256, (16, 16, 3), np.uint8)
        Image.fromarray(noise).save(folder / f"{number}.png")


class TestNpz(SourceSuite):
    name = "npz"
    data = {"image_size": 16}  # noqa: RUF012  # as they are: to resize, another process imports torchvision

    def make(self, folder: Path) -> str:
        np.savez(folder / "data.npz", **make_arrays())
        return str(folder / "data.npz")


class TestImageFolder(SourceSuite):
    name = "imagefolder"
    data = {"image_size": 16}  # noqa: RUF012

    def make(self, folder: Path) -> str:
        for split, count in (("train", 6), ("test", 2)):
            for label in ("ant", "bee"):
                pictures(folder / "images" / split / label, count)
        return str(folder / "images")


class TestImages(SourceSuite):
    name = "images"
    data = {"classes": 4, "image_size": 16}  # noqa: RUF012

    def make(self, folder: Path) -> str:
        pictures(folder / "images" / "all", 12)
        return str(folder / "images")


class TestRandom(SourceSuite):
    name = "random"
    data = {"classes": 4}  # noqa: RUF012


class TestFashionMnistMini(SourceSuite):
    name = "fashion-mnist-mini"
    data = {"image_size": 28}  # noqa: RUF012


def test_every_source_is_tried_or_says_why_not() -> None:
    tried = {suite.name for suite in globals().values() if isinstance(suite, type) and issubclass(suite, SourceSuite)}
    assert tried - {""} | NOT_HERE.keys() == {*sources.names()}
