"""Augmentation of a whole batch: torchvision's draws and torchvision's pixels, in less time.

torchvision's transforms take one image a call, and on small images the calls cost more than the work
(benchmarks/results/distill_speed.md). Here each image's
draws come from a generator of its own, in the order in which torchvision makes them, and the batch is changed at once.
What there is no such form of goes through torchvision (:func:`edgekd.data.batches.transforms`).

Where a teacher sees the samples in another way than its student, both views get one draw: what is drawn in pixels of the
student's images is taken in proportion on images of another size, to the nearest pixel.
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

from edgekd.models.torchvision import import_torchvision
from edgekd.recipe.data import Data

Images = NDArray[np.uint8]

ROTATION = 10.0  # degrees to either side
JITTER = 0.2  # change of brightness, contrast and saturation


class Step(Protocol):
    """One augmentation: ``draw`` for each image, then ``apply`` to the batch."""

    def draw(self, generator: Generator) -> Any:
        """Return one image's draw."""

    def apply(self, images: Images, draws: Sequence[Any]) -> Images:
        """Return the changed batch, uint8 N×C×H×W of any size; ``images`` may be written into."""


@dataclass(frozen=True)
class Crop:
    """``RandomCrop(size, padding)``: pad with zeros, cut out ``size`` (height and width)."""

    size: tuple[int, int]
    padding: int

    def draw(self, generator: Generator) -> tuple[int, int]:
        """Return (top, left)."""
        return _integer(2 * self.padding + 1, generator), _integer(2 * self.padding + 1, generator)

    def apply(self, images: Images, draws: Sequence[tuple[int, int]]) -> Images:
        """Cut each image out of its padded form."""
        (height, width), scales = images.shape[-2:], _scales(images, self.size)
        padding = [math.ceil(self.padding * scale) for scale in scales]
        padded = np.pad(images, ((0, 0), (0, 0), *((pixels, pixels) for pixels in padding)))
        for image, whole, draw in zip(images, padded, draws, strict=True):
            top, left = (
                pixels + round((start - self.padding) * scale)
                for pixels, start, scale in zip(padding, draw, scales, strict=True)
            )
            image[:] = whole[:, top : top + height, left : left + width]
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

    size: tuple[int, int]

    def draw(self, generator: Generator) -> tuple[int, int, int, int] | None:
        """Return (top, left, height, width), or None: not this image."""
        if _uniform(0.0, 1.0, generator) >= 0.5:
            return None
        low, high = torch.log(torch.tensor((0.3, 3.3))).tolist()
        for _ in range(10):
            area = math.prod(self.size) * _uniform(0.02, 0.33, generator)
            ratio = torch.exp(torch.tensor(_uniform(low, high, generator))).item()  # in float32, as torchvision
            height, width = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if height < self.size[0] and width < self.size[1]:
                return (
                    _integer(self.size[0] - height + 1, generator),
                    _integer(self.size[1] - width + 1, generator),
                    height,
                    width,
                )
        return None

    def apply(self, images: Images, draws: Sequence[tuple[int, int, int, int] | None]) -> Images:
        """Black out the boxes."""
        down, across = _scales(images, self.size)
        for image, box in zip(images, draws, strict=True):
            if box is not None:
                top, left, height, width = box
                bottom, right = round((top + height) * down), round((left + width) * across)
                image[:, round(top * down) : bottom, round(left * across) : right] = 0
        return images


@dataclass(frozen=True)
class Rotate:
    """``RandomRotation(degrees)``: about the middle."""

    degrees: float

    def draw(self, generator: Generator) -> float:
        """Return the angle in degrees."""
        return _uniform(-self.degrees, self.degrees, generator)

    def apply(self, images: Images, draws: Sequence[float]) -> Images:
        """Rotate each image by its angle."""
        rotate = import_torchvision().transforms.v2.functional.rotate
        for image, angle in zip(images, draws, strict=True):
            image[:] = rotate(torch.from_numpy(image), angle).numpy()
        return images


@dataclass(frozen=True)
class Color:
    """``ColorJitter(amount, amount, amount)``: brightness, contrast and saturation, in an order that is drawn too."""

    amount: float

    def draw(self, generator: Generator) -> tuple[tuple[int, float], ...]:
        """Return which of the three (0, 1, 2) are changed in turn, and each one's factor."""
        order = torch.randperm(4, generator=generator).tolist()  # 3 is the hue, which stays
        factors = [_uniform(1 - self.amount, 1 + self.amount, generator) for _ in range(3)]
        return tuple((which, factors[which]) for which in order if which < 3)

    def apply(self, images: Images, draws: Sequence[tuple[tuple[int, float], ...]]) -> Images:
        """Change each image's colors; a grey one has no saturation."""
        functional = import_torchvision().transforms.v2.functional
        adjust = (functional.adjust_brightness, functional.adjust_contrast, functional.adjust_saturation)
        for image, turns in zip(images, draws, strict=True):
            changed = torch.from_numpy(image)
            for which, factor in turns:
                changed = adjust[which](changed, factor)
            image[:] = changed.numpy()
        return images


def steps(data: Data) -> tuple[Step, ...] | None:
    """The recipe's augmentation for whole batches; None where one of them is torchvision's alone."""
    built: dict[str, Step] = {
        "crop": Crop(data.size, padding_of(data)),
        "flip": Flip(),
        "erase": Erase(data.size),
        "rotate": Rotate(ROTATION),
        "color": Color(JITTER),
    }
    return tuple(built[name] for name in data.augment) if built.keys() >= set(data.augment) else None


def padding_of(data: Data) -> int:
    """Pixels that ``crop`` adds on each side."""
    return max(1, min(data.size) // 8)


def apply(chosen: Sequence[Step], views: Sequence[Images], seeds: Sequence[int]) -> list[Images]:
    """Augment a batch in place, each view of it alike; sample i's draws are a function of ``seeds[i]`` alone."""
    generator = Generator()
    draws: list[list[Any]] = [[] for _ in chosen]
    for seed in seeds:
        generator.manual_seed(seed)
        for step, drawn in zip(chosen, draws, strict=True):
            drawn.append(step.draw(generator))
    changed = list(views)
    for step, drawn in zip(chosen, draws, strict=True):
        changed = [step.apply(images, drawn) for images in changed]
    return changed


def _scales(images: Images, size: tuple[int, int]) -> tuple[float, float]:
    """Return what a pixel of the student's images is on these, down and across."""
    return images.shape[-2] / size[0], images.shape[-1] / size[1]


def _integer(count: int, generator: Generator) -> int:
    return int(torch.randint(0, count, (), generator=generator))


def _uniform(low: float, high: float, generator: Generator) -> float:
    return torch.empty(1).uniform_(low, high, generator=generator).item()
