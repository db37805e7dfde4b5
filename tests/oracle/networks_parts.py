"""What the networks of the oracle are made of."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

NETWORKS: dict[str, Callable[..., Network]] = {}
"""By name, in the order of their definition."""


class Network(nn.Module):
    """Draws from a generator of its own; ``finish`` is called once, behind the training."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.draw = Draw(f"{type(self).__name__} {seed}")

    def finish(self) -> None:
        """Change ranges, not values."""


class Draw(random.Random):
    """Random numbers for widths and ranges."""

    def log(self, low: float, high: float) -> float:
        """Draw from between two numbers, each ratio being as likely."""
        return math.exp(self.uniform(math.log(low), math.log(high)))

    def factors(self, count: int, ratio: float) -> Tensor:
        """Draw factors for channels, the greatest of which is ``ratio`` times the smallest."""
        values = [self.log(1, ratio) for _ in range(count)]
        values[0], values[-1] = 1.0, ratio
        return torch.tensor(values)


def network(build: type[Network]) -> type[Network]:
    NETWORKS[build.__name__] = build
    return build


class Unit(nn.Sequential):
    """Convolution, batch norm and, usually, an activation."""

    def __init__(
        self, a: int, b: int, stride: int = 1, *, kernel: int = 3, groups: int = 1, act: type[nn.Module] | None = nn.ReLU
    ) -> None:
        convolution = nn.Conv2d(a, b, kernel, stride, kernel // 2, groups=groups, bias=False)
        super().__init__(convolution, nn.BatchNorm2d(b), *([act()] if act else []))


def rescale(source: nn.Module, readers: Sequence[tuple[nn.Module, int]], factors: Tensor) -> None:
    """Multiply what ``source`` gives, behind a ReLU or nothing, by ``factors``; divide where it is read.

    Args:
        source: A unit, convolution or linear layer.
        readers: Each a unit or layer and the first of its input channels that ``source`` gives.
        factors: Positive, one a channel.
    """
    last = source[1] if isinstance(source, Unit) else source
    with torch.no_grad():
        last.weight.mul_(factors.view(-1, *[1] * (last.weight.ndim - 1)))
        last.bias.mul_(factors)
        for reader, start in readers:
            layer = reader[0] if isinstance(reader, Unit) else reader
            weight = layer.weight
            if getattr(layer, "groups", 1) > 1:  # depthwise
                weight.div_(factors.view(-1, 1, 1, 1))
            else:
                weight[:, start : start + len(factors)].div_(factors.view(1, -1, *[1] * (weight.ndim - 2)))


def chain(units: Sequence[nn.Module], factors: Callable[[int], Tensor]) -> None:
    """Rescale between each two of ``units``."""
    for unit, following in pairwise(units):
        width = (unit[0] if isinstance(unit, Unit) else unit).weight.shape[0]
        rescale(unit, [(following, 0)], factors(width))


def pooled(x: Tensor) -> Tensor:
    return x.mean((2, 3))


class Attention(nn.Module):
    """Attention in plain operators; ``added`` is added to the scores."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.qkv, self.out = heads, nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor, added: Tensor | None = None) -> Tensor:
        n, t, c = x.shape
        q, k, v = self.qkv(x).reshape(n, t, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        scores = q @ k.transpose(-2, -1) * (c // self.heads) ** -0.5
        if added is not None:
            scores = scores + added
        return self.out((scores.softmax(-1) @ v).transpose(1, 2).reshape(n, t, c))
