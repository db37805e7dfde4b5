"""What int8 really costs a network: trainings, and images that edgekd never sees."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_model, save_model
from torch import Tensor, nn

from edgekd.data import dataset
from edgekd.data.dataset import DataSet
from edgekd.recipe.data import Data
from edgekd.runtimes import base

SECTION = Data(source="fashion-mnist-mini", image_size=32, mean=(0.2863,), std=(0.34,))
"""Normalized by given numbers, which are the same with labels and without."""
UNSEEN = 5000
"""Images that the truth is told by; of 58,000 that fashion-mnist-mini has not."""
EPOCHS, MOST_EPOCHS, ENOUGH = 2, 6, 0.65
"""Epochs of a training; more, up to so many, until its validation accuracy is enough."""
BATCH, RATE = 64, 0.003


@dataclass(frozen=True)
class Samples:
    """Images as a network takes them (float32, N×3×32×32) and their labels (N)."""

    x: Tensor
    y: NDArray[np.int64]


@cache
def mini() -> DataSet:
    """fashion-mnist-mini as edgekd sees it."""
    return dataset.load(SECTION)


@cache
def samples(split: str) -> Samples:
    """``train``, ``val`` or ``test`` of fashion-mnist-mini."""
    part = getattr(mini(), split)
    return _samples(np.stack([part.images[index] for index in range(len(part))]), part.labels)


@cache
def unseen() -> Samples:
    """Images of Fashion-MNIST of which fashion-mnist-mini has none, pixel by pixel: the same ones each time.

    Raises:
        DataError: The Debian package dataset-fashion-mnist is not installed.
    """
    ours = mini()
    known = {_pixels(part.images[i]) for part in (ours.train, ours.val, ours.test) for i in range(len(part))}
    full = dataset.load(SECTION.model_copy(update={"source": "fashion-mnist"}))
    parts = [(part, index) for part in (full.train, full.val, full.test) for index in range(len(part))]
    images, labels = [], []
    for place in np.random.default_rng(0).permutation(len(parts)):
        part, index = parts[place]
        image = part.images[index]
        if (key := _pixels(image)) not in known:
            known.add(key)
            images.append(image)
            labels.append(part.labels[index])
        if len(images) == UNSEEN:
            break
    return _samples(np.stack(images), np.array(labels))


def _pixels(image: NDArray[np.uint8]) -> bytes:
    return hashlib.sha256(image.tobytes()).digest()


def _samples(images: NDArray[np.uint8], labels: NDArray[np.int64]) -> Samples:
    ours = mini()
    return Samples(torch.from_numpy(ours.preprocessing.arrays(images)), labels)


def trained(build: type[nn.Module], seed: int, path: Path) -> nn.Module:
    """Return the network with its weights of ``path``, which it is trained for and which are written if they are not there.

    Returns:
        It in evaluation mode, after ``finish``.
    """
    torch.manual_seed(seed)
    network = build(seed=seed)
    if path.exists():
        network.finish()  # of the draws, some stay in the network
        load_model(network, path)
        return network.eval()
    _train(network, seed)
    network.finish()
    path.parent.mkdir(parents=True, exist_ok=True)
    save_model(network, str(path))
    return network.eval()


def _train(network: nn.Module, seed: int) -> None:
    seen, held = samples("train"), samples("val")
    y = torch.from_numpy(seen.y)
    for epoch in range(MOST_EPOCHS):
        optimizer = torch.optim.Adam(network.parameters(), RATE)
        random = torch.Generator().manual_seed(1000 * seed + epoch)
        order = list(torch.randperm(len(y), generator=random).split(BATCH))
        for step, batch in enumerate(order):
            for group in optimizer.param_groups:
                group["lr"] = RATE * min(1, 2 * (1 - step / len(order)))
            optimizer.zero_grad()
            nn.functional.cross_entropy(network.train()(seen.x[batch]), y[batch]).backward()
            optimizer.step()
        accuracy = float((logits(network.eval(), held.x).argmax(1) == held.y).mean())
        if epoch + 1 >= EPOCHS and accuracy >= ENOUGH:
            return


@torch.no_grad()
def logits(network: nn.Module, x: Tensor) -> NDArray[np.float32]:
    """Of all images, in batches."""
    return np.concatenate([network(part).numpy() for part in _batches(x)])


def _batches(x: Tensor) -> Iterator[Tensor]:
    return iter(x.split(250))


def top1(outputs: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """Share of images of which the greatest output is the label."""
    return float((outputs.argmax(1) == labels).mean())


def file_logits(path: Path, format: str, x: Tensor) -> NDArray[np.float32]:
    """Of an exported file, in its own runtime."""
    return base.run_file(path, format, x.numpy())
