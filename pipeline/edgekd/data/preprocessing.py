"""The one description of how stored images become a network's input: for training, for evaluation and as text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Preprocessing:
    """``(x / scale - mean) / std`` in float32, in this order; grey images are repeated to all channels.

    Attributes:
        mean: Of pixels between 0 and 1: a number a channel, or one for all.
        std: The same.
        channels: That the network takes.
        size: Height and width that the images are resized to before; None: not known.
        scale: Of a stored pixel that is 1.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    channels: int
    size: tuple[int, int] | None = None
    scale: float = 255

    def arrays(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the input of uint8 N×C×H×W, float32 N×channels×H×W.

        Load snippets compute the same with numpy alone, and get the same bits.
        """
        x = images.astype(np.float32) / np.float32(self.scale)
        x = (x - np.asarray(self.mean, np.float32).reshape(-1, 1, 1)) / np.asarray(self.std, np.float32).reshape(-1, 1, 1)
        grey = x.shape[1] != self.channels
        return np.ascontiguousarray(np.broadcast_to(x, (len(x), self.channels, *x.shape[2:]))) if grey else x

    def text(self, stored: str, *, grey: bool) -> str:
        """Return lines of Python that make ``x`` of the stored images with numpy, each with the line's end.

        Args:
            stored: An expression, uint8 N×C×H×W.
            grey: Whether the images may have one channel where the network takes more.
        """
        lines = (
            f"x = {stored}.astype(np.float32) / np.float32({self.scale})\n"
            f"x = (x - np.float32({list(self.mean)}).reshape(-1, 1, 1)) / np.float32({list(self.std)}).reshape(-1, 1, 1)\n"
        )
        if grey and self.channels != 1:
            lines += f"x = np.ascontiguousarray(np.broadcast_to(x, (len(x), {self.channels}, *x.shape[2:])))\n"
        return lines

    def onto(self, other: Preprocessing) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
        """Return (scale, shift), C×1×1, that turn this input into another's; None: they are the same."""
        if (self.mean, self.std) == (other.mean, other.std):
            return None
        (mean, std), (own_mean, own_std) = (
            [np.asarray(v, np.float32).reshape(-1, 1, 1) for v in (each.mean, each.std)] for each in (self, other)
        )
        return std / own_std, (mean - own_mean) / own_std


def as_array(stored: NDArray[Any], rule: Preprocessing | None) -> NDArray[Any]:
    """Return what a network takes of stored samples; without a rule they are taken as they are."""
    return stored if rule is None else rule.arrays(stored)
