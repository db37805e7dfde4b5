"""Folders of images: which files are read, of which split and of which class.

One list serves reading and hashing, so nothing is read that the cache does not see. Links are followed.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from edgekd import reads
from edgekd.errors import DataError, printable

T = TypeVar("T")
Labelled = list[tuple[Path, int]]
"""Files with their labels."""

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm", ".tif", ".tiff"}
SPLITS = {
    "train": "train", "training": "train",
    "test": "test", "testing": "test",
    "val": "val", "valid": "val", "validation": "val",
}  # fmt: skip
"""Names of folders of splits, in whatever case."""
_LIKE_A_SPLIT = re.compile(
    r"(train(ing)?|test(ing)?|val(id(ation)?)?|dev|eval(uation)?)[-_ .]?(sets?|data|images?|imgs?|split|\d+)?", re.IGNORECASE
)


@dataclass(frozen=True)
class Listing:
    """Contents of an image folder.

    Attributes:
        root: The folder.
        splits: The images of ``train``, ``test`` and, if there is one, ``val``.
        classes: Names of the labels.
        folders: The folder of each split that has one of its own.
        notes: What a user has to know of how it is read, in lines.
    """

    root: Path
    splits: Mapping[str, Labelled]
    classes: tuple[str, ...]
    folders: Mapping[str, Path]
    notes: tuple[str, ...] = ()

    @property
    def paths(self) -> list[Path]:
        """All images."""
        return [path for found in self.splits.values() for path, _ in found]

    def name(self, path: Path) -> str:
        """The place of an image in its split: the same wherever the folder lies, and whatever the split's is called."""
        for split, folder in self.folders.items():
            if path.is_relative_to(folder):
                return f"{split}/{path.relative_to(folder).as_posix()}"
        return path.relative_to(self.root).as_posix()


@contextmanager
def _told() -> Iterator[None]:
    """Say which file or folder may not be looked at."""
    try:
        yield
    except OSError as error:
        _unreadable(error)


@_told()
def existing(path: Path) -> Path:
    """Return the path if something is there.

    Raises:
        DataError: Nothing is, or it may not be looked at.
    """
    if not path.exists():
        raise DataError(f"{path} does not exist", "correct data.source; a relative path starts at the recipe's folder")
    return path


def existing_file(path: Path) -> Path:
    """Return the path of a file that can be opened.

    Raises:
        DataError: There is none, or it is a pipe, on which opening would wait.
    """
    reason = reads.unreadable(path)
    if reason and existing(path):
        raise DataError(
            f"{path} {reason}", "correct its permissions" if reason.startswith("cannot be read") else "correct data.source"
        )
    return path


@_told()
def listed(root: Path) -> Listing:
    """List the images of an image folder.

    Raises:
        DataError: It is no image folder, or some of it cannot be read.
    """
    if not existing(root).is_dir():
        raise DataError(f"{root} is not a folder", "unpack it, or correct data.source")
    named = [root / name for name in _folders(root) if name.casefold() in SPLITS]
    if any(SPLITS[folder.name.casefold()] != "val" and not _is_flat(folder) for folder in named):
        return _split(root, _split_folders(named))
    return _unsplit(root)


def _is_flat(folder: Path) -> bool:
    """Return whether all images lie in the folder itself, as in a class folder; ``train`` may be a class, beside ``bus``."""
    return not class_folders(folder) and _has_images(folder)


def _split_folders(named: Sequence[Path]) -> dict[str, Path]:
    folders: dict[str, Path] = {}
    for folder in named:
        split = SPLITS[folder.name.casefold()]
        if split in folders:
            raise DataError(f"{folders[split]} and {folder} are both the {split} split", "join them, or rename one")
        folders[split] = folder
    return folders


