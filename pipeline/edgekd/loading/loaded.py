"""A recipe that was read and checked."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from edgekd.loading.places import Placing
from edgekd.recipe import Lock, Recipe


@dataclass(frozen=True)
class Loaded:
    """A checked recipe.

    Attributes:
        recipe: The recipe, with absolute paths.
        name: What its runs are called: the file's stem; for a lock, the name of the recipe it was made from.
        path: The file, absolute.
        overrides: The ``--set`` values, as they were given.
        places: Where its values are written, for problems that are found later.
        lock: Of a lock, what it says of the files that were read, with absolute paths.
    """

    recipe: Recipe
    name: str
    path: Path
    overrides: tuple[str, ...] = ()
    places: Placing | None = field(default=None, compare=False, repr=False)
    lock: Lock | None = field(default=None, compare=False)

    @property
    def recipe_file(self) -> Path:
        """The recipe's own file: of a lock, the one that it was made from."""
        return Path(self.lock.recipe) if self.lock else self.path

    @property
    def folder(self) -> Path:
        """The folder from which files that the user's code reads are looked up."""
        return self.recipe_file.parent
