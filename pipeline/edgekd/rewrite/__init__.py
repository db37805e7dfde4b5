"""Changes of the float student that make int8 fast, made before distillation.

``student.rewrite`` of a recipe says which. Every stage that builds the student makes the same changes, so that weights
fit; what is not named is left alone, bit for bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from edgekd.errors import ModelError
from edgekd.recipe.student import Rewrite
from edgekd.rewrite import activations, squeeze, widths
from edgekd.task.named import Inputs


@dataclass(frozen=True)
class Change:
    """One rule of ``student.rewrite`` that was applied.

    Attributes:
        what: What was there, such as ``hardswish``.
        becomes: What is there now, such as ``relu6``.
        places: Module paths; a function called in a module's own ``forward`` counts under that module, each call once.
    """

    what: str
    becomes: str
    places: tuple[str, ...]

    def __str__(self) -> str:
        """Return it as ``hardswish → relu6: 19 places``."""
        return f"{self.what} → {self.becomes}: {len(self.places)} {'place' if len(self.places) == 1 else 'places'}"


@dataclass(frozen=True)
class Rewritten:
    """A student after its rewrite.

    Attributes:
        model: The network. It is the one that was given, changed in place, unless its own ``forward`` calls a replaced
            function: then it is a graph module with the same parameters under the same names.
        changes: What was done.
        left: Places that a rule means and that could not be changed, each with the reason.
    """

    model: nn.Module
    changes: tuple[Change, ...] = ()
    left: tuple[str, ...] = ()


def rewrite(model: nn.Module, rules: Rewrite, example: Inputs) -> Rewritten:
    """Apply the rules of a recipe to a student.

    Args:
        model: The student. Blocks and activations are recognised by what they compute, not by their names.
        rules: ``student.rewrite``.
        example: One sample.

    Raises:
        ModelError: A rule finds nothing to change, so the recipe does not mean this model; what it has is listed.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Hardswish(), nn.Flatten())
        >>> [str(change) for change in rewrite(net, Rewrite(hardswish="relu6"), torch.zeros(1, 3, 8, 8)).changes]
        ['hardswish → relu6: 1 place']
    """
    name = type(model).__name__
    changes = []
    if rules.se == "drop":
        places = squeeze.drop(model, example)
        if not places:
            raise ModelError(f"student.rewrite.se: {name} has no squeeze-excite block", "remove rewrite.se")
        changes.append(Change("squeeze-excite", "nothing", places))
    left: tuple[str, ...] = ()
    if rules.round_channels is not None:
        places, left = widths.round_up(model, rules.round_channels, example)
        changes.append(Change("channels", f"multiples of {rules.round_channels}", places))
    targets = rules.activations()
    if not targets:
        return Rewritten(model, tuple(changes), left)
    replaced = activations.replace(model, targets, example)
    for kind, target in targets.items():
        places = tuple(path for path, found in replaced.places if found == kind)
        if places:
            changes.append(Change(kind, target, places))
        elif not any(kind in reason for reason in replaced.left):
            rule = "gate" if kind in activations.GATES else kind
            raise ModelError(
                f"student.rewrite.{rule}: {name} has no {kind}; {_listed(activations.census(replaced.model, example))}",
                f"remove rewrite.{rule}",
            )
    return Rewritten(replaced.model, tuple(changes), (*left, *replaced.left))


def _listed(census: Mapping[str, int]) -> str:
    return f"it has {', '.join(f'{count} {kind}' for kind, count in census.items())}" if census else "it has no activation"
