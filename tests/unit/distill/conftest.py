from __future__ import annotations

from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn


class Small(nn.Module):
    """Three stages at 16, 8 and 4 pixels of a 16×16 image."""

    def __init__(self, num_classes: int = 4, width: int = 4, dropout: float = 0.0) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        self.down1 = nn.Sequential(nn.Conv2d(width, 2 * width, 3, 2, 1), nn.ReLU())
        self.down2 = nn.Sequential(nn.Conv2d(2 * width, 4 * width, 3, 2, 1), nn.ReLU())
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(4 * width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.dropout(self.down2(self.down1(self.stem(x))).mean((2, 3))))


@pytest.fixture
def small() -> Any:
    """Builder of small networks, seeded."""

    def build(seed: int = 0, **args: Any) -> Small:
        torch.manual_seed(seed)
        return Small(**args)

    return build


@pytest.fixture
def fabric() -> Fabric:
    return Fabric(accelerator="cpu", devices=1)
