"""Sources of images: files that ship with edgekd, archives, folders, torchvision's data sets.

Every reader gives uint8 images at the recipe's size, and says in words what is wrong with what it reads.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgekd import cache, reads
from edgekd.data import decoding
from edgekd.data.decoding import Images
from edgekd.data.image_folders import IMAGE_SUFFIXES, existing, existing_file, held_out, image_files, listed
from edgekd.errors import DataError, did_you_mean, printable
from edgekd.models.torchvision import import_torchvision
from edgekd.progress import Progress
from edgekd.recipe.data import Data
from edgekd.resources import find

if TYPE_CHECKING:
    from PIL import Image

FASHION_MNIST_CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
FASHION_MNIST_FOLDER = Path("/usr/share/datasets/fashion-mnist")
FASHION_MNIST_LICENSE = "MIT, © 2017 Zalando SE"

UNLABELLED_TEST = 256  # images that files are compared on where there are no labels
RANDOM_IMAGES = (16, 32)  # train, test
MADE = "images.npy"  # what the stage synthesize writes


@dataclass(frozen=True)
class Raw:
    """A source before it is split."""

    train: Images
    y_train: NDArray[Any]
    test: Images
    y_test: NDArray[Any]
    classes: tuple[str, ...]
    license: str = ""
    labelled: bool = True
    own_val: int = 0
    """How many images at the end of ``train`` are the source's own validation split."""
    notes: tuple[str, ...] = ()
    """What a user has to know of how it is read, in lines."""


def read(data: Data, progress: Progress, made: Path | None = None) -> Raw:
    """Open a recipe's source.

    Args:
        data: The recipe's section.
        progress: Where to report.
        made: Folder of the synthesized images; blank ones stand for them before they are made.

    Raises:
        DataError: It is missing, empty, truncated or of another form.
    """
    if data.source == "synthetic":
        images = _synthesized(data, made)
        test, train = held_out(range(len(images)), UNLABELLED_TEST)
        return _unlabelled(images[train], images[test], data)
    raw = _real(data, progress)
    if data.made is not None:
        images = _synthesized(data, made)
        raw = replace(raw, train=images, y_train=np.full(len(images), -1, np.int64))
    return raw


