"""Fashion-MNIST: a sixth of it, which ships with edgekd, and the whole, which a package of Debian brings."""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgekd import reads
from edgekd.data.sources import npz
from edgekd.data.sources.base import Raw, from_arrays
from edgekd.errors import DataError
from edgekd.progress import Progress
from edgekd.recipe.data import Data
from edgekd.registry import sources
from edgekd.resources import find

CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
FOLDER = Path("/usr/share/datasets/fashion-mnist")
LICENSE = "MIT, © 2017 Zalando SE"


@sources.register("fashion-mnist-mini")
class FashionMnistMini:
    """A part of Fashion-MNIST that ships with edgekd."""

    form = "fashion-mnist-mini"
    summary = "10,000 + 2,000 images, ships with edgekd"
    labelled = True
    pictures = True
    is_path = False
    opens_libraries = False

    def read(self, place: str, data: Data, progress: Progress) -> Raw:
        """Open it."""
        return npz.read(_shipped(), data, "reinstall edgekd: this file belongs to it", LICENSE)

    def files(self, place: str) -> Sequence[tuple[str, Path]]:
        """Return the archive."""
        return [("images", _shipped())]


@sources.register("fashion-mnist")
class FashionMnist:
    """The whole of Fashion-MNIST, from Debian's package."""

    form = "fashion-mnist"
    summary = "60,000 + 10,000 images, Debian package dataset-fashion-mnist"
    labelled = True
    pictures = True
    is_path = False
    opens_libraries = False

    def read(self, place: str, data: Data, progress: Progress) -> Raw:
        """Open its four files.

        Raises:
            DataError: One is missing or damaged.
        """
        folder = _folder()
        arrays = {
            f"{axis}_{split}": read_idx(folder / f"{stem}-{what}.gz")
            for split, stem in (("train", "train"), ("test", "t10k"))
            for axis, what in (("x", "images-idx3-ubyte"), ("y", "labels-idx1-ubyte"))
        }
        return from_arrays(arrays, data, CLASSES, LICENSE)

    def files(self, place: str) -> Sequence[tuple[str, Path]]:
        """Return its four files."""
        return [(path.name, path) for path in sorted(_folder().glob("*.gz"))]


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Read one gzipped IDX file of uint8, the format of MNIST.

    Raises:
        DataError: The file is missing, truncated or of another format.
    """
    try:
        with reads.in_key(path), gzip.open(path, "rb") as file:
            raw = file.read()
        magic, *_ = struct.unpack(">HBB", raw[:4])
        kind, rank = raw[2], raw[3]
        shape = struct.unpack(f">{rank}I", raw[4 : 4 + 4 * rank])
        if magic or kind != 8:
            raise ValueError("not an IDX file of uint8")
        return np.frombuffer(raw, np.uint8, offset=4 + 4 * rank).reshape(shape)
    except (EOFError, OSError, ValueError, struct.error, zlib.error, IndexError) as error:
        raise DataError(f"{path} cannot be read: {error}", "install dataset-fashion-mnist again") from error


def _shipped() -> Path:
    return find("assets", "fashion-mnist-mini/images.npz")


def _folder() -> Path:
    if not FOLDER.is_dir():
        raise DataError(
            f"the full Fashion-MNIST is not in {FOLDER}",
            "apt-get install dataset-fashion-mnist, or use source: fashion-mnist-mini (needs nothing) or "
            "torchvision:FashionMNIST (downloads)",
        )
    return FOLDER
