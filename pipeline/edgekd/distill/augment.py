"""Crop, flip and erase for a whole batch: torchvision's draws and torchvision's pixels, in less time.

torchvision's transforms take one image a call, and on small images the calls cost more than the work
(benchmarks/results/distill_speed.md). Here each image's
draws come from a generator of its own, in the order in which torchvision makes them, and the batch is changed at once.
What there is no such form of goes through torchvision (:func:`edgekd.distill.feed.transforms`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator

from edgekd.recipe_data import Data

Images = NDArray[np.uint8]


class Step(Protocol):
    """One augmentation: ``draw`` for each image, then ``apply`` to the batch."""

    def draw(self, generator: Generator) -> Any:
        """Return one image's draw."""

    def apply(self, images: Images, draws: Sequence[Any]) -> Images:
        """Return the changed batch, uint8 N×C×S×S; ``images`` may be written into."""


@dataclass(frozen=True)
class Crop:
    """``RandomCrop(size, padding)``: pad with zeros, cut out ``size`` × ``size``."""

    size: int
    padding: int

    def draw(self, generator: Generator) -> tuple[int, int]:
        """Return (top, left)."""
        return _integer(2 * self.padding + 1, generator), _integer(2 * self.padding + 1, generator)

    def apply(self, images: Images, draws: Sequence[tuple[int, int]]) -> Images:
        """Cut each image out of its padded form."""
        around, size = (self.padding, self.padding), self.size
        padded = np.pad(images, ((0, 0), (0, 0), around, around))
        for image, whole, (top, left) in zip(images, padded, draws, strict=True):
            image[:] = whole[:, top : top + size, left : left + size]
        return images


@dataclass(frozen=True)
class Flip:
    """``RandomHorizontalFlip()``: left-right, one image in two."""

    def draw(self, generator: Generator) -> bool:
        """Return whether to flip."""
        return _uniform(0.0, 1.0, generator) < 0.5

    def apply(self, images: Images, draws: Sequence[bool]) -> Images:
        """Flip the images that were drawn."""
        chosen = np.flatnonzero(draws)
        images[chosen] = images[chosen, :, :, ::-1]
        return images


@dataclass(frozen=True)
class Erase:
    """``RandomErasing()``: black out a box of 2 to 33 % of every second image (Zhong et al. 2020, algorithm 1)."""

    size: int

    def draw(self, generator: Generator) -> tuple[int, int, int, int] | None:
        """Return (top, left, height, width), or None: not this image."""
        if _uniform(0.0, 1.0, generator) >= 0.5:
            return None
        low, high = torch.log(torch.tensor((0.3, 3.3))).tolist()
        for _ in range(10):
            area = self.size**2 * _uniform(0.02, 0.33, generator)
            ratio = torch.exp(torch.tensor(_uniform(low, high, generator))).item()  # in float32, as torchvision
            height, width = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if height < self.size and width < self.size:
                return (
                    _integer(self.size - height + 1, generator),
                    _integer(self.size - width + 1, generator),
                    height,
                    width,
                )
        return None

    def apply(self, images: Images, draws: Sequence[tuple[int, int, int, int] | None]) -> Images:
        """Black out the boxes."""
        for image, box in zip(images, draws, strict=True):
            if box is not None:
                top, left, height, width = box
                image[:, top : top + height, left : left + width] = 0
        return images


def steps(data: Data) -> tuple[Step, ...] | None:
    """The recipe's augmentation for whole batches; None where one of them is torchvision's alone."""
    built: dict[str, Step] = {
        "crop": Crop(data.image_size, padding_of(data)),
        "flip": Flip(),
        "erase": Erase(data.image_size),
    }
    return tuple(built[name] for name in data.augment) if built.keys() >= set(data.augment) else None


def padding_of(data: Data) -> int:
    """Pixels that ``crop`` adds on each side."""
    return max(1, data.image_size // 8)


def apply(chosen: Sequence[Step], images: Images, seeds: Sequence[int]) -> Images:
    """Augment a batch in place; image i's draws are a function of ``seeds[i]`` alone."""
    generator = Generator()
    draws: list[list[Any]] = [[] for _ in chosen]
    for seed in seeds:
        generator.manual_seed(seed)
        for step, drawn in zip(chosen, draws, strict=True):
            drawn.append(step.draw(generator))
    for step, drawn in zip(chosen, draws, strict=True):
        images = step.apply(images, drawn)
    return images


def _integer(count: int, generator: Generator) -> int:
    return int(torch.randint(0, count, (), generator=generator))


def _uniform(low: float, high: float, generator: Generator) -> float:
    return torch.empty(1).uniform_(low, high, generator=generator).item()
