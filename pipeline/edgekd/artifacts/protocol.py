"""The measuring protocol of ``edgekd profile``: a recipe's ``profile:`` section, changed by ``--set KEY=VALUE``."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from pydantic import ValidationError

from edgekd.errors import RecipeError, UsageError
from edgekd.loading import words
from edgekd.loading.overrides import apply
from edgekd.loading.places import Places
from edgekd.loading.shape import Rooted
from edgekd.loading.source import parse
from edgekd.recipe.profile import Profile

OPTIONS = {
    "devices": "--device NAME",
    "threads": "--threads N",
    "accuracy": "--accuracy N",
    "sustained_minutes": "--sustained MINUTES",
}
"""Keys of the section that have an option."""


def protocol(overrides: Sequence[str], sustained: float = 0) -> Profile:
    """Return the protocol.

    Args:
        overrides: ``KEY=VALUE`` of each ``--set``; ``profile.KEY`` is the same key.
        sustained: Minutes that each file runs without a pause.

    Raises:
        UsageError: A key has an option.
        RecipeError: A key or its value is wrong; all mistakes at once.
    """
    value = Rooted({}, Profile)
    places = Places(parse("{}", "--set"))
    problems = apply([text.removeprefix("profile.") for text in overrides], value, places)  # as a recipe names them
    for key in OPTIONS.keys() & value.keys():
        raise UsageError(f"--set {key}: it has an option", f"type {OPTIONS[key]}")
    try:
        found = Profile.model_validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        problems = places.problems(words.drafts(error, value)) + problems
    if problems:
        raise RecipeError(problems)
    return found.model_copy(update={"sustained_minutes": sustained})


def typed(used: Profile) -> Iterator[str]:
    """Yield ``KEY=VALUE`` of each key that is not the default and has no option."""
    for key, value in used.model_dump(mode="json", exclude_defaults=True).items():
        if key not in OPTIONS:
            yield f"{key}={value}"
