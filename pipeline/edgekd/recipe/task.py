"""The task of a recipe: a name in the registry of tasks."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator

from edgekd.errors import did_you_mean
from edgekd.recipe.base import mistake
from edgekd.registry import tasks


def _known(name: str) -> str:
    if name not in tasks:
        raise mistake(f"{name!r} is not a task", did_you_mean(name, tasks.names()))
    return name


TaskName = Annotated[str, AfterValidator(_known)]
