"""Small networks that the suites try losses on."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

SIZE, CLASSES = 16, 4


class Convolutional(nn.Module):
    """Three stages at 16, 8 and 4 pixels, and a linear classifier."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        self.down1 = nn.Sequential(nn.Conv2d(width, 2 * width, 3, 2, 1), nn.BatchNorm2d(2 * width), nn.ReLU())
        self.down2 = nn.Sequential(nn.Conv2d(2 * width, 4 * width, 3, 2, 1), nn.BatchNorm2d(4 * width), nn.ReLU())
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(4 * width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits, N×4, of images, N×3×16×16."""
        out: Tensor = self.head(self.pool(self.down2(self.down1(self.stem(x)))).flatten(1))
        return out


class _Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.mlp = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        out: Tensor = x + self.mlp(x)
        return out


class Transformer(nn.Module):
    """Patches of 4×4 pixels, two blocks of self-attention, and a linear classifier."""

    def __init__(self, width: int = 16, heads: int = 2) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 4, 4)
        self.blocks = nn.Sequential(_Block(width, heads), _Block(width, heads))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits, N×4, of images, N×3×16×16."""
        x = self.blocks(self.patches(x).flatten(2).transpose(1, 2))
        out: Tensor = self.head(self.norm(x).mean(1))
        return out


def pair(kind: type[nn.Module], **teacher: Any) -> tuple[nn.Module, nn.Module]:
    """Return a student and a wider teacher, always with the same weights; the teacher in evaluation mode, as in training."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return kind(), kind(**teacher).eval()
