"""``edgekd check``: whether a recipe can run, without running it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgekd.engine import preflight
from edgekd.errors import Problem, RecipeError
from edgekd.loading import examine
from edgekd.loading.shape import show
from edgekd.recipe import Recipe


@dataclass(frozen=True)
class Checked:
    """Result of a check.

    Attributes:
        path: The recipe as it was given.
        recipe: The recipe with every default and absolute paths; None where it has problems.
        problems: Every mistake, each at its place; empty where the recipe can run.
        not_checked: Keys with a mistake on which other checks depend, which are made once it is right; ``""`` stands for the
            whole recipe.
    """

    path: Path
    recipe: Recipe | None
    problems: tuple[Problem, ...] = ()
    not_checked: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """True if the recipe can run."""
        return not self.problems


def refusal(problems: Iterable[Problem], not_checked: Iterable[str]) -> RecipeError:
    """Return the error of a check that found problems; it names what could not be checked yet, besides their own keys."""
    found = tuple(problems)
    told = {problem.key for problem in found if problem.key}
    waiting = ", ".join(key or "the rest of the recipe" for key in not_checked if key not in told)
    return RecipeError(found, f"not checked yet, for it depends on what is wrong: {waiting}" if waiting else "")


def check(source: Path, overrides: Sequence[str] = ()) -> Checked:
    """Check a recipe and see that the files, models and devices that it names are there.

    Args:
        source: A file, or the name of a recipe that ships with edgekd.
        overrides: ``KEY=VALUE`` of each ``--set``.

    Raises:
        UsageError: It is a lock, and files that it locks have changed.
    """
    try:
        examined = examine(source, overrides)
    except RecipeError as error:
        return Checked(source, None, error.problems)
    if examined.loaded is None:
        return Checked(source, None, tuple(examined.problems()), ("",))
    drafts, in_devices = preflight.missing(examined.loaded)
    if problems := [*examined.problems(drafts), *in_devices]:
        return Checked(source, None, tuple(problems), tuple(show(place) for place in examined.repairs.unsure))
    if examined.loaded.lock is not None:
        from edgekd.engine import locked  # imports every stage: a check of a recipe would take twice as long

        locked.check(examined.loaded)
    return Checked(source, examined.loaded.recipe)
