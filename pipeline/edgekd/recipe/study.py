"""The typed schema of a study: one recipe, several pairs of teacher and student, several methods, several seeds."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import Field, field_validator

from edgekd.recipe import Baseline
from edgekd.recipe.base import Strict, mistake

BASELINES: tuple[str, ...] = get_args(Baseline)
RESERVED = ("teacher", *BASELINES)
SHIPPING = ("quantize", "export", "profile", "gates")
"""Sections of a recipe that a study leaves out, save with ``artifacts``."""


class Study(Strict):
    """One study: every method trains the student of every pair with every seed, on the recipe's budget."""

    study: Annotated[Literal[1], Field(examples=[1])]
    """Version of this schema."""
    recipe: Annotated[str | dict[str, Any], Field(examples=["mobilenet"])]
    """What all have in common: a recipe's file, relative to this one, the name of one that ships, or its keys."""
    pairs: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Keys of the recipe that are others in each pair, such as teacher and student. Left out: the recipe's own pair."""
    methods: Annotated[dict[str, list[Any] | dict[str, Any]], Field(examples=[{"fitnet": [{"kind": "fitnet"}]}])]
    """What is compared, by name: a list of losses, or keys of the recipe that are others in this method."""
    seeds: Annotated[int, Field(ge=2)] = 3
    """Students of each method and pair: with the recipe's seed, the one after it and so on, and one teacher."""
    baselines: tuple[str, ...] = ("student_alone", "kd")
    """Methods that every other one is compared with: student_alone, without a teacher; kd, with labels and Hinton's
    distillation; tuned_kd, the same with a temperature and a weight that were searched for; or a method's name."""
    artifacts: bool = False
    """Do what the recipe says of quantize, export, profile and gates too, for the first seed's student of each method."""

    @field_validator("pairs", "methods")
    @classmethod
    def _names(cls, value: dict[str, Any]) -> dict[str, Any]:
        for name in value:
            if not name.replace("-", "_").replace(".", "_").isidentifier() and not name.isalnum():
                raise mistake(f"{name!r} is no name", "use letters, digits, '-', '_' and '.': it names a folder", name)
        return value

    @field_validator("baselines")
    @classmethod
    def _once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if value.count(name) > 1:
                raise mistake(f"{name} is listed twice", "remove one of them")
        return value

    @field_validator("methods")
    @classmethod
    def _free(cls, value: dict[str, Any]) -> dict[str, Any]:
        if not value:
            raise mistake("there is nothing to compare", "add a method, such as fitnet: [{kind: task}, {kind: fitnet}]")
        for name in RESERVED:
            if name in value:
                if name == "teacher":
                    raise mistake("teacher is the teacher's own row", "call it otherwise, or leave it out", name)
                raise mistake(f"{name} is a baseline", "list it in baselines, or call this otherwise", name)
        return value