def _real(data: Data, progress: Progress) -> Raw:
    kind, _, rest = data.source.partition(":")
    match kind:
        case "fashion-mnist-mini":
            path = find("assets", "fashion-mnist-mini/images.npz")
            return _npz(path, data, "reinstall edgekd: this file belongs to it", FASHION_MNIST_LICENSE)
        case "fashion-mnist":
            return _fashion_mnist(data)
        case "npz":
            return _npz(Path(rest), data, "it needs x_train, y_train, x_test and y_test; see docs/data.md")
        case "imagefolder":
            return _imagefolder(Path(rest), data, progress)
        case "images":
            return _images(Path(rest), data, progress)
        case "random":
            return _random(data)
        case _:
            return _torchvision(rest, data, progress)


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Read one gzipped IDX file of uint8, the format of MNIST.

    Raises:
        DataError: The file is missing, truncated or of another format.
    """
    try:
        with reads.in_key(), gzip.open(path, "rb") as file:
            raw = file.read()
        magic, *_ = struct.unpack(">HBB", raw[:4])
        kind, rank = raw[2], raw[3]
        shape = struct.unpack(f">{rank}I", raw[4 : 4 + 4 * rank])
        if magic or kind != 8:
            raise ValueError("not an IDX file of uint8")
        return np.frombuffer(raw, np.uint8, offset=4 + 4 * rank).reshape(shape)
    except (EOFError, OSError, ValueError, struct.error, zlib.error, IndexError) as error:
        raise DataError(f"{path} cannot be read: {error}", "install dataset-fashion-mnist again") from error


def _fashion_mnist_folder() -> Path:
    if not FASHION_MNIST_FOLDER.is_dir():
        raise DataError(
            f"the full Fashion-MNIST is not in {FASHION_MNIST_FOLDER}",
            "apt-get install dataset-fashion-mnist, or use source: fashion-mnist-mini (needs nothing) or "
            "torchvision:FashionMNIST (downloads)",
        )
    return FASHION_MNIST_FOLDER


def _fashion_mnist(data: Data) -> Raw:
    folder = _fashion_mnist_folder()
    arrays = {
        f"{axis}_{split}": read_idx(folder / f"{stem}-{what}.gz")
        for split, stem in (("train", "train"), ("test", "t10k"))
        for axis, what in (("x", "images-idx3-ubyte"), ("y", "labels-idx1-ubyte"))
    }
    return _from_arrays(arrays, data, FASHION_MNIST_CLASSES, FASHION_MNIST_LICENSE)


def _npz(path: Path, data: Data, hint: str, license: str = "") -> Raw:
    arrays, notes = archive(path, hint)
    names = (
        arrays["classes"].ravel() if "classes" in arrays else range(_class_count(path, arrays["y_train"], arrays["y_test"]))
    )
    raw = _from_arrays(arrays, data, tuple(printable(str(name)) for name in names), license, str(path))
    return replace(raw, notes=notes)


def archive(path: Path, hint: str, *, labels_alone: bool = False) -> tuple[dict[str, NDArray[Any]], tuple[str, ...]]:
    """The arrays of an archive, and what a user has to know of how they are read, in lines.

    Raises:
        DataError: It cannot be read, or one is missing.
    """
    wanted: tuple[str, ...] = ("y_train", "y_test") if labels_alone else ("x_train", "y_train", "x_test", "y_test")
    try:
        # opened here: np.load leaves a file open that it cannot read
        with reads.in_key(), existing_file(path).open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files if name in (*wanted, "y_val") or not labels_alone}
    except DataError:
        raise
    except Exception as error:  # numpy, zipfile and zlib raise many kinds for what is no archive or a damaged one
        raise DataError(f"{path} cannot be read: {error}", hint) from error
    notes: tuple[str, ...] = ()
    if not {"x_test", "y_test"} & arrays.keys() and "y_val" in arrays:
        arrays |= {f"{axis}_test": arrays.pop(f"{axis}_val") for axis in "xy" if f"{axis}_val" in arrays}
        notes = ("  no x_test: x_val is the test split, and data.val_fraction of x_train is for validation",)
    own = [name for name in ("x_val", "y_val") if name in arrays]
    wanted += ("x_val", "y_val") if len(own) == 1 and not labels_alone else ()
    missing = [name for name in wanted if name not in arrays]
    if missing:
        found = ", ".join(sorted(arrays)) or "nothing"
        raise DataError(f"{path} holds {found}, but no {', '.join(missing)}", hint)
    return arrays, notes


def _class_count(path: Path, y_train: NDArray[Any], y_test: NDArray[Any]) -> int:
    """Classes of an archive that does not name them: as many as the highest label says."""
    highest = max((int(y.max()) for y in (y_train, y_test) if y.size and y.dtype.kind in "iu"), default=0)
    if y_train.size and highest >= y_train.size:  # before a name is made for each of what may be billions
        raise DataError(
            f"{path}: the highest label is {highest}, and there are {y_train.size} training images",
            "number the labels from 0 without gaps",
        )
    return highest + 1 if y_train.size else 1


def _from_arrays(
    arrays: dict[str, NDArray[Any]], data: Data, classes: tuple[str, ...], license: str, place: str = ""
) -> Raw:
    def images(name: str) -> NDArray[np.uint8]:
        x = arrays[name]
        if x.dtype != np.uint8 or x.ndim not in (3, 4) or (x.ndim == 4 and x.shape[-1] not in (1, 3)):
            raise DataError(
                f"{place or data.source}: {name} is {x.dtype} of shape {x.shape}",
                "images must be uint8, N×H×W (grey) or N×H×W×3",
            )
        x = x[:, None] if x.ndim == 3 else np.moveaxis(x, -1, 1)
        x = decoding.grey(x) if data.channels == 1 and x.shape[1] == 3 else x
        return decoding.resized(x, data.image_size) if len(x) else x

    train, y_train = images("x_train"), arrays["y_train"]
    if "x_val" not in arrays:
        return Raw(train, y_train, images("x_test"), arrays["y_test"], classes, license)
    val = images("x_val")
    if val.shape[1:] != train.shape[1:] or arrays["y_val"].shape != (len(val),) or y_train.shape != (len(train),):
        raise DataError(
            f"{place or data.source}: x_val is {val.shape} with labels of shape {arrays['y_val'].shape}; x_train is "
            f"{train.shape}",
            "give x_val and y_val the form of x_train and y_train, or take them out",
        )
    both = np.concatenate([train, val]), np.concatenate([y_train, arrays["y_val"]])
    return Raw(*both, images("x_test"), arrays["y_test"], classes, license, own_val=len(val))


def _imagefolder(root: Path, data: Data, progress: Progress) -> Raw:
    found = listed(root)
    own = found.splits.get("val", [])
    (train, y_train), (test, y_test) = (
        (decoding.opened([path for path, _ in files], data, split, progress), _numbers(label for _, label in files))
        for split, files in (("train", [*found.splits["train"], *own]), ("test", found.splits["test"]))
    )
    return Raw(train, y_train, test, y_test, found.classes, own_val=len(own))


def _images(root: Path, data: Data, progress: Progress) -> Raw:
    """A folder of images without labels; a fixed fifth of them, UNLABELLED_TEST at most, is the test split."""
    paths = image_files(existing(root))
    if len(paths) < 3:
        raise DataError(f"{root} has {len(paths)} images", f"give 3 at least; {', '.join(sorted(IMAGE_SUFFIXES))} are read")
    test, train = held_out(paths, UNLABELLED_TEST)
    return _unlabelled(decoding.opened(train, data, "train", progress), decoding.opened(test, data, "test", progress), data)


def _synthesized(data: Data, made: Path | None) -> NDArray[np.uint8]:
    """The images that the stage synthesize made, N×C×S×S."""
    assert data.made is not None
    if made is not None:
        images: NDArray[np.uint8] = np.load(made / MADE, allow_pickle=False)
        return images
    shape = (data.made.images, 1 if data.made.grey else data.channels, data.image_size, data.image_size)
    return np.broadcast_to(np.uint8(0), shape)


def _random(data: Data) -> Raw:
    """Noise: enough to trace a network and to compare files with it, and nothing more."""
    random = np.random.default_rng(0)
    shape = (data.channels, data.image_size, data.image_size)
    train, test = (random.integers(0, 256, (count, *shape), np.uint8) for count in RANDOM_IMAGES)
    return _unlabelled(train, test, data)


def _unlabelled(train: Images, test: Images, data: Data) -> Raw:
    assert data.classes is not None
    none = [np.full(len(images), -1, np.int64) for images in (train, test)]
    names = tuple(str(number) for number in range(data.classes))
    return Raw(train, none[0], test, none[1], names, labelled=False)


def _numbers(labels: Iterable[int]) -> NDArray[np.int64]:
    return np.array(list(labels), np.int64)


def _torchvision(name: str, data: Data, progress: Progress) -> Raw:
    datasets = import_torchvision().datasets
    known = [cls for cls in datasets.__all__ if hasattr(getattr(datasets, cls), "__getitem__")]
    if name not in known:
        raise DataError(f"torchvision has no data set {name!r}", did_you_mean(name, known))
    root = Path(data.root).expanduser() if data.root else cache.user_folder() / "torchvision"
    builder = getattr(datasets, name)
    parts = []
    for split in ("train", "test"):
        part = _build_torchvision(builder, root, split, data.download)
        parts.append(part)
        progress.say(f"  {name} {split}: {len(part)} images")
    images = [
        decoding.kept_in_memory(len(part), partial(_image_of, part), data, split, progress)
        for part, split in zip(parts, ("train", "test"), strict=True)
    ]
    labels = [_torchvision_labels(part) for part in parts]
    names = getattr(parts[0], "classes", None) or range(int(labels[0].max()) + 1)
    return Raw(images[0], labels[0], images[1], labels[1], tuple(str(item) for item in names))


def _image_of(part: Any, index: int) -> Image.Image:
    image: Image.Image = part[index][0]
    return image


def _build_torchvision(builder: Any, root: Path, split: str, download: bool) -> Any:
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


def _torchvision_labels(part: Any) -> NDArray[np.int64]:
    for name in ("targets", "labels", "_labels"):
        values = getattr(part, name, None)
        if values is not None and len(values) == len(part):
            return np.asarray(values, np.int64)
    return np.array([part[i][1] for i in range(len(part))], np.int64)


def files(kind: str, rest: str) -> list[tuple[str, Path]]:
    """The files whose bytes decide a source, with a name that holds on every machine."""
    match kind:
        case "fashion-mnist-mini":
            return [("images", find("assets", "fashion-mnist-mini/images.npz"))]
        case "fashion-mnist":
            folder = _fashion_mnist_folder()
            return [(path.name, path) for path in sorted(folder.glob("*.gz"))]
        case "npz":
            return [("npz", existing_file(Path(rest)))]
        case "random" | "synthetic":
            return []
        case "images":
            return sorted((path.relative_to(rest).as_posix(), path) for path in image_files(existing(Path(rest))))
        case _:
            found = listed(Path(rest))
            return sorted((found.name(path), path) for path in found.paths)
