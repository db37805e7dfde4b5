"""``edgekd check``: whether a recipe can run, without running it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgekd.engine import locked, preflight
from edgekd.errors import Problem, RecipeError
from edgekd.loading import load
from edgekd.recipe import Recipe


@dataclass(frozen=True)
class Checked:
    """Result of a check.

    Attributes:
        path: The recipe as it was given.
        recipe: The recipe with every default and absolute paths; None where it has problems.
        problems: Every mistake, each at its place; empty where the recipe can run.
    """

    path: Path
    recipe: Recipe | None
    problems: tuple[Problem, ...] = ()

    @property
    def ok(self) -> bool:
        """True if the recipe can run."""
        return not self.problems


def check(source: Path, overrides: Sequence[str] = ()) -> Checked:
    """Check a recipe and see that the files, models and devices that it names are there.

    Args:
        source: A file, or the name of a recipe that ships with edgekd.
        overrides: ``KEY=VALUE`` of each ``--set``.

    Raises:
        UsageError: It is a lock, and files that it locks have changed.
    """
    try:
        loaded = load(source, overrides)
    except RecipeError as error:
        return Checked(source, None, error.problems)
    if problems := preflight.problems(loaded):
        return Checked(source, None, tuple(problems))
    locked.check(loaded)
    return Checked(source, loaded.recipe)