def _split(root: Path, folders: dict[str, Path]) -> Listing:
    """Folders of splits, with the same class folders in each."""
    if "train" not in folders:
        raise DataError(
            f"{root}/train does not exist",
            f"an image folder has {root}/train/CLASS and {root}/test/CLASS, or {root}/CLASS alone",
        )
    notes = [f"  read as {split}: {folder.name}" for split, folder in sorted(folders.items()) if folder.name != split]
    if "test" not in folders and "val" in folders:
        folders["test"] = folders.pop("val")
        notes.append(
            f"  no test folder: {folders['test'].name} is the test split, and data.val_fraction of train is for validation"
        )
    found = {
        split: {name: image_files(folders[split] / name) for name in _folders(folders[split])}
        for split in ("train", "test", "val")
        if split in folders
    }
    filled = {name for classes in found.values() for name, paths in classes.items() if paths}
    if not filled:
        raise _no_image(root)
    empty = {name for classes in found.values() for name in classes} - filled
    for split, classes in found.items():
        odd = sorted(filled & (classes.keys() ^ found["train"].keys()))
        if odd:
            raise DataError(
                f"{root}: class {odd[0]!r} is in only one of {folders['train'].name} and {folders[split].name}",
                "give all splits the same class folders",
            )
    names = sorted(filled)
    splits: dict[str, Labelled] = {
        split: [(path, label) for label, name in enumerate(names) for path in classes[name]]
        for split, classes in found.items()
    }
    if "test" not in splits:
        splits |= _carved({name: found["train"][name] for name in names})
        notes.append(f"  no test folder: a fixed fifth of each class of {folders['train'].name} is the test split")
    notes += [*_no_classes(empty), *_like_splits(folders["train"], names)]
    return Listing(root, splits, tuple(map(printable, names)), folders, tuple(notes))


def _unsplit(root: Path) -> Listing:
    """Class folders without train and test: a fixed fifth of each class is the test split."""
    found = {name: image_files(root / name) for name in _folders(root)}
    classes = {name: paths for name, paths in found.items() if paths}
    if not classes:
        if found and not_read(root, ()) and not image_files(root):
            raise _no_image(root)
        inside = sorted(path.name for path in root.iterdir())
        packed = next((name for name in inside if name.endswith((".tar", ".tgz", ".gz", ".zip", ".7z", ".rar"))), None)
        what = f"it holds {', '.join(inside[:3])}{', …' if len(inside) > 3 else ''}" if inside else "it is empty"
        what = f"unpack {packed}" if packed else what
        what = f"images:{root} takes images without labels" if image_files(root) else what
        raise DataError(f"{root} has no folder of a class", f"an image folder has {root}/CLASS/*.png; {what}")
    _check_height(root, list(classes))
    notes = [*_no_classes(found.keys() - classes.keys()), *_like_splits(root, list(classes))]
    return Listing(root, _carved(classes), tuple(map(printable, classes)), {}, tuple(notes))


def _no_image(root: Path) -> DataError:
    others = not_read(root, ())
    return DataError(
        f"no file below {root} is an image that edgekd reads{': ' * bool(others)}{', '.join(others)}",
        f"convert them; images are {', '.join(sorted(IMAGE_SUFFIXES))}",
    )


def _check_height(root: Path, classes: Sequence[str]) -> None:
    """See that the image folder is not one of the folders that were taken for classes.

    Raises:
        DataError: It is.
    """
    for name in classes:
        inside = [folder for folder in _folders(root / name) if folder.casefold() in SPLITS]
        if len({SPLITS[folder.casefold()] for folder in inside}) > 1:
            raise DataError(
                f"{root / name} has folders of splits, {' and '.join(inside)}, so it is not a class",
                f"give {root / name}, if it is the image folder; else put them above the classes: {root}/train/{name}",
            )
    if len(classes) == 1 and class_folders(root / classes[0]):
        raise DataError(
            f"{root} has images in only one folder, {classes[0]}, which seems to be the image folder",
            f"give {root / classes[0]}",
        )


