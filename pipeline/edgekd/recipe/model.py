"""Origin of a network, and distinct names for several networks."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated, Protocol, TypeVar

from pydantic import BeforeValidator

from edgekd.recipe.base import mistake

MODEL_SOURCES = ("torchvision:NAME", "timm:NAME", "edgekd:NAME", "FILE.py:CALLABLE")


def model_source(value: str, allowed: tuple[str, ...] = MODEL_SOURCES) -> str:
    """Return a network's source, or say what is wrong with it."""
    if re.fullmatch(r"(torchvision|timm|edgekd):[\w.\-]+", value) or re.fullmatch(r".+\.py:[A-Za-z_]\w*", value):
        return value
    if re.fullmatch(r"\w+", value):
        raise mistake(f"{value!r} does not say where the model is from", f"write torchvision:{value} or timm:{value}")
    if value.endswith(".py"):
        raise mistake(f"{value!r} does not say which function builds the model", f"write {value}:FUNCTION")
    raise mistake(f"{value!r} is not a model", f"allowed: {', '.join(allowed)}")


ModelSource = Annotated[str, BeforeValidator(lambda v: model_source(v) if isinstance(v, str) else v)]


class Named(Protocol):
    """A section with a network that may have a name."""

    @property
    def name(self) -> str | None:
        """Its name, if it is given one."""

    @property
    def model(self) -> str | None:
        """Its network."""


T = TypeVar("T", bound=Named)


def by_name(parts: Iterable[T]) -> dict[str, T]:
    """Sections by their names, or else their models'; the second of a model is called such as resnet18_2."""
    found: dict[str, T] = {}
    for part in parts:
        name = part.name or re.sub(r"\W", "_", (part.model or "teacher").rpartition(":")[2])
        number = next(n for n in range(1, len(found) + 2) if (f"{name}_{n}" if n > 1 else name) not in found)
        found[f"{name}_{number}" if number > 1 else name] = part
    return found
