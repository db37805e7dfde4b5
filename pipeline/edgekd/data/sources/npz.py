"""An archive of numpy: arrays of samples and targets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd import reads
from edgekd.data.image_folders import existing_file
from edgekd.data.sources.base import Raw, Targets, from_arrays
from edgekd.errors import DataError, printable
from edgekd.progress import Progress
from edgekd.recipe.data import Data
from edgekd.registry import sources
from edgekd.task.finite import not_finite
from edgekd.task.image_classification import IMAGE

VAL = ("x_val", "y_val")
KNOWN = ("x_train", "y_train", *VAL, "x_test", "y_test", "classes")
HINT = "it needs x_train, y_train, x_test and y_test; see docs/data.md"


@sources.register("npz")
class Npz:
    """The user's archive."""

    form = "npz:FILE"
    summary = "x_train, y_train, x_test, y_test: images with labels, or arrays"
    labelled = True
    pictures = False
    is_path = True
    opens_libraries = False

    def read(self, place: str, data: Data, progress: Progress) -> Raw:
        """Open the archive.

        Raises:
            DataError: It cannot be read, or an array is missing or of another form.
        """
        return read(Path(place), data, HINT)

    def files(self, place: str) -> Sequence[tuple[str, Path]]:
        """Return the archive."""
        return [("npz", existing_file(Path(place)))]

    def targets(self, place: str) -> Mapping[str, Targets]:
        """Return the targets alone."""
        arrays, _ = archive(Path(place), "see docs/data.md", targets_alone=True)
        train = np.concatenate([arrays[name] for name in ("y_train", "y_val") if name in arrays])
        return {"train": Targets(train), "test": Targets(arrays["y_test"])}


def read(path: Path, data: Data, hint: str, license: str = "") -> Raw:
    """Open an archive; ``hint`` says what to do where it cannot be read.

    Raises:
        DataError: It cannot be read, or an array is missing or of another form.
    """
    arrays, notes = archive(path, hint)
    names: Iterable[Any] = ()
    if arrays["y_train"].dtype.kind != "f":
        counted = "classes" not in arrays
        names = range(_class_count(arrays["y_train"], arrays["y_test"])) if counted else _names(arrays["classes"], path)
    classes = tuple(printable(str(name)) for name in names)
    alone = not any(name.startswith("x_train.") for name in arrays)
    if alone and arrays["x_train"].dtype == np.uint8:
        return replace(from_arrays(arrays, data, classes, license, str(path)), notes=notes)
    return replace(_samples(arrays, path, classes), notes=notes)


def _names(stored: NDArray[Any], path: Path) -> list[str]:
    """Return the names of the classes.

    Raises:
        DataError: Two are the same.
    """
    kept = stored.ravel().tolist()
    names = [name.decode("utf-8", "backslashreplace") if isinstance(name, bytes) else str(name) for name in kept]
    twice = next((name for name, count in Counter(names).items() if count > 1), None)
    if twice is not None:
        raise DataError(f"{path}: classes has {twice!r} more than once", "give each class a name of its own, in their order")
    return names


def _samples(arrays: Mapping[str, NDArray[Any]], path: Path, classes: tuple[str, ...]) -> Raw:
    """Return arrays as samples: floats become float32, whole numbers and truth values stay."""
    own_val = len(arrays["y_val"]) if "y_val" in arrays else 0

    def inputs(split: str) -> dict[str, NDArray[Any]]:
        found = {}
        for name, value in arrays.items():
            head, _, rest = name.partition(".")
            if head == f"x_{split}":
                kind = value.dtype.kind
                if kind not in "fiub" or not value.ndim:
                    given = f"{path}: {name} is {value.dtype} of shape {value.shape}"
                    raise DataError(given, "store numbers, a row a sample")
                if damaged := not_finite(value):
                    raise DataError(f"{path}: {name} has {damaged}", "correct these samples, or leave them out")
                found[rest or "x"] = value.astype(np.float32) if kind == "f" else value
        return found

    splits = {split: inputs(split) for split in ("train", "val", "test") if f"y_{split}" in arrays}
    shapes = {split: {name: value.shape[1:] for name, value in found.items()} for split, found in splits.items()}
    for split, found in splits.items():
        counts = {name: len(value) for name, value in found.items()} | {f"y_{split}": len(arrays[f"y_{split}"])}
        if shapes[split] != shapes["train"] or len({*counts.values()}) != 1:
            stored = {name: value for name, value in arrays.items() if name.partition(".")[0] == f"x_{split}"}
            listed = ", ".join(f"{name} {value.shape}" for name, value in stored.items())
            raise DataError(
                f"{path}: {split} has {listed or 'no samples'} and targets of shape {arrays[f'y_{split}'].shape}",
                "give every split the same arrays, and every sample a row in each and a target",
            )
    train, y_train = splits["train"], arrays["y_train"]
    if {*train} == {IMAGE}:
        hint = "name it x_train: uint8 for images, float32 for values"
        raise DataError(f"{path}: x_train.{IMAGE} is the only input", hint)
    if own_val:
        train = {name: np.concatenate([value, splits["val"][name]]) for name, value in train.items()}
        y_train = np.concatenate([y_train, arrays["y_val"]])
    return Raw(train, y_train, splits["test"], arrays["y_test"], classes, own_val=own_val)


