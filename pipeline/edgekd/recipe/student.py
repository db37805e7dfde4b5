"""The small model that is shipped, and how it is rewritten before it learns."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from edgekd.recipe.base import Strict
from edgekd.recipe.model import ModelSource

Activation = Literal["relu", "relu6"]
Shipped = Literal["primary", "all"] | tuple[str, ...]


class Rewrite(Strict):
    """Changes of the student before distillation, which recovers the accuracy."""

    hardswish: Activation | None = None
    """Replaces every hard-swish: XNNPACK has none in int8 and cuts the graph at each."""
    silu: Activation | None = None
    """Replaces every SiLU (swish)."""
    gelu: Activation | None = None
    """Replaces every GELU."""
    gate: Literal["keep", "sigmoid", "hardsigmoid"] = "keep"
    """sigmoid: replaces every hard-sigmoid, which int8 takes apart, by sigmoid, which is one operator. hardsigmoid: the
    reverse."""
    se: Literal["keep", "drop"] = "keep"
    """drop: takes every squeeze-excite block out, with its weights."""
    round_channels: Literal[8, 16, 32] | None = None
    """Rounds widths up to a multiple; the new channels start without any effect, so that loaded weights stay good."""

    def activations(self) -> dict[str, str]:
        """Return what becomes of each kind of activation that is replaced, such as ``{"hardswish": "relu6"}``."""
        targets: dict[str, str | None] = {"hardswish": self.hardswish, "silu": self.silu, "gelu": self.gelu}
        if self.gate != "keep":
            targets["sigmoid" if self.gate == "hardsigmoid" else "hardsigmoid"] = self.gate
        return {kind: target for kind, target in targets.items() if target is not None}


class Student(Strict):
    """The small model that is shipped."""

    model: Annotated[ModelSource, Field(examples=["torchvision:mobilenet_v2"])]
    """torchvision:NAME, timm:NAME, edgekd:NAME, or FILE.py:CALLABLE beside the recipe."""
    args: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of the model's builder; num_classes is set from the data."""
    weights: str | None = None
    """Checkpoint to start from, FILE#SET where it holds several sets of weights; a head of another size is left out, and
    a warning says so. Without a distill section it is the trained student."""
    outputs: Shipped = "primary"
    """Of a network with several outputs those that files have: primary, all, or a list of names beside the primary one.
    Losses and metrics read the primary one, such as the logits, so a distillation does not train the others, and the report
    says so. Parity, and int8 against float, are held on each."""
    rewrite: Rewrite = Rewrite()
    """Activations and blocks to replace before distillation, so that int8 is fast."""