def _carved(classes: Mapping[str, Sequence[Path]]) -> dict[str, Labelled]:
    """A fixed fifth of each class for the test."""
    split: dict[str, Labelled] = {"train": [], "test": []}
    for label, paths in enumerate(classes.values()):
        test, train = held_out(paths)
        split["test"] += [(path, label) for path in test]
        split["train"] += [(path, label) for path in train]
    return split


def _no_classes(names: Iterable[str]) -> list[str]:
    listing = ", ".join(sorted(names))
    return [f"  no class, for there is no image in it: {listing}"] if listing else []


def _like_splits(place: Path, classes: Sequence[str]) -> list[str]:
    """Tell classes that are called as splits are.

    Raises:
        DataError: All are, so that they will be splits.
    """
    named = [name for name in classes if _LIKE_A_SPLIT.fullmatch(name)]
    if len(named) > 1 and len(named) == len(classes):
        if all(_is_flat(place / name) for name in named):
            hint = f"an image folder has {place}/train/CLASS/*.png; images:{place} takes images without labels"
        else:
            hint = f"call the folders of splits train, test and val: {place}/train/CLASS/*.png"
        raise DataError(f"the folders in {place} are called like splits and not like classes: {', '.join(named)}", hint)
    return [
        f"  warning: taken as a class, though a split may be called so: {name}\n"
        f"    → if it is one, {place} should hold train/CLASS and test/CLASS"
        for name in named
    ]


@_told()
def class_folders(root: Path) -> tuple[str, ...]:
    """Names of the folders of classes: those with images below, and not those of programs, such as .ipynb_checkpoints."""
    return tuple(name for name in _folders(root) if _has_images(root / name))


def _folders(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir() if path.is_dir() and not _is_hidden(path.name))


def image_files(root: Path) -> list[Path]:
    """The images below a folder, those behind links to folders too."""
    return sorted(_images(root))


def _has_images(root: Path) -> bool:
    return next(_images(root), None) is not None


def _images(root: Path) -> Iterator[Path]:
    return (path for path in _files(root) if path.suffix.lower() in IMAGE_SUFFIXES and not reads.is_special(path))


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


@_told()
def not_read(root: Path, read: Collection[Path]) -> list[str]:
    """Say what lies below a folder and is not read, such as ``50 .gif files`` or ``2 images in val``."""
    paths = [path for path in _files(root) if path not in read]
    special = {path for path in paths if reads.is_special(path)}
    others = [path.relative_to(root) for path in paths if path not in special]
    kinds = Counter(path.suffix.lower() or "nameless" for path in others if path.suffix.lower() not in IMAGE_SUFFIXES)
    places = Counter(path.parts[0] for path in others if path.suffix.lower() in IMAGE_SUFFIXES)
    hidden = sorted({path.name for path in root.rglob("*") if path.is_dir() and _is_hidden(path.name)})
    return [
        *(f"{count} image{'s' * (count > 1)} in {place}" for place, count in sorted(places.items())),
        *(f"{count} {kind} file{'s' * (count > 1)}" for kind, count in sorted(kinds.items())),
        *([f"{len(special)} pipes, sockets or devices"] if special else []),
        *(f"hidden folder {name}" for name in hidden),
    ]


@_told()
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
    """Return whether a folder is a program's own, such as .ipynb_checkpoints."""
    return name.startswith(".") or name == "__MACOSX"


def _unreadable(error: OSError) -> None:
    raise DataError(f"{error.filename} cannot be read: {error.strerror}", "correct its permissions, or remove it") from error


def held_out(paths: Sequence[T], most: int | None = None) -> tuple[list[T], list[T]]:
    """Split into (a fifth, the rest), by chance and always alike; the rest is never empty."""
    order = np.random.default_rng(0).permutation(len(paths))
    count = min(-(-len(paths) // 5), max(len(paths) - 1, 0), most or len(paths))
    return [paths[i] for i in sorted(order[:count])], [paths[i] for i in sorted(order[count:])]
