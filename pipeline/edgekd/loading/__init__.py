"""Load a recipe's file; every mistake is reported at its line and column.

:func:`load` reads and checks, :func:`lock_text` writes what a run has resolved, :func:`json_schema` is for editors.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from edgekd import recipe
from edgekd.errors import Problem, RecipeError
from edgekd.loading import files, upgrade, words
from edgekd.loading.conflicts import conflicts
from edgekd.loading.loaded import Loaded
from edgekd.loading.lock import beside_project, lock_name, lock_text
from edgekd.loading.overrides import apply, parse_key
from edgekd.loading.places import Draft, Places
from edgekd.loading.schema import json_schema
from edgekd.loading.shape import is_study
from edgekd.loading.source import Source, parse
from edgekd.recipe import Recipe

__all__ = ["Loaded", "json_schema", "load", "load_text", "lock_text"]


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
    parsed = parse(text, where)
    value = mapping(parsed, "recipe", _LEAST)
    if is_study(value):
        raise RecipeError([Problem(where, "", "is a study, not a recipe", f"edgekd study {where}")])
    places = Places(parsed)
    problems = apply(overrides, value, places)
    _check_version(value, places)
    checked, drafts = validate(value)
    problems = places.problems(drafts) + problems
    if problems or checked is None:
        raise RecipeError(problems)
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
    if isinstance(version, int) and not isinstance(version, bool) and (wrong := upgrade.refused(version)):
        raise RecipeError(places.problems([Draft(("edgekd",), *wrong)]))


def validate(value: dict[str, Any]) -> tuple[Recipe | None, list[Draft]]:
    """Return the recipe that a plain value is, if it is one, and what is wrong with it."""
    try:
        # As JSON, because strict JSON is what a recipe means: a list is a tuple, but '8' is no number and true no 1.
        checked = Recipe.model_validate_json(json.dumps(upgrade.with_earlier_defaults(value)), strict=True)
    except ValidationError as error:
        return None, words.drafts(error, value)
    found = (Draft(parse_key(key), message, hint) for key, message, hint in conflicts(checked))
    return checked, list(found)
