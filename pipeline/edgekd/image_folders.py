"""Folders of images: which files are read, and which classes they are of.

One list serves reading and hashing, so nothing is read that the cache does not see. Links are followed.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from edgekd.errors import DataError

T = TypeVar("T")

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm", ".tif", ".tiff"}


def existing(path: Path) -> Path:
    """Return the path if something is there.

    Raises:
        DataError: Nothing is.
    """
    if not path.exists():
        raise DataError(f"{path} does not exist", "correct data.source; a relative path starts at the recipe's folder")
    return path


def listed(root: Path) -> tuple[dict[str, list[tuple[Path, int]]], tuple[str, ...]]:
    """The files of an image folder with their labels, for ``train``, ``test`` and, if there is one, ``val``; the classes.

    Raises:
        DataError: It is no image folder.
    """
    if not existing(root).is_dir():
        raise DataError(f"{root} is not a folder", "unpack it, or correct data.source")
    if not ((root / "train").is_dir() or (root / "test").is_dir()):
        return _unsplit(root)
    splits: dict[str, list[tuple[Path, int]]] = {}
    classes: tuple[str, ...] = ()
    for split in ("train", "test", *(("val",) if (root / "val").is_dir() else ())):
        folder = root / split
        if not folder.is_dir():
            hint = f"an image folder has {root}/train/CLASS and {root}/test/CLASS"
            if split == "test" and (root / "val").is_dir():
                hint += f"; if {root}/val is what is tested on, call it test"
            raise DataError(f"{folder} does not exist", hint)
        names = class_folders(folder)
        if split == "train":
            classes = names
        elif names != classes:
            odd = sorted(set(names) ^ set(classes))[0]
            raise DataError(
                f"{root}: class {odd!r} is in only one of train and {split}", "give all splits the same class folders"
            )
        splits[split] = [(path, label) for label, name in enumerate(names) for path in image_files(folder / name)]
    return splits, classes


def _unsplit(root: Path) -> tuple[dict[str, list[tuple[Path, int]]], tuple[str, ...]]:
    """Class folders without train and test: a fixed fifth of each class is the test split."""
    classes = class_folders(root)
    if not classes:
        inside = sorted(path.name for path in root.iterdir())
        packed = next((name for name in inside if name.endswith((".tar", ".tgz", ".gz", ".zip", ".7z", ".rar"))), None)
        what = f"it holds {', '.join(inside[:3])}{', …' if len(inside) > 3 else ''}" if inside else "it is empty"
        what = f"unpack {packed}" if packed else what
        what = f"images:{root} takes images without labels" if image_files(root) else what
        raise DataError(f"{root} has no folder of a class", f"an image folder has {root}/CLASS/*.png; {what}")
    split: dict[str, list[tuple[Path, int]]] = {"train": [], "test": []}
    for label, name in enumerate(classes):
        test, train = held_out(image_files(root / name))
        split["test"] += [(path, label) for path in test]
        split["train"] += [(path, label) for path in train]
    return split, classes


def class_folders(root: Path) -> tuple[str, ...]:
    """Names of the folders of classes; those of programs, such as .ipynb_checkpoints, are none."""
    return tuple(sorted(path.name for path in root.iterdir() if path.is_dir() and not _is_hidden(path.name)))


def image_files(root: Path) -> list[Path]:
    """The images below a folder, those behind links to folders too."""
    return sorted(path for path in _files(root) if path.suffix.lower() in IMAGE_SUFFIXES)


def _files(root: Path) -> Iterator[Path]:
    above: dict[str, frozenset[str]] = {}
    for folder, folders, files in os.walk(root, followlinks=True, onerror=_unreadable):
        before, place = above.get(str(Path(folder).parent), frozenset()), os.path.realpath(folder)
        if place in before:  # a link to a folder that it is in
            folders.clear()
            continue
        above[folder] = before | {place}
        folders[:] = [name for name in folders if not _is_hidden(name)]
        yield from (Path(folder, name) for name in files)


def not_read(root: Path, read: Collection[Path]) -> list[str]:
    """Say what lies below a folder and is not read, such as ``50 .gif files`` or ``2 images in val``."""
    others = [path.relative_to(root) for path in _files(root) if path not in read]
    kinds = Counter(path.suffix.lower() or "nameless" for path in others if path.suffix.lower() not in IMAGE_SUFFIXES)
    places = Counter(path.parts[0] for path in others if path.suffix.lower() in IMAGE_SUFFIXES)
    hidden = sorted({path.name for path in root.rglob("*") if path.is_dir() and _is_hidden(path.name)})
    return [
        *(f"{count} image{'s' * (count > 1)} in {place}" for place, count in sorted(places.items())),
        *(f"{count} {kind} file{'s' * (count > 1)}" for kind, count in sorted(kinds.items())),
        *(f"hidden folder {name}" for name in hidden),
    ]


def twins(train: Iterable[Path], test: Iterable[Path]) -> list[tuple[Path, Path]]:
    """Find test images that are training images too, byte for byte: (test, train)."""
    by_size: dict[int, list[Path]] = {}
    for path in train:
        by_size.setdefault(path.stat().st_size, []).append(path)
    digests: dict[Path, bytes] = {}

    def digest(path: Path) -> bytes:
        if path not in digests:
            digests[path] = hashlib.sha256(path.read_bytes()).digest()
        return digests[path]

    found = []
    for path in test:
        same = next((other for other in by_size.get(path.stat().st_size, ()) if digest(other) == digest(path)), None)
        found += [(path, same)] if same is not None else []
    return found


def sizes(root: Path, most: int = 64) -> set[tuple[int, int]]:
    """Widths and heights of some images below a folder, from their headers; of those that cannot be read none."""
    from PIL import Image

    paths = image_files(root)
    found: set[tuple[int, int]] = set()
    for path in paths[:: max(1, len(paths) // most)]:
        try:
            with Image.open(path) as image:
                found.add(image.size)
        except Exception:  # PIL raises many kinds for a damaged file, which is told when it is decoded
            continue
    return found


def _is_hidden(name: str) -> bool:
    """Whether a folder is a program's own, such as .ipynb_checkpoints."""
    return name.startswith(".") or name == "__MACOSX"


def _unreadable(error: OSError) -> None:
    raise DataError(f"{error.filename} cannot be read: {error.strerror}", "correct its permissions, or remove it") from error


def held_out(paths: Sequence[T], most: int | None = None) -> tuple[list[T], list[T]]:
    """Split into (a fifth, the rest), by chance and always alike; the rest is never empty."""
    order = np.random.default_rng(0).permutation(len(paths))
    count = min(-(-len(paths) // 5), max(len(paths) - 1, 0), most or len(paths))
    return [paths[i] for i in sorted(order[:count])], [paths[i] for i in sorted(order[count:])]
