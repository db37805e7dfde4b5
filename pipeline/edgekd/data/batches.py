"""Batches: augmented training images in an order and with draws that depend on (seed, epoch, index) alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from edgekd.data import augment
from edgekd.data.dataset import DataSet, Split
from edgekd.data.preprocessing import Preprocessing
from edgekd.models.torchvision import import_torchvision
from edgekd.recipe.data import Data
from edgekd.task.image_classification import IMAGE

Batch = tuple[dict[str, Tensor], Tensor, Tensor, *tuple[dict[str, Tensor], ...]]
"""Stored samples by the name of the input, their targets (N×…), their places (int64, N), and the same of each other view."""


class Augmented(Dataset[Batch]):
    """Training samples, images with their random transforms; set ``epoch`` before each pass.

    Args:
        split: The samples.
        data: The recipe's data section.
        seed: Of the draws.
        views: The same samples as others see them, who get the same draws.
    """

    def __init__(self, split: Split, data: Data, seed: int, views: Sequence[Split] = ()) -> None:
        self.split = split
        self.views = views
        self.seed = seed
        self.epoch = 0
        self._steps = augment.steps(data)
        self._transform: Any = transforms(data) if self._steps is None else None

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> Batch:
        return self.__getitems__([index])

    def __getitems__(self, indices: list[int]) -> Batch:
        """Return a batch."""
        views = [split.stacked(indices) for split in (self.split, *self.views)]
        images = [view[IMAGE] for view in views if IMAGE in view]
        seeds = [draw_seed(self.seed, self.epoch, index) for index in indices]
        if self._steps is not None:
            changed = augment.apply(self._steps, images, seeds) if self._steps else images
            augmented = [torch.from_numpy(part) for part in changed]
        else:
            augmented = [
                torch.stack([self._drawn(torch.from_numpy(i), seed) for i, seed in zip(part, seeds, strict=True)])
                for part in images
            ]
        found = iter(augmented)
        batch, *others = [
            {name: next(found) if name == IMAGE else torch.from_numpy(rows) for name, rows in view.items()} for view in views
        ]
        return batch, torch.from_numpy(self.split.targets[indices]), torch.tensor(indices), *others

    def _drawn(self, image: Tensor, seed: int) -> Tensor:
        """One image through torchvision, which draws from the global generator."""
        # The CPU generator alone: torch.manual_seed also queues a stack trace for CUDA, five times slower than a draw.
        generator = torch.default_generator
        state = generator.get_state()
        generator.manual_seed(seed)
        drawn: Tensor = self._transform(image)
        generator.set_state(state)
        return drawn


class Shuffled(Sampler[int]):
    """A permutation for each epoch, decided by (seed, epoch)."""

    def __init__(self, count: int, seed: int) -> None:
        self.count = count
        self.seed = seed
        self.epoch = 0

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(draw_seed(self.seed, self.epoch, -1))
        return iter(torch.randperm(self.count, generator=generator).tolist())


def draw_seed(seed: int, epoch: int, index: int) -> int:
    """A 63-bit seed for one sample's draw (splitmix64 over the three numbers)."""
    value = 0
    for part in (seed, epoch, index):
        value = (value + (part & 0xFFFFFFFFFFFFFFFF) + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
        value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
        value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
        value ^= value >> 31
    return value >> 1


def loader(
    split: Split, data: Data, batch_size: int, seed: int, views: Sequence[Split] = ()
) -> tuple[DataLoader[Any], Augmented, Shuffled]:
    """Return the training batches, with what decides their draws and their order.

    A last batch of another size is dropped.
    """
    dataset, sampler = Augmented(split, data, seed, views), Shuffled(len(split), seed)
    batches: DataLoader[Any] = DataLoader(
        dataset, batch_size=min(batch_size, len(split)), sampler=sampler, drop_last=True, collate_fn=_whole
    )
    return batches, dataset, sampler


def _whole(batch: Any) -> Any:
    """What ``__getitems__`` returns is a batch already."""
    return batch


def transforms(data: Data) -> Any:
    """The recipe's augmentation as one torchvision v2 transform of a uint8 image, or None."""
    v2 = import_torchvision().transforms.v2
    builders = {
        "crop": lambda: v2.RandomCrop(data.size, padding=augment.padding_of(data)),
        "flip": v2.RandomHorizontalFlip,
        "rotate": lambda: v2.RandomRotation(augment.ROTATION),
        "color": lambda: v2.ColorJitter(*[augment.JITTER] * 3),
        "erase": v2.RandomErasing,
        "trivial": v2.TrivialAugmentWide,
    }
    chosen = [builders[name]() for name in data.augment]
    return v2.Compose(chosen) if chosen else None


class Normalize(torch.nn.Module):
    """:meth:`Preprocessing.arrays <edgekd.data.preprocessing.Preprocessing.arrays>` of tensors, on their device."""

    mean: Tensor
    std: Tensor

    def __init__(self, rule: Preprocessing) -> None:
        super().__init__()
        self._channels, self._scale = rule.channels, rule.scale
        self.register_buffer("mean", torch.tensor(rule.mean).reshape(-1, 1, 1))
        self.register_buffer("std", torch.tensor(rule.std).reshape(-1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Return float32 N×channels×H×W of uint8 N×C×H×W."""
        x = (images.to(torch.float32) / self._scale - self.mean) / self.std
        # channels last trains faster on a CPU: benchmarks/results/memory_format.md
        return x.expand(-1, self._channels, -1, -1).contiguous(memory_format=torch.channels_last)


class Prepare(torch.nn.Module):
    """From a batch as it is stored to what a network takes, by name, in the order of its arguments."""

    def __init__(self, data: DataSet) -> None:
        super().__init__()
        self._names = [port.name for port in data.purpose.signature.inputs]
        self._rules = torch.nn.ModuleDict({name: Normalize(rule) for name, rule in data.rules.items()})

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the inputs."""
        return {name: self._rules[name](batch[name]) if name in self._rules else batch[name] for name in self._names}
