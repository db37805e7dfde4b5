"""The networks of the published CIFAR-100 comparisons."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from edgekd.models import build, zoo
from edgekd.taps.pairing import pair

# For 100 classes, as in the authors' code (github.com/HobbitLong/RepDistiller): sums over its networks' parameters.
PUBLISHED = {
    "resnet20": 278_324, "resnet32": 472_756, "resnet56": 861_620, "resnet110": 1_736_564, "resnet8x4": 1_233_540,
    "resnet32x4": 7_433_860, "wrn_16_2": 703_284, "wrn_40_1": 569_780, "wrn_40_2": 2_255_156, "vgg8": 3_965_028,
    "vgg13": 9_462_180, "mobilenet_v2": 812_836, "shufflenet_v1": 949_258, "shufflenet_v2": 1_355_528,
}  # fmt: skip


def features(net: nn.Module, names: list[str], size: int) -> list[tuple[int, ...]]:
    seen: list[tuple[int, ...]] = []
    for name in names:
        net.get_submodule(name).register_forward_hook(lambda _m, _i, out: seen.append(tuple(out.shape[1:])))
    net.eval()(torch.zeros(1, 3, size, size))
    return seen


@pytest.mark.parametrize(("name", "count"), PUBLISHED.items())
def test_it_is_as_large_as_the_published_one(name: str, count: int) -> None:
    assert build.parameters(zoo.BUILDERS[name](num_classes=100)) == count


@pytest.mark.parametrize("name", [name for name in PUBLISHED if name != "resnet110"])
@pytest.mark.parametrize("size", [16, 32])
def test_every_parameter_is_used(name: str, size: int) -> None:
    torch.manual_seed(0)
    net = zoo.BUILDERS[name](num_classes=7)
    logits = net(torch.randn(2, 3, size, size))
    assert logits.shape == (2, 7)
    logits.square().sum().backward()
    assert [key for key, p in net.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize(
    ("name", "layers", "sizes"),
    [
        ("resnet8x4", ["conv1", "layer1", "layer2", "layer3"], [(32, 32), (64, 32), (128, 16), (256, 8)]),
        ("wrn_16_2", ["conv1", "block1", "block2", "block3"], [(16, 32), (32, 32), (64, 16), (128, 8)]),
        ("vgg8", [f"block{i}" for i in range(5)], [(64, 32), (128, 16), (256, 8), (512, 4), (512, 4)]),
        ("mobilenet_v2", ["stem", "stage2", "stage3", "stage5", "stage7"], [(16, 16), (12, 16), (16, 8), (48, 4), (160, 2)]),
        ("shufflenet_v1", ["stem", "layer1", "layer2", "layer3"], [(24, 32), (240, 16), (480, 8), (960, 4)]),
        ("shufflenet_v2", ["stem", "layer1", "layer2", "layer3"], [(24, 32), (116, 16), (232, 8), (464, 4)]),
    ],
)
def test_widths_and_resolutions(name: str, layers: list[str], sizes: list[tuple[int, int]]) -> None:
    """The features that the authors' code compares, at 32×32."""
    expected = [(width, side, side) for width, side in sizes]
    assert features(zoo.BUILDERS[name](), layers, 32) == expected


@pytest.mark.parametrize(
    ("name", "tensors"),
    [
        ("resnet32x4", ["conv1.weight", "layer1.0.downsample.1.running_var", "layer3.4.bn2.bias", "fc.weight"]),
        ("wrn_40_2", ["block1.layer.0.convShortcut.weight", "block3.layer.5.conv2.weight", "bn1.bias", "fc.bias"]),
        ("vgg13", ["block0.0.bias", "block0.1.weight", "block4.3.weight", "block4.4.running_mean", "classifier.bias"]),
    ],
)
def test_a_published_teacher_fits(name: str, tensors: list[str]) -> None:
    """Names in the authors' checkpoints."""
    assert zoo.BUILDERS[name]().state_dict().keys() >= set(tensors)


def test_channels_are_shuffled_between_the_groups() -> None:
    from edgekd.models.zoo.shufflenet import Shuffle

    x = torch.arange(6.0).reshape(1, 6, 1, 1)
    assert Shuffle(2)(x).flatten().tolist() == [0, 3, 1, 4, 2, 5]
    assert Shuffle(3)(x).flatten().tolist() == [0, 2, 4, 1, 3, 5]


@pytest.mark.parametrize(
    ("student", "teacher", "pairs"),
    [
        ("resnet8x4", "resnet32x4", {"layer1": "layer1", "layer2": "layer2", "layer3": "layer3"}),
        ("vgg8", "vgg13", {"relu0": "relu0", "relu1": "relu1", "relu2": "relu2", "relu4": "relu4"}),
        ("mobilenet_v2", "vgg13", {"stage2": "relu1", "stage3": "relu2", "stage5": "relu4"}),
    ],
)
def test_stages_are_found(student: str, teacher: str, pairs: dict[str, str]) -> None:
    found = pair(zoo.BUILDERS[student](), zoo.BUILDERS[teacher](), torch.zeros(1, 3, 32, 32))
    assert {p.student.path: p.teacher.path for p in found} == pairs
