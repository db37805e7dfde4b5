"""Load a recipe's file; every mistake is reported at its line and column.

:func:`load` reads and checks, :func:`lock_text` writes what a run has resolved, :func:`json_schema` is for editors.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgekd import recipe
from edgekd.errors import Problem, RecipeError
from edgekd.loading import caused, files, upgrade, words
from edgekd.loading.loaded import Loaded
from edgekd.loading.lock import beside_project, lock_name, lock_text
from edgekd.loading.overrides import apply
from edgekd.loading.places import Draft, Places, Placing
from edgekd.loading.salvage import Repairs, validate
from edgekd.loading.schema import json_schema
from edgekd.loading.shape import is_study
from edgekd.loading.source import Source, parse
from edgekd.recipe import Recipe

__all__ = ["Examined", "Loaded", "examine", "json_schema", "load", "load_text", "lock_text", "validate"]


def load(source: Path, overrides: Sequence[str] = ()) -> Loaded:
    """Read and check a recipe.

    Args:
        source: A file, or the name of a recipe that ships with edgekd.
        overrides: ``KEY=VALUE`` of each ``--set``, in their order.

    Raises:
        RecipeError: It cannot be read, or it cannot be run as it is; with all its mistakes.

    Example:
        >>> loaded = load(Path("mobilenet"), ["distill.epochs=1"])
        >>> loaded.name, loaded.recipe.distill.epochs
        ('mobilenet', 1)
    """
    path, text = files.read(source)
    return load_text(text, path, str(source) if path == source else str(path), overrides)


def load_text(text: str, path: Path, where: str, overrides: Sequence[str] = ()) -> Loaded:
    """Check the text of a recipe as :func:`load` does.

    Args:
        text: YAML.
        path: The file it is from, or would be in: paths in it start at its folder, and its stem is the recipe's name.
        where: What problems call it.
        overrides: ``KEY=VALUE`` of each ``--set``.

    Raises:
        RecipeError: It cannot be run as it is; with all its mistakes.
    """
    examined = examine_text(text, path, where, overrides)
    if examined.problems() or examined.loaded is None:
        raise RecipeError(examined.problems())
    return examined.loaded


@dataclass(frozen=True)
class Examined:
    """A recipe that was read, with all mistakes that can be found in its text.

    Attributes:
        loaded: The recipe, with repairs where it has mistakes; None where nothing of it can be checked further.
        repairs: What was changed in it.
        drafts: Its mistakes.
        refused: What is wrong with a ``--set`` itself.
        places: Where its values are written.
        overrides: ``KEY=VALUE`` of each ``--set``.
        again: Finds the mistakes of the same text with other settings; None where settings are not its own.
    """

    loaded: Loaded | None
    repairs: Repairs
    drafts: list[Draft]
    refused: list[Problem]
    places: Placing
    overrides: tuple[str, ...] = ()
    again: caused.Again | None = None

    def problems(self, more: Iterable[Draft] = ()) -> list[Problem]:
        """Place all mistakes, with ``more`` that were found of the repaired recipe."""
        found = self.places.problems([*self.drafts, *self.repairs.sound(more)])
        if self.again is not None:
            found = caused.by_settings(found, self.overrides, self.again)
        return found + self.refused


def examine(source: Path, overrides: Sequence[str] = ()) -> Examined:
    """Read a recipe and find its mistakes, as :func:`load` does; the rest can be looked for in what comes back.

    Raises:
        RecipeError: It cannot be read, or it is of another version.
    """
    path, text = files.read(source)
    return examine_text(text, path, str(source) if path == source else str(path), overrides)


def examine_text(text: str, path: Path, where: str, overrides: Sequence[str] = ()) -> Examined:
    """Read the text of a recipe as :func:`examine` does; arguments as of :func:`load_text`."""
    parsed = parse(text, where)
    value = mapping(parsed, "recipe", _LEAST)
    if is_study(value):
        raise RecipeError([Problem(where, "", "is a study, not a recipe", f"edgekd study {where}")])
    places = Places(parsed)
    refused = apply(overrides, value, places)
    _check_version(value, places)
    found = validate(value)
    checked = found.salvaged
    loaded = None if checked is None else _resolved(checked, path, text, overrides, places)

    def again(settings: Sequence[str]) -> list[Problem]:
        fresh = parse(text, where)  # Places changes it
        other, placed = mapping(fresh, "recipe", _LEAST), Places(fresh)
        apply(settings, other, placed)
        return placed.problems(validate(other).drafts)

    return Examined(loaded, found.repairs, found.drafts, refused, places, tuple(overrides), again)


def _resolved(checked: Recipe, path: Path, text: str, overrides: Sequence[str], places: Places) -> Loaded:
    """Make the paths absolute."""
    checked, folder = beside_project(checked, path.absolute().parent, places)
    resolved = files.absolute(checked, files.start(folder, places), [folder])
    loaded = Loaded(resolved, lock_name(path, text), path.absolute(), tuple(overrides), places)
    if resolved.lock is None:
        return loaded
    # What it locks is about files, not a part of what is run: the replay's recipe is the recipe's.
    return replace(loaded, recipe=resolved.model_copy(update={"lock": None}), lock=resolved.lock)


def mapping(parsed: Source, what: str, least: str) -> dict[str, Any]:
    """Return the keys of a recipe or a study.

    Raises:
        RecipeError: It is not YAML, or not a mapping.
    """
    if parsed.problems:
        raise RecipeError(parsed.problems)
    if parsed.empty:
        raise RecipeError([Problem(parsed.where, "", "the file is empty", least)])
    if not isinstance(parsed.value, dict):
        message = f"a {what} is a mapping (key: value), not {words.given(parsed.value)}"
        raise RecipeError([parsed.problem(parsed.values[()], message, least)])
    return parsed.value


_LEAST = f"a recipe needs edgekd: {recipe.SCHEMA_VERSION}, data:, and student: or teacher:"


def _check_version(value: dict[str, Any], places: Places) -> None:
    """Stop at a recipe of another version: what else is wrong with it cannot be known."""
    version = value.get("edgekd")
    if isinstance(version, bool | float):  # which equal a whole number, and are none
        wrong: tuple[str, str] | None = ("must be a whole number", f"write edgekd: {recipe.SCHEMA_VERSION}")
    else:
        wrong = upgrade.refused(version) if isinstance(version, int) else None
    if wrong:
        raise RecipeError(places.problems([Draft(("edgekd",), *wrong)]))
