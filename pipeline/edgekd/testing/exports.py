"""The network whose files the suites compare with torch."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from edgekd.devices import schema, targets
from edgekd.exporting.exporter import Source
from edgekd.quantization import qat
from edgekd.quantization.fold import fold
from edgekd.quantization.rounded import rounded
from edgekd.recipe.export import Precision

SIZE, N = 12, 8


def images(count: int = N, seed: int = 1) -> Tensor:
    """Return smooth random images, N×3×12×12: neighbours are alike, as in photographs."""
    noise = torch.randn(count, 3, SIZE // 2, SIZE // 2, generator=torch.Generator().manual_seed(seed))
    return nn.functional.interpolate(noise, size=(SIZE, SIZE), mode="bilinear")


@cache
def _network() -> nn.Module:
    """Convolutions, of which one has a stride, ReLU, a global mean and a linear layer: what every runtime can have."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 16, 3, 1, 1), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10),
        ).eval()  # fmt: skip


@cache
def _folded() -> fx.GraphModule:
    return fold(_network(), images(1))


def network(precision: Precision = "float32") -> Source:
    """Return the float network, with the weights that a file of a precision holds."""
    return Source(rounded(_folded(), precision), images(1), samples=images(16, seed=5))


@cache
def _prepared() -> qat.Prepared:
    prepared = qat.prepare(_network(), images(1), weight_bits=targets.weight_bits_for([schema.load("host")]))
    with torch.no_grad():
        for seed in (2, 3, 4):
            prepared.module(images(16, seed))
    qat.freeze_observers(prepared.module)
    return prepared


def quantized() -> Source:
    """Return the int8 network, with the bits of a weight that runtimes on this machine add up without saturating."""
    prepared = _prepared()

    def int8(fold_weights: bool) -> fx.GraphModule:
        return qat.convert(prepared.module, fold_weights=fold_weights)

    return Source(_network(), images(1), int8, prepared.float_ops)


def expected(source: Source, precision: Precision) -> NDArray[np.float32]:
    """Return what torch computes for the images."""
    with torch.no_grad():
        found: NDArray[np.float32] = source.graph(precision)(images()).numpy()
    return found
