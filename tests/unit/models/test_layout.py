from __future__ import annotations

import pytest
import torch
from torch import nn

from edgekd.models.layout import layout
from edgekd.models.zoo.resnet import resnet10
from edgekd.quantization import qat


@pytest.mark.parametrize(("width", "expected"), [(4, torch.contiguous_format), (8, torch.channels_last)])
def test_a_narrow_shortcut_is_contiguous(width: int, expected: torch.memory_format) -> None:
    """Its strided 1×1 convolution reads 4 channels; the same in the graph of int8 training."""
    network = resnet10(4, width=width).eval()
    assert layout(network) == expected
    assert layout(nn.ModuleList([nn.Linear(2, 2), network])) == expected
    assert layout(qat.prepare(network, torch.zeros(1, 3, 16, 16)).module) == expected


@pytest.mark.parametrize(
    "safe",
    [
        nn.Conv2d(3, 8, 3, stride=2),
        nn.Conv2d(4, 16, 1),
        nn.Conv2d(8, 8, 1, stride=2, groups=2),
        nn.Conv2d(1, 8, 1, stride=2),
        nn.AvgPool2d(1, 2),
    ],
)
def test_others_are_channels_last(safe: nn.Module) -> None:
    assert layout(safe) == torch.channels_last
    network = nn.Sequential(nn.Conv2d(3, getattr(safe, "in_channels", 4), 3), nn.ReLU(), safe).eval()
    assert layout(qat.prepare(network, torch.zeros(1, 3, 16, 16)).module) == torch.channels_last
