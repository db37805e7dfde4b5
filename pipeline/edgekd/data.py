"""Data: where images come from, how they are split, and the one preprocessing that every runtime shares.

Images stay uint8 until :func:`preprocess` normalizes a whole batch. Training images are augmented one by one with
torchvision's v2 transforms, each from a random state of its own (seed, epoch, index), so that a draw does not depend on
the order, the number of workers or where a run was resumed.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import struct
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgekd.errors import DataError, did_you_mean
from edgekd.progress import Progress, Silent
from edgekd.recipe import Data
from edgekd.resources import find

if TYPE_CHECKING:
    from PIL import Image

FASHION_MNIST_CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
FASHION_MNIST_FOLDER = Path("/usr/share/datasets/fashion-mnist")
FASHION_MNIST_LICENSE = "MIT, © 2017 Zalando SE"

SPLIT_SEED = 0  # the validation split is the same for every seed of a recipe, so that seeds can be compared
IN_MEMORY_BYTES = 2**30
IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm", ".tif", ".tiff"}


class Images(Protocol):
    """Images by number: uint8, C×S×S at the recipe's image size, C as stored (1 or 3)."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: Any, /) -> NDArray[np.uint8]: ...


@dataclass(frozen=True)
class Split:
    """Images and their labels (int64, N)."""

    images: Images
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def batches(self, size: int = 256) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.int64]]]:
        """Yield (uint8 N×C×S×S, int64 N) in order."""
        for start in range(0, len(self), size):
            stop = min(start + size, len(self))
            yield np.stack([self.images[i] for i in range(start, stop)]), self.labels[start:stop]


@dataclass(frozen=True)
class DataSet:
    """The three splits and what a model has to know of them. ``mean`` and ``std`` are of the training images, in [0, 1]."""

    train: Split
    val: Split
    test: Split
    classes: tuple[str, ...]
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    license: str = ""


@dataclass(frozen=True)
class _Subset:
    images: Images
    indices: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        return self.images[int(self.indices[index])]


@dataclass(frozen=True)
class _Decoded:
    """Images decoded when they are asked for: too many to keep in memory."""

    count: int
    decode: Callable[[int], NDArray[np.uint8]]

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        return self.decode(index)


@dataclass(frozen=True)
class _Raw:
    """A source before it is split."""

    train: Images
    y_train: NDArray[Any]
    test: Images
    y_test: NDArray[Any]
    classes: tuple[str, ...]
    license: str = ""


def load(data: Data, progress: Progress | None = None) -> DataSet:
    """Open a recipe's data.

    Raises:
        DataError: It is missing, empty, truncated or mislabelled; the message says what to do.
    """
    progress = progress or Silent()
    kind, _, rest = data.source.partition(":")
    match kind:
        case "fashion-mnist-mini":
            path = find("assets", "fashion-mnist-mini/images.npz")
            raw = _npz(path, data, "reinstall edgekd: this file belongs to it", FASHION_MNIST_LICENSE)
        case "fashion-mnist":
            raw = _fashion_mnist(data)
        case "npz":
            raw = _npz(Path(rest), data, "it needs x_train, y_train, x_test and y_test; see docs/data.md")
        case "imagefolder":
            raw = _imagefolder(Path(rest), data, progress)
        case _:
            raw = _torchvision(rest, data, progress)
    y_train, y_test = (_labels(y, len(x), raw.classes, name, data.source) for name, x, y in (
        ("train", raw.train, raw.y_train), ("test", raw.test, raw.y_test)))  # fmt: skip
    kept, held_out = stratified(y_train, data.val_fraction)
    if not len(held_out):
        raise DataError(
            f"{data.source}: val_fraction {data.val_fraction} of {len(y_train)} training images is none of any class",
            "raise data.val_fraction or give more images",
        )
    train = Split(_Subset(raw.train, kept), y_train[kept])
    mean, std = _statistics(train, data.channels)
    return DataSet(
        train, Split(_Subset(raw.train, held_out), y_train[held_out]), Split(raw.test, y_test),
        raw.classes, data.channels, mean, std, raw.license,
    )  # fmt: skip


