from __future__ import annotations

import pytest
import torch
from torch import nn

from edgekd.models import zoo
from edgekd.models.zoo.resnet import BasicBlock


def convolutions(net: nn.Module) -> list[nn.Conv2d]:
    return [module for module in net.modules() if isinstance(module, nn.Conv2d)]


@pytest.mark.parametrize(("name", "depth"), [("resnet10", 10), ("resnet18", 18)])
def test_depth_is_what_the_name_says(name: str, depth: int) -> None:
    """Weighted layers on the longest path: the 1×1 shortcuts do not count (He et al. 2016, table 1)."""
    layers = [c for c in convolutions(zoo.BUILDERS[name]()) if c.kernel_size == (3, 3)]
    assert len(layers) + 1 == depth


def test_resnet18_is_as_large_as_the_published_one_for_cifar() -> None:
    """11.17 M parameters: kuangliu/pytorch-cifar's ResNet18, which is this architecture."""
    assert sum(p.numel() for p in zoo.resnet18().parameters()) == 11_173_962


@pytest.mark.parametrize(("stem_stride", "sizes"), [(1, [32, 32, 16, 8, 4]), (2, [16, 16, 8, 4, 2])])
def test_resolutions(stem_stride: int, sizes: list[int]) -> None:
    net = zoo.resnet10(7, width=8, stem_stride=stem_stride).eval()
    seen = []
    for name in ("stem", "layer1", "layer2", "layer3", "layer4"):
        net.get_submodule(name).register_forward_hook(lambda _m, _i, out: seen.append(tuple(out.shape[1:])))
    assert net(torch.zeros(2, 3, 32, 32)).shape == (2, 7)
    assert seen == [(width, size, size) for width, size in zip((8, 8, 16, 32, 64), sizes, strict=True)]


def test_block_adds_its_shortcut() -> None:
    """With both convolutions at zero a block is ReLU(shortcut(x))."""
    block = BasicBlock(4, 4, 1).eval()
    for convolution in convolutions(block):
        nn.init.zeros_(convolution.weight)
    x = torch.randn(2, 4, 5, 5)
    assert torch.equal(block(x), x.relu())
