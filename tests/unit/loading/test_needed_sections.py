"""Work that a recipe has no section for."""

from __future__ import annotations

import pytest

from edgekd.devices import targets
from edgekd.errors import ExitCode, UsageError
from edgekd.recipe import Recipe
from edgekd.stages import quantize


def test_the_missing_section_is_named() -> None:
    recipe = Recipe.model_validate({"edgekd": 2, "data": {"source": "fashion-mnist-mini"}})
    with pytest.raises(UsageError, match="the recipe has no profile") as caught:
        targets.named(recipe, "host")
    assert caught.value.exit_code == ExitCode.USAGE
    with pytest.raises(UsageError, match=r"the recipe has no quantize: \{method: qat\}"):
        quantize.budget(recipe)
