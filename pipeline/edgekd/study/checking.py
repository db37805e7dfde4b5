"""``edgekd check`` of a study: can every recipe in it run?"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgekd.engine import preflight
from edgekd.errors import Problem
from edgekd.loading.places import Draft
from edgekd.study.loading import LoadedStudy, checked, examine_study


@dataclass(frozen=True)
class CheckedStudy:
    """Result of a check.

    Attributes:
        loaded: The study; None where it has problems.
        problems: Every mistake, each at its place; empty where the study can run.
        not_checked: Keys with a mistake on which other checks depend, which are made once it is right.
    """

    loaded: LoadedStudy | None
    problems: tuple[Problem, ...] = ()
    not_checked: tuple[str, ...] = ()


def check(source: Path, overrides: Sequence[str] = ()) -> CheckedStudy:
    """Check every recipe of a study and see that the files, models and devices that they name are there.

    Args:
        source: A file, or the name of a study that ships with edgekd.
        overrides: ``KEY=VALUE`` of each ``--set``.

    Raises:
        RecipeError: It cannot be read, or the study itself is wrong, outside of its recipes.
    """
    examined = examine_study(source, overrides)
    lacks = functools.cache(preflight.lacks_of)  # the same images are in every recipe
    if problems := examined.problems(lambda loaded: preflight.missing(loaded, lacks)):
        unsure = (
            problem.key
            for recipe in examined.recipes
            for place in recipe.repairs.unsure
            for problem in recipe.places.problems([Draft(place, "")])
        )
        return CheckedStudy(None, tuple(problems), tuple(dict.fromkeys(unsure)))
    return CheckedStudy(checked(examined))
