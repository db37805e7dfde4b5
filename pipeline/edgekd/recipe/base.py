"""Base classes of all sections of a recipe."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

from edgekd.errors import did_you_mean
from edgekd.runtimes.base import runtimes

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]


class Strict(BaseModel):
    """A frozen part of a recipe that knows all its keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)


def _runtime(name: str) -> str:
    if name not in runtimes:
        raise mistake(f"unknown format {name!r}", did_you_mean(name, runtimes.names()))
    return name


Format = Annotated[str, AfterValidator(_runtime)]
"""Name of a runtime, by the format of its files."""


def mistake(message: str, hint: str, key: str = "") -> PydanticCustomError:
    """Return an error for a validator to raise: what is wrong, what to write instead, and at which key of a mapping."""
    return PydanticCustomError("mistake", "{message}", {"message": message, "hint": hint, "key": key})
