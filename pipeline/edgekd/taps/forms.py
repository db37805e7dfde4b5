"""Form of a feature in memory, and its map: N×C×H×W, N×H×W×C, or tokens with class and register tokens in front."""

from __future__ import annotations

import math
from typing import Literal

from torch import Tensor

Form = Literal["map", "nhwc", "tokens", "vector", "attention"]
"""map: N×C×H×W. nhwc: N×H×W×C. tokens: N×L×C. vector: N×C. attention: queries, keys and values, N×3×heads×L×C."""

EXTRA_TOKENS = 16  # at most: a class token, one for distillation, registers (4 in DINOv2)


class Forms:
    """Tells the form of one value after the other, as a network computes them from images of one size.

    Nothing in a shape says which axis is which. A map has about the proportions of the image; tokens are as many as the
    pixels of a map that was there before (the patches), and a few more; where none was, as many as a grid of the image's
    proportions has.

    Args:
        image: Height and width of the images.
    """

    def __init__(self, image: tuple[int, int]) -> None:
        self._image = image
        self._grids: set[tuple[int, int]] = set()
        self._tokens_seen = False

    def of(self, shape: tuple[int, ...], before: Form | None, turned: bool) -> tuple[Form, tuple[int, ...]] | None:
        """Return the form of a value and its shape as a map, (C, H, W); None for what is no map.

        Args:
            shape: Without the batch.
            before: Form of the four-dimensional value it was made from, if there was one.
            turned: Whether it was made by a permutation of the axes.
        """
        if len(shape) == 2:
            return self._tokens(shape[0], shape[1])
        if len(shape) != 3:
            return None
        ends, begins = (self._alike(*sides) for sides in ((shape[1], shape[2]), (shape[0], shape[1])))
        form: Form = "nhwc" if begins and not ends else "map"
        if begins and ends:  # its channels are as many as pixels a side: only its origin tells
            form = "nhwc" if (before == "nhwc") != turned else "map"
        mapped = (shape[2], *shape[:2]) if form == "nhwc" else shape
        self._grids.add((mapped[1], mapped[2]))
        return form, mapped

    def _tokens(self, count: int, channels: int) -> tuple[Form, tuple[int, ...]] | None:
        near = [(h, w) for h, w in self._grids if h * w > 1 and 0 <= count - h * w <= EXTRA_TOKENS]
        if not near and not self._tokens_seen and (whole := self._grid(count)):
            near = [whole]
        if not near:
            return None
        self._tokens_seen = True
        grid = max(near, key=math.prod)
        self._grids.add(grid)
        return "tokens", (channels, *grid)

    def _alike(self, height: int, width: int) -> bool:
        """Return True if two sides have the proportions of the image, to a pixel: strides round."""
        tall, wide = self._image
        return height == width if tall == wide else abs(height * wide - width * tall) < max(tall, wide)

    def _grid(self, count: int) -> tuple[int, int] | None:
        """Return the largest grid of the image's proportions with so many patches, or a few less; None: there is none."""
        tall, wide = self._image
        parts = math.gcd(tall, wide)
        step = tall // parts * (wide // parts)
        side = math.isqrt(count // step)
        found = side * (tall // parts), side * (wide // parts)
        return found if side and found != (1, 1) and count - math.prod(found) <= EXTRA_TOKENS else None


def as_map(feature: Tensor, form: Form, size: tuple[int, ...]) -> Tensor:
    """Return a feature as a map, N×C×H×W, of ``size`` (H, W); tokens lose those in front that are no patch."""
    if form == "nhwc":
        return feature.permute(0, 3, 1, 2)
    if form == "tokens":
        patches = feature[:, feature.shape[1] - math.prod(size) :].transpose(1, 2)
        return patches.reshape(*patches.shape[:2], *size)
    return feature


def as_vector(feature: Tensor, form: Form) -> Tensor:
    """Return a feature as N×C: the mean over the pixels or tokens of what has such."""
    if feature.ndim == 4:
        return feature.mean((1, 2) if form == "nhwc" else (2, 3))
    return feature.mean(1) if form == "tokens" else feature.flatten(1)