def archive(path: Path, hint: str, *, targets_alone: bool = False) -> tuple[dict[str, NDArray[Any]], tuple[str, ...]]:
    """Return the arrays of an archive, and what a user has to know of how they are read, in lines.

    Raises:
        DataError: It cannot be read, or one is missing.
    """
    wanted: tuple[str, ...] = ("y_train", "y_test") if targets_alone else ("x_train", "y_train", "x_test", "y_test")
    try:
        # opened here: np.load leaves a file open that it cannot read
        with reads.in_key(path), existing_file(path).open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files if name in (*wanted, "y_val") or not targets_alone}
    except DataError:
        raise
    except Exception as error:  # numpy, zipfile and zlib raise many kinds for what is no archive or a damaged one
        raise DataError(f"{path} cannot be read: {error}", hint) from error
    notes: tuple[str, ...] = ()
    given = ", ".join(sorted(arrays)) or "nothing"
    if not {"x_test", "y_test"} & _heads(arrays) and "y_val" in arrays:
        val, train = (", ".join(name for name in arrays if _head(name) == head) for head in ("x_val", "x_train"))
        arrays = {name.replace("_val", "_test", 1) if _head(name) in VAL else name: rows for name, rows in arrays.items()}
        be = "are" if "," in val else "is"
        notes = (f"  no x_test: {val} {be} the test split, and data.val_fraction of {train} is for validation",)
    own = [name for name in VAL if name in _heads(arrays)]
    wanted += VAL if len(own) == 1 and not targets_alone else ()
    missing = [name for name in wanted if name not in _heads(arrays)]
    if missing:
        raise DataError(f"{path} holds {given}, but no {', '.join(map(partial(_as_named, arrays), missing))}", hint)
    unread = [name for name in arrays if name not in KNOWN and not (name[:2] == "x_" and _head(name) in KNOWN)]
    if unread and not targets_alone:
        several = "; several inputs are named x_train.NAME and x_test.NAME"
        notes += (f"  not read: {', '.join(sorted(unread))}{several}",)
    return arrays, notes


def _head(name: str) -> str:
    return name.partition(".")[0]


def _heads(arrays: Iterable[str]) -> set[str]:
    return {*map(_head, arrays)}


def _as_named(arrays: Iterable[str], missing: str) -> str:
    """Return the arrays that a split lacks by the names of the training arrays."""
    inputs = [name.partition(".")[2] for name in arrays if _head(name) == "x_train"]
    if missing[0] != "x" or not inputs:
        return missing
    return ", ".join(f"{missing}.{name}" if name else missing for name in inputs)


def _class_count(y_train: NDArray[Any], y_test: NDArray[Any]) -> int:
    """Return the classes of an archive that does not name them: as many as the highest label says.

    0 where the targets are more than there are samples: they are values then, or wrong labels, which the task decides. No
    name is made for each of what may be billions.
    """
    if not y_train.size:
        return 1
    highest = max((int(y.max()) for y in (y_train, y_test) if y.size and y.dtype.kind in "iu"), default=0)
    return highest + 1 if highest < y_train.size else 0
