"""Origin of a recipe's samples: a name in the registry of sources, and a place after the colon."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Protocol

from pydantic import BeforeValidator

from edgekd.errors import UsageError, did_you_mean
from edgekd.recipe.base import mistake
from edgekd.registry import sources


class Declared(Protocol):
    """The facts that a source states of itself; :class:`edgekd.data.sources.base.Source` reads it."""

    form: str
    """As it is written in a recipe: its name alone, or with what follows, such as ``npz:FILE``."""
    summary: str
    """One line for ``edgekd list data``."""
    labelled: bool
    """True if its training samples have targets."""
    pictures: bool
    """True if its samples are pictures of 1 or 3 channels; arrays have any number."""
    is_path: bool
    """True if a path of this machine follows its name."""
    opens_libraries: bool
    """True if reading it imports a large library, such as torch: a plan does not do that."""


def parts(source: str) -> tuple[str, str]:
    """Return the name of a source and what follows it.

    Example:
        >>> parts("npz:a.npz"), parts("random")
        (('npz', 'a.npz'), ('random', ''))
    """
    kind, _, place = source.partition(":")
    return kind, place


def declared(source: str) -> Declared:
    """Return the facts that the source of a recipe states of itself.

    Raises:
        UsageError: There is none of this name, or its package cannot be imported.
    """
    found: Declared = sources.get(parts(source)[0])()
    return found


def catalogue() -> Iterator[Declared]:
    """Yield the facts of each source that can be used, those without a place first."""
    found: list[Declared] = [kind() for kind in sources.usable().values()]
    yield from sorted(found, key=lambda each: ":" in each.form)


def is_source(value: str) -> bool:
    """Return True if a text is written as a source is."""
    kind, place = parts(value)
    return kind in sources and (":" in declared(kind).form) == bool(place) and (bool(place) or ":" not in value)


def _checked(value: str) -> str:
    try:
        if is_source(value):
            return value
    except UsageError as error:  # a plug-in that cannot be imported
        raise mistake(error.message, error.hint) from None
    raise mistake(f"{value!r} is not a data source", hint(value))


def hint(value: str, otherwise: str = "allowed: ") -> str:
    """Return the source that was probably meant, or all forms of sources after ``otherwise``."""
    forms = [each.form for each in catalogue()]
    meant = did_you_mean(value, [form for form in forms if ":" not in form])
    return meant if meant.startswith("did you mean") else f"{otherwise}{', '.join(forms)}"


DataSource = Annotated[str, BeforeValidator(lambda v: _checked(v) if isinstance(v, str) else v)]
