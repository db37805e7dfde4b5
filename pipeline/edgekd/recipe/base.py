"""Base classes of all sections of a recipe."""

from __future__ import annotations

import json
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo
from pydantic_core import PydanticCustomError

from edgekd.errors import UsageError, did_you_mean
from edgekd.runtimes.base import runtimes

T = TypeVar("T")
Section = TypeVar("Section", bound=BaseModel)
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]


class Strict(BaseModel):
    """A frozen part of a recipe that knows all its keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)


def need(value: T | None, key: str) -> T:
    """Return a part that a recipe may leave out, for work that only recipes with it have.

    Raises:
        UsageError: The recipe leaves it out.
    """
    if value is None:
        raise UsageError(f"the recipe has no {key}, and this needs one", f"add {key} to the recipe")
    return value


def _runtime(name: str) -> str:
    if name not in runtimes:
        raise mistake(f"unknown format {name!r}", did_you_mean(name, runtimes.names()))
    return name


Format = Annotated[str, AfterValidator(_runtime)]
"""Name of a runtime, by the format of its files."""


def validated(schema: type[Section], value: Any, info: ValidationInfo) -> Section:
    """Validate a part of a recipe with a schema that its own content has chosen.

    It is as strict as the rest of a recipe file: pydantic does not hand the mode of a validation down to a validator.
    """
    if info.mode == "json":
        return schema.model_validate_json(json.dumps(value), strict=True)
    return schema.model_validate(value)


def mistake(message: str, hint: str, key: str = "") -> PydanticCustomError:
    """Return an error for a validator to raise: what is wrong, what to write instead, and at which key of a mapping."""
    return PydanticCustomError("mistake", "{message}", {"message": message, "hint": hint, "key": key})
