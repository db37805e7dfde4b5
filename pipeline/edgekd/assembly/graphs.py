"""The trained student as graphs. Most stages start with one: it is traced once a process, and each gets a copy."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from edgekd import cache
from edgekd.assembly import networks
from edgekd.recipe import Recipe

if TYPE_CHECKING:
    from torch import fx, nn

    from edgekd.task.base import Purpose

KEPT = 2
"""Graphs in memory: the float one and the one that becomes int8."""
_traced: dict[str, fx.GraphModule] = {}


def folded(recipe: Recipe, purpose: Purpose, weights: Path) -> fx.GraphModule:
    """The student in float, as ``quantize.fold`` returns it.

    Args:
        recipe: It decides the network.
        purpose: What the student is for.
        weights: Of a finished stage.
    """
    from edgekd.models import build
    from edgekd.quantization.fold import fold

    def make() -> fx.GraphModule:
        return fold(networks.student(recipe, purpose, weights), build.one_input(purpose.signature))

    return _once(recipe, purpose, weights, "float", make)


def normalised(recipe: Recipe, purpose: Purpose, student: nn.Module, weights: Path, taps: tuple[str, ...]) -> fx.GraphModule:
    """The student in the operators of the int8 rules, as ``quantize.normalise`` returns it.

    Args:
        recipe: It decides the network.
        purpose: What the student is for.
        student: The network, in evaluation mode.
        weights: Of a finished stage, which the student has.
        taps: Modules whose outputs are returned behind the logits.
    """
    from edgekd.models import build
    from edgekd.quantization.normalise import normalise
    from edgekd.taps.taps import Tapped

    def make() -> fx.GraphModule:
        return normalise(Tapped(student, taps).eval(), build.one_input(purpose.signature))

    return _once(recipe, purpose, weights, f"int8 {taps}", make)


def _once(recipe: Recipe, purpose: Purpose, weights: Path, kind: str, make: Callable[[], fx.GraphModule]) -> fx.GraphModule:
    """Make a graph, or copy the one that was made from the same network and weights before."""
    inputs = [str(port) for port in purpose.signature.inputs]
    key = cache.key_of(networks.model_config(recipe, "student") | {"weights": str(weights), "inputs": inputs, "kind": kind})
    if key not in _traced:
        graph = make()
        while len(_traced) >= KEPT:
            del _traced[next(iter(_traced))]
        _traced[key] = graph
    with warnings.catch_warnings():
        # Raised by torch inside its own copy code.
        warnings.filterwarnings("ignore", category=FutureWarning, message=".*LeafSpec.*")
        return copy.deepcopy(_traced[key])