def preprocess(images: NDArray[np.uint8], mean: Sequence[float], std: Sequence[float], channels: int) -> NDArray[np.float32]:
    """Turn uint8 N×C×S×S into the models' float32 input, N×channels×S×S: ``(x / 255 - mean) / std``.

    In exactly this order and in float32, so that the load snippets, which do the same with numpy alone, get the same bits.
    """
    x = images.astype(np.float32) / np.float32(255)
    x = (x - np.float32(mean).reshape(-1, 1, 1)) / np.float32(std).reshape(-1, 1, 1)
    return np.ascontiguousarray(np.broadcast_to(x, (len(x), channels, *x.shape[2:])))


def stratified(labels: NDArray[np.int64], fraction: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Split indices into (kept, held out): ``fraction`` of each class is held out, never a whole class."""
    random = np.random.default_rng(SPLIT_SEED)
    held = []
    for label in np.unique(labels):
        members = random.permutation(np.flatnonzero(labels == label))
        held.append(members[: min(round(fraction * len(members)), len(members) - 1)])
    held_out = np.sort(np.concatenate(held))
    return np.setdiff1d(np.arange(len(labels)), held_out), held_out


def fingerprint(data: Data) -> str:
    """Hash of everything that decides the images: the files' bytes and the recipe's ``data`` section without its paths.

    A folder is told by the names, sizes and bytes of its images. torchvision's data sets are told by name and version, for
    torchvision checks its downloads itself.
    """
    kind, _, rest = data.source.partition(":")
    settings = data.model_dump(mode="json", exclude={"source", "root", "download"})
    digest = hashlib.sha256(json.dumps([kind, settings], sort_keys=True).encode())
    if kind == "torchvision":
        from importlib.metadata import version

        digest.update(f"{rest} {version('torchvision')}".encode())
    else:
        for name, path in _files(kind, rest):
            digest.update(name.encode() + b"\0")
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _files(kind: str, rest: str) -> list[tuple[str, Path]]:
    match kind:
        case "fashion-mnist-mini":
            return [("images", find("assets", "fashion-mnist-mini/images.npz"))]
        case "fashion-mnist":
            folder = _fashion_mnist_folder()
            return [(path.name, path) for path in sorted(folder.glob("*.gz"))]
        case "npz":
            return [("npz", _existing(Path(rest)))]
        case _:
            root = _existing(Path(rest))
            files = (path for path in root.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
            return sorted((path.relative_to(root).as_posix(), path) for path in files)


def _existing(path: Path) -> Path:
    if not path.exists():
        raise DataError(f"{path} does not exist", "correct data.source; a relative path starts at the recipe's folder")
    return path


def _labels(y: NDArray[Any], count: int, classes: Sequence[str], split: str, source: str) -> NDArray[np.int64]:
    if not count:
        raise DataError(f"{source}: the {split} split has no images", "give images, or correct data.source")
    if y.ndim != 1 or len(y) != count or y.dtype.kind not in "iu":
        raise DataError(
            f"{source}: the {split} split has {count} images and labels of shape {y.shape} and type {y.dtype}",
            "give one integer label for each image",
        )
    wrong = np.flatnonzero((y < 0) | (y >= len(classes)))
    if len(wrong):
        raise DataError(
            f"{source}: the label of {split} image {wrong[0]} is {y[wrong[0]]}; there are {len(classes)} classes "
            f"(0 to {len(classes) - 1}), {len(wrong)} labels are outside",
            "correct the labels",
        )
    if split == "train":
        missing = sorted(set(range(len(classes))) - set(np.unique(y).tolist()))
        if missing:
            raise DataError(
                f"{source}: no training image of class {missing[0]} ({classes[missing[0]]})",
                "add images of it, or number the labels from 0 without gaps",
            )
        if len(classes) < 2:
            raise DataError(f"{source}: there is only one class", "a classifier needs two at least")
    return y.astype(np.int64)


def _statistics(train: Split, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each stored channel over (at most 4,096 of) the training images."""
    step = max(1, len(train) // 4096)
    sample = np.stack([train.images[i] for i in range(0, len(train), step)]).astype(np.float64) / 255
    if sample.shape[1] > channels:
        raise DataError("the images have 3 channels but data.channels is 1", "set data.channels: 3")
    mean, std = sample.mean(axis=(0, 2, 3)), sample.std(axis=(0, 2, 3))
    return tuple(np.round(mean, 4).tolist()), tuple(np.round(np.maximum(std, 1e-3), 4).tolist())


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Read one gzipped IDX file of uint8, the format of MNIST.

    Raises:
        DataError: The file is missing, truncated or of another format.
    """
    try:
        with gzip.open(_existing(path), "rb") as file:
            raw = file.read()
        magic, *_ = struct.unpack(">HBB", raw[:4])
        kind, rank = raw[2], raw[3]
        shape = struct.unpack(f">{rank}I", raw[4 : 4 + 4 * rank])
        if magic or kind != 8:
            raise ValueError("not an IDX file of uint8")
        return np.frombuffer(raw, np.uint8, offset=4 + 4 * rank).reshape(shape)
    except (EOFError, OSError, ValueError, struct.error, IndexError) as error:
        raise DataError(f"{path} cannot be read: {error}", "install dataset-fashion-mnist again") from error


def _fashion_mnist_folder() -> Path:
    if not FASHION_MNIST_FOLDER.is_dir():
        raise DataError(
            f"the full Fashion-MNIST is not in {FASHION_MNIST_FOLDER}",
            "apt-get install dataset-fashion-mnist, or use source: fashion-mnist-mini (needs nothing) or "
            "torchvision:FashionMNIST (downloads)",
        )
    return FASHION_MNIST_FOLDER


def _fashion_mnist(data: Data) -> _Raw:
    folder = _fashion_mnist_folder()
    arrays = {
        f"{axis}_{split}": read_idx(folder / f"{stem}-{what}.gz")
        for split, stem in (("train", "train"), ("test", "t10k"))
        for axis, what in (("x", "images-idx3-ubyte"), ("y", "labels-idx1-ubyte"))
    }
    return _from_arrays(arrays, data, FASHION_MNIST_CLASSES, FASHION_MNIST_LICENSE)


def _npz(path: Path, data: Data, hint: str, license: str = "") -> _Raw:
    try:
        with np.load(_existing(path), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, KeyError) as error:
        raise DataError(f"{path} cannot be read: {error}", hint) from error
    missing = [name for name in ("x_train", "y_train", "x_test", "y_test") if name not in arrays]
    if missing:
        found = ", ".join(sorted(arrays)) or "nothing"
        raise DataError(f"{path} holds {found}, but no {', '.join(missing)}", hint)
    highest = max((int(arrays[y].max()) for y in ("y_train", "y_test") if arrays[y].size), default=0)
    names = arrays.get("classes", np.arange(highest + 1))
    return _from_arrays(arrays, data, tuple(str(name) for name in names), license, str(path))


def _from_arrays(
    arrays: dict[str, NDArray[Any]], data: Data, classes: tuple[str, ...], license: str, place: str = ""
) -> _Raw:
    def images(name: str) -> NDArray[np.uint8]:
        x = arrays[name]
        if x.dtype != np.uint8 or x.ndim not in (3, 4) or (x.ndim == 4 and x.shape[-1] not in (1, 3)):
            raise DataError(
                f"{place or data.source}: {name} is {x.dtype} of shape {x.shape}",
                "images must be uint8, N×H×W (grey) or N×H×W×3",
            )
        x = x[:, None] if x.ndim == 3 else np.moveaxis(x, -1, 1)
        return _resized(x, data.image_size) if len(x) else x

    return _Raw(images("x_train"), arrays["y_train"], images("x_test"), arrays["y_test"], classes, license)


def _resized(images: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    if images.shape[2:] == (size, size):
        return np.ascontiguousarray(images)
    import torch

    from edgekd.models import import_torchvision

    resize = import_torchvision().transforms.v2.functional.resize
    parts = [resize(torch.from_numpy(part.copy()), [size, size]) for part in np.array_split(images, len(images) // 4096 + 1)]
    return np.ascontiguousarray(torch.cat(parts).numpy())


def _decoder(data: Data, open_image: Callable[[int], Image.Image]) -> Callable[[int], NDArray[np.uint8]]:
    def decode(index: int) -> NDArray[np.uint8]:
        image = open_image(index).convert("L" if data.channels == 1 else "RGB")
        pixels = np.asarray(image)
        return _resized(np.atleast_3d(pixels).transpose(2, 0, 1)[None], data.image_size)[0]

    return decode


def _kept_in_memory(count: int, decode: Callable[[int], NDArray[np.uint8]], data: Data, name: str,
                    progress: Progress) -> Images:  # fmt: skip
    """Decode once if the whole split fits in IN_MEMORY_BYTES, else when asked."""
    if count * data.channels * data.image_size**2 > IN_MEMORY_BYTES or not count:
        return _Decoded(count, decode)
    images = np.empty((count, data.channels, data.image_size, data.image_size), np.uint8)
    with progress.task(f"decoding {name} images", count) as task:
        for index in range(count):
            images[index] = decode(index)
            task.advance()
    return images


def _imagefolder(root: Path, data: Data, progress: Progress) -> _Raw:
    from PIL import Image, UnidentifiedImageError

    _existing(root)
    splits: dict[str, tuple[Images, NDArray[np.int64]]] = {}
    classes: tuple[str, ...] = ()
    for split in ("train", "test"):
        folder = root / split
        if not folder.is_dir():
            raise DataError(f"{folder} does not exist", f"an image folder has {root}/train/CLASS and {root}/test/CLASS")
        names = tuple(sorted(path.name for path in folder.iterdir() if path.is_dir()))
        if split == "train":
            classes = names
        elif names != classes:
            odd = sorted(set(names) ^ set(classes))[0]
            raise DataError(
                f"{root}: class {odd!r} is in only one of train and test", "give both splits the same class folders"
            )
        files = [
            (path, label)
            for label, name in enumerate(names)
            for path in sorted((folder / name).rglob("*"))
            if path.suffix.lower() in IMAGE_SUFFIXES
        ]

        def open_image(index: int, files: list[tuple[Path, int]] = files) -> Image.Image:
            path = files[index][0]
            try:
                with Image.open(path) as image:
                    image.load()
                    return image
            except (OSError, UnidentifiedImageError, SyntaxError) as error:
                raise DataError(f"{path} is not a readable image: {error}", "replace it or remove it") from error

        images = _kept_in_memory(len(files), _decoder(data, open_image), data, split, progress)
        splits[split] = images, np.array([label for _, label in files], np.int64)
    return _Raw(*splits["train"], *splits["test"], classes)


def _torchvision(name: str, data: Data, progress: Progress) -> _Raw:
    from edgekd.models import import_torchvision

    datasets = import_torchvision().datasets
    known = [cls for cls in datasets.__all__ if hasattr(getattr(datasets, cls), "__getitem__")]
    if name not in known:
        raise DataError(f"torchvision has no data set {name!r}", did_you_mean(name, known))
    root = Path(data.root).expanduser() if data.root else Path.home() / ".cache" / "edgekd" / "torchvision"
    builder = getattr(datasets, name)
    parts = []
    for split in ("train", "test"):
        part = _build_torchvision(builder, root, split, data.download)
        parts.append(part)
        progress.say(f"  {name} {split}: {len(part)} images")
    images = [
        _kept_in_memory(len(part), _decoder(data, lambda i, part=part: part[i][0]), data, split, progress)
        for part, split in zip(parts, ("train", "test"), strict=True)
    ]
    labels = [_torchvision_labels(part) for part in parts]
    names = getattr(parts[0], "classes", None) or range(int(labels[0].max()) + 1)
    return _Raw(images[0], labels[0], images[1], labels[1], tuple(str(item) for item in names))


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
