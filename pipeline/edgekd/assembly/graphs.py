"""The trained student as graphs. Most stages start with one: it is traced once a run, and each gets a copy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from edgekd import cache
from edgekd.assembly import networks
from edgekd.assembly.recent import Recent
from edgekd.models.copies import copied
from edgekd.recipe import Recipe

if TYPE_CHECKING:
    from torch import fx, nn

    from edgekd.task.base import Purpose, Signature
    from edgekd.task.named import Inputs

T = TypeVar("T")


def example(purpose: Purpose) -> Inputs:
    """Return one sample under the names of its file: ``input`` of an image classifier, else those of the signature."""
    from edgekd.models import build
    from edgekd.task.image_classification import KIND

    return build.one_input(purpose.signature) if purpose.task.kind == KIND else build.example(purpose.signature)


def named(purpose: Purpose, taken: Mapping[str, T]) -> dict[str, T]:
    """Return inputs, which have the names of the task's ports, under the names of its files: see :func:`example`."""
    from edgekd.task.image_classification import KIND
    from edgekd.task.named import ALONE

    return dict(zip([ALONE], taken.values(), strict=True)) if purpose.task.kind == KIND else dict(taken)


def ports(purpose: Purpose) -> Signature | None:
    """Return the ports of files as the task declares them; None where the graph tells them, as for images."""
    from edgekd.task.image_classification import KIND

    return None if purpose.task.kind == KIND else purpose.signature


def folded(made: Recent[fx.GraphModule], recipe: Recipe, purpose: Purpose, weights: Path) -> fx.GraphModule:
    """The student in float, as ``quantize.fold`` returns it.

    Args:
        made: Graphs of this run.
        recipe: It decides the network.
        purpose: What the student is for.
        weights: Of a finished stage.
    """
    from edgekd.quantization.fold import fold

    def make() -> fx.GraphModule:
        return fold(networks.student(recipe, purpose, weights, whole=True), example(purpose))

    return _copy(made, _key(recipe, purpose, weights, "float"), make)


def normalised(
    made: Recent[fx.GraphModule], recipe: Recipe, purpose: Purpose, student: nn.Module, weights: Path, taps: tuple[str, ...]
) -> fx.GraphModule:
    """The student in the operators of the int8 rules, as ``quantize.normalise`` returns it.

    Args:
        made: Graphs of this run.
        recipe: It decides the network.
        purpose: What the student is for.
        student: The network with all outputs that are shipped, in evaluation mode.
        weights: Of a finished stage, which the student has.
        taps: Modules whose outputs are returned behind the logits.
    """
    from edgekd.quantization.normalise import normalise
    from edgekd.taps.taps import Tapped
    from edgekd.task.named import in_order, with_arguments

    def make() -> fx.GraphModule:
        given, network = in_order(student, example(purpose)), Tapped(student, taps, purpose.signature.output).eval()
        return normalise(network if len(given) == 1 else with_arguments(network, given), given)

    return _copy(made, _key(recipe, purpose, weights, f"int8 {taps}"), make)


def _key(recipe: Recipe, purpose: Purpose, weights: Path, kind: str) -> str:
    inputs = [str(port) for port in purpose.signature.inputs]
    return cache.key_of(networks.model_config(recipe, "student") | {"weights": str(weights), "inputs": inputs, "kind": kind})


def _copy(made: Recent[fx.GraphModule], key: str, make: Callable[[], fx.GraphModule]) -> fx.GraphModule:
    return copied(made.of(key, make))
