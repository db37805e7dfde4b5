"""Conflicts of the devices that a recipe is profiled on."""

from __future__ import annotations

from edgekd.loading.conflicts.found import Found
from edgekd.recipe import Recipe


def conflicts(recipe: Recipe) -> Found:
    """Find a profile of nothing, and two devices of one name."""
    if recipe.profile and not recipe.export:
        yield "profile", "there is nothing to profile: nothing is exported", "add export: [onnx]"
    named = recipe.profile.names if recipe.profile else ()
    for index, device in enumerate(named):
        if device in named[:index]:
            what = f"two devices are called {device}"
            yield f"profile.devices[{index}]", what, "remove one of them, or give its file another name"
