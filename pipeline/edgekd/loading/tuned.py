"""A recipe with other values at some of its keys, as a search tries them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import product
from typing import Any

from edgekd.loading import shape
from edgekd.loading.overrides import parse_key
from edgekd.loading.source import Path
from edgekd.recipe import Recipe
from edgekd.recipe.base import need
from edgekd.recipe.tune import Range

Values = Mapping[str, Any]
"""Values of a recipe by their keys, such as ``distill.losses[0].weight``."""


def at(recipe: Recipe, key: str) -> Any:
    """The plain value at a key of a recipe."""
    return shape.at(recipe.model_dump(mode="json"), parse_key(key))


def annotation(recipe: Recipe, key: str) -> Any:
    """Return the schema's annotation of a recipe's key."""
    return shape.annotation_at(recipe.model_dump(mode="json"), parse_key(key))


def whole(recipe: Recipe, key: str) -> bool:
    """Return whether only whole numbers may stand at a key."""
    kinds = set(shape.arms(annotation(recipe, key)))
    return int in kinds and float not in kinds


def typed(recipe: Recipe, key: str, value: Any) -> Any:
    """A value as it stands at a key: a whole number where only that is allowed."""
    return int(value) if isinstance(value, float) and whole(recipe, key) else value


def own(recipe: Recipe) -> dict[str, Any]:
    """The values that a recipe has at the keys that it searches."""
    return {key: at(recipe, key) for key in need(recipe.tune, "tune").search}


def grid(recipe: Recipe) -> list[dict[str, Any]]:
    """The recipe's own values, then every combination of those that it searches, the last key changing fastest."""
    search = need(recipe.tune, "tune").search
    values = [
        [typed(recipe, key, value) for value in (one.points() if isinstance(one, Range) else one)]
        for key, one in search.items()
    ]
    first = own(recipe)
    combinations = (dict(zip(search, chosen, strict=True)) for chosen in product(*values))
    return [first, *(chosen for chosen in combinations if chosen != first)]


def with_values(recipe: Recipe, values: Values) -> Recipe:
    """The recipe with these values, checked by the schema as a file is.

    Raises:
        pydantic.ValidationError: A value is not allowed at its key.
    """
    plain = recipe.model_dump(mode="json")
    for key, value in values.items():
        put(plain, parse_key(key), value)
    return Recipe.model_validate_json(json.dumps(plain), strict=True)


def put(plain: Any, path: Path, value: Any) -> None:
    """Replace what stands at a path of a plain recipe."""
    for part in path[:-1]:
        plain = plain[part]
    plain[path[-1]] = value


def label(recipe: Recipe, key: str) -> str:
    """Return the short name of a key in tables: ``kd temperature`` for ``distill.losses[1].temperature``."""
    path = parse_key(key)
    if len(path) < 4 or recipe.distill is None:
        return str(path[-1])
    kinds = [loss.kind for loss in recipe.distill.losses]
    index = int(path[2])
    kind = f"{kinds[index]}_{kinds[:index].count(kinds[index]) + 1}" if kinds[index] in kinds[:index] else kinds[index]
    return f"{kind} {shape.show(path[3:])}"
