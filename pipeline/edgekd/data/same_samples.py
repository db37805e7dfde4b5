"""Check that two data sections are views of the same samples: same number, same labels in the same order.

Labels and names are looked at, never pixels.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edgekd.data import reading
from edgekd.data.sources.base import Indexed, Targets, source_of
from edgekd.errors import DataError
from edgekd.progress import Silent
from edgekd.recipe.data import Data

HINT = "the teacher's data has to be the same samples in the same order; correct teacher.data or data.source"


def same(student: Data, teacher: Data, *, libraries: bool = True) -> None:
    """See that two data sections are views of the same samples.

    Args:
        student: What the student sees.
        teacher: What the teacher sees.
        libraries: Whether to open sources that a large library opens; if not, they pass.

    Raises:
        DataError: They are not, with the first difference; or one cannot be read.
    """
    if student.source == teacher.source:
        return
    if not libraries and any(source_of(data)[0].opens_libraries for data in (student, teacher)):
        return
    ours, theirs = _splits(student), _splits(teacher)
    for split in ("train", "test"):
        found = _difference(ours[split], theirs[split])
        if found:
            what, mine, other = found
            raise DataError(f"{teacher.source}: {split} {what.format(other)}; in {student.source} {mine}", HINT)


def _difference(ours: Targets, theirs: Targets) -> tuple[str, str, str] | None:
    """The first difference: what it is of the teacher's, and the student's and the teacher's values."""
    if len(ours.values) != len(theirs.values):
        return "has {} images", f"it has {len(ours.values):,}", f"{len(theirs.values):,}"
    if ours.names and theirs.names:
        for index, (mine, other) in enumerate(zip(ours.names, theirs.names, strict=True)):
            if mine != other:
                return f"image {index} is {{}}", f"it is {mine}", other
    wrong = np.flatnonzero(ours.values != theirs.values)
    if len(wrong):
        first = int(wrong[0])
        return f"image {first} has label {{}}", f"it has {ours.values[first]}", str(theirs.values[first])
    return None


def _splits(data: Data) -> Mapping[str, Targets]:
    source, place = source_of(data)
    if isinstance(source, Indexed):
        return source.targets(place)
    raw = reading.read(data, Silent())
    return {"train": Targets(raw.y_train), "test": Targets(raw.y_test)}
