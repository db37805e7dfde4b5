"""Conflicts between several keys of a recipe: combinations that cannot be run. One subject a file, one rule a function."""

from __future__ import annotations

from edgekd.loading.conflicts import rules
from edgekd.loading.conflicts.found import Found
from edgekd.loading.conflicts.tune import searched
from edgekd.recipe import Recipe


def conflicts(recipe: Recipe) -> Found:
    """Yield (key, message, hint) for each impossible combination."""
    yield from rules.conflicts(recipe)
    yield from searched(recipe)
