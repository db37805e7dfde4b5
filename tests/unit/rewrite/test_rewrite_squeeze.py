"""Squeeze-excite is found in whatever way it is written, and nothing else is taken for it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from edgekd.models import build
from edgekd.recipe.data import Data
from edgekd.rewrite import squeeze
from edgekd.task.image_classification import purpose

DATA = Data(source="fashion-mnist-mini", image_size=32)
X = build.one_input(purpose(DATA).signature)


class Flat(nn.Module):
    """As SENet's first PyTorch port: linear layers, shapes read from the input, expand_as."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Sequential(nn.Linear(channels, 4), nn.ReLU(), nn.Linear(4, channels), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        count, channels, _, _ = x.size()
        y = self.fc(self.pool(x).view(count, channels)).view(count, channels, 1, 1)
        return x * y.expand_as(x)


class OnChannels(nn.Module):
    """ECA (Wang et al. 2020): a convolution over the channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x.mean((2, 3)).unsqueeze(1)).squeeze(1).sigmoid()
        return y[:, :, None, None] * x


class Spatial(nn.Module):
    """One factor a pixel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.conv(x).sigmoid()


class Scale(nn.Module):
    """One factor a channel, the same for every image."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.rand(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


class Shift(nn.Module):
    """Something added that depends on the whole image."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x.mean((2, 3), keepdim=True))


def net(block: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU(), block, nn.Conv2d(8, 8, 1)).eval()


@pytest.mark.parametrize("block", [Flat, OnChannels])
def test_every_way_to_write_it(block: type[nn.Module]) -> None:
    with_block = net(nn.Sequential(block(8), nn.ReLU()))
    expected = nn.Sequential(*(with_block[i] for i in (0, 1, 2)), nn.ReLU(), with_block[4])
    assert squeeze.drop(with_block, X) == ("3.0",)
    assert torch.equal(with_block(X), expected(X))


@pytest.mark.parametrize("block", [Spatial, Scale, Shift, nn.InstanceNorm2d, nn.BatchNorm2d])
def test_what_is_not_one(block: type[nn.Module]) -> None:
    without = net(block(8))
    assert squeeze.drop(without, X) == ()
    assert type(without[3]) is block


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ("torchvision:mobilenet_v3_small", 9), ("torchvision:regnet_y_400mf", 16), ("torchvision:resnet18", 0),
        ("timm:seresnet18", 8), ("timm:ese_vovnet19b_dw", 4), ("timm:efficientnet_lite0", 0), ("timm:convnextv2_atto", 0),
    ],
)  # fmt: skip
def test_library_networks(source: str, count: int) -> None:
    if source.startswith("timm:"):
        pytest.importorskip("timm")
    model = build.network(source, {}, purpose(DATA, 10))
    assert len(squeeze.drop(model, X)) == count
    assert model.eval()(X).shape == (1, 10)
