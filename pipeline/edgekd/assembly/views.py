"""Views: samples as the teachers see them, where these differ from the student's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from edgekd.recipe.data import Data
from edgekd.recipe.teacher import Teacher

if TYPE_CHECKING:
    from torch import Tensor

    from edgekd.data.dataset import DataSet
    from edgekd.task.base import Purpose


def differ(section: Teacher | None, seen: Data) -> bool:
    """Return whether a teacher, or one of an ensemble, sees something else than its student, who sees ``seen``."""
    return section is not None and any(view != seen for view in _sections(section, seen).values())


def opened(section: Teacher | None, seen: Data, images: DataSet) -> tuple[DataSet, ...]:
    """Open what a teacher sees, or, in turn, each of an ensemble; empty where that is what its student sees.

    Args:
        section: The teacher.
        seen: The student's data section.
        images: The student's images.

    Raises:
        DataError: They are not the same samples, or cannot be read.
    """
    from edgekd.data import dataset, same_samples

    if section is None or not differ(section, seen):
        return ()
    found = {seen: images}
    views = list(_sections(section, seen).values())
    for view in views:
        if view not in found:
            same_samples.same(seen, view)
            found[view] = dataset.load(view, task=images.purpose.task.kind)
    return tuple(found[view] for view in views)


def examples(section: Teacher | None, seen: Data, purpose: Purpose) -> Mapping[str | None, Tensor] | None:
    """An input of a teacher (None), or of each of an ensemble by its name; None where it is the student's.

    Args:
        section: The teacher.
        seen: The student's data section.
        purpose: What the student is for.
    """
    from edgekd.data import dataset
    from edgekd.models import build

    if section is None or not differ(section, seen):
        return None
    return {
        name or None: build.one_input(dataset.viewed(purpose, view).signature)
        for name, view in _sections(section, seen).items()
    }


def _sections(section: Teacher, seen: Data) -> dict[str, Data]:
    """The data section of each of an ensemble by its name; of a teacher alone by an empty one."""
    own = section.seen(seen)
    return {name: member.seen(own) for name, member in section.members().items()} or {"": own}
