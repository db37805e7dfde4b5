"""A place in a network where a feature can be taken."""

from __future__ import annotations

from dataclasses import dataclass

from edgekd.taps import attention
from edgekd.taps.forms import Form


@dataclass(frozen=True)
class Layer:
    """A place where a feature can be taken.

    Attributes:
        path: Module path, or the name of a node of the traced graph.
        shape: Of the feature for one image, as a map whatever its form: (C, H, W), or (C,); of an attention
            (3, heads, tokens, C).
        form: How it comes out of the network.
    """

    path: str
    shape: tuple[int, ...]
    form: Form = "map"

    @property
    def channels(self) -> int:
        """Number of channels; of an attention, of one head."""
        return self.shape[-1] if self.form == "attention" else self.shape[0]

    @property
    def size(self) -> tuple[int, ...]:
        """Height and width; empty for what has none."""
        return () if self.form == "attention" else self.shape[1:]

    @property
    def tap(self) -> str:
        """The name that ``Tapped`` takes."""
        return self.path + attention.SUFFIX if self.form == "attention" else self.path

    def __str__(self) -> str:
        if self.form == "attention":
            return f"{self.path} ({self.shape[1]} heads of {self.channels} ch)"
        return f"{self.path} ({self.channels} ch)"
