"""Check that two data sections are views of the same samples: same number, same labels in the same order.

Labels and names are looked at, never pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.data import image_folders, sources
from edgekd.errors import DataError
from edgekd.progress import Silent
from edgekd.recipe.data import Data

HINT = "the teacher's data has to be the same samples in the same order; correct teacher.data or data.source"


@dataclass(frozen=True)
class Samples:
    """One split: the labels (N), and the names of the files without their endings, where each image is one."""

    labels: NDArray[Any]
    names: tuple[str, ...] = ()


def same(student: Data, teacher: Data, *, libraries: bool = True) -> None:
    """See that two data sections are views of the same samples.

    Args:
        student: What the student sees.
        teacher: What the teacher sees.
        libraries: Whether to open what takes torchvision to be opened; if not, such sources pass.

    Raises:
        DataError: They are not, with the first difference; or one cannot be read.
    """
    if student.source == teacher.source:
        return
    if not libraries and any(data.source.startswith("torchvision:") for data in (student, teacher)):
        return
    ours, theirs = _splits(student), _splits(teacher)
    for split in ("train", "test"):
        found = _difference(ours[split], theirs[split])
        if found:
            what, mine, other = found
            raise DataError(f"{teacher.source}: {split} {what.format(other)}; in {student.source} {mine}", HINT)


def _difference(ours: Samples, theirs: Samples) -> tuple[str, str, str] | None:
    """The first difference: what it is of the teacher's, and the student's and the teacher's values."""
    if len(ours.labels) != len(theirs.labels):
        return "has {} images", f"it has {len(ours.labels):,}", f"{len(theirs.labels):,}"
    if ours.names and theirs.names:
        for index, (mine, other) in enumerate(zip(ours.names, theirs.names, strict=True)):
            if mine != other:
                return f"image {index} is {{}}", f"it is {mine}", other
    wrong = np.flatnonzero(ours.labels != theirs.labels)
    if len(wrong):
        first = int(wrong[0])
        return f"image {first} has label {{}}", f"it has {ours.labels[first]}", str(theirs.labels[first])
    return None


def _splits(data: Data) -> dict[str, Samples]:
    kind, _, rest = data.source.partition(":")
    if kind == "imagefolder":
        folder = image_folders.listed(Path(rest))
        both = [*folder.splits["train"], *folder.splits.get("val", [])]
        return {"train": _named(folder, both), "test": _named(folder, folder.splits["test"])}
    if kind == "npz":
        arrays, _ = sources.archive(Path(rest), "see docs/data.md", labels_alone=True)
        train = np.concatenate([arrays[name] for name in ("y_train", "y_val") if name in arrays])
        return {"train": Samples(train), "test": Samples(arrays["y_test"])}
    raw = sources.read(data, Silent())
    return {"train": Samples(raw.y_train), "test": Samples(raw.y_test)}


def _named(folder: image_folders.Listing, files: list[tuple[Path, int]]) -> Samples:
    names = tuple(PurePosixPath(folder.name(path)).with_suffix("").as_posix() for path, _ in files)
    return Samples(np.array([label for _, label in files], np.int64), names)
