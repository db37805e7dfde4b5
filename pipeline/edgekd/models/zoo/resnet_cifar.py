"""ResNets of three stages for CIFAR (He et al. 2016, §4.2), and their four times wider forms (Tian et al. 2020, §4)."""

from __future__ import annotations

from torch import Tensor, nn

from edgekd.models.zoo.initial import he


class Block(nn.Module):
    """Two 3×3 convolutions and a shortcut, a 1×1 convolution where the shape changes (option B)."""

    def __init__(self, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width_in, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or width_in != width:
            self.downsample = nn.Sequential(nn.Conv2d(width_in, width, 1, stride, bias=False), nn.BatchNorm2d(width))
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Map N×width_in×H×W to N×width×H/stride×W/stride."""
        out: Tensor = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        result: Tensor = self.relu2(out + self.downsample(x))
        return result


class CifarResNet(nn.Module):
    """A 3×3 stem and three stages at full, half and quarter resolution.

    Args:
        depth: Weighted layers on the longest path, 6n + 2 for n blocks in each stage.
        widths: Channels of the stem and of the three stages.
        num_classes: Size of the head.
    """

    def __init__(self, depth: int, widths: tuple[int, int, int, int], num_classes: int) -> None:
        super().__init__()
        stem, first, second, third = widths
        count = (depth - 2) // 6
        self.conv1 = nn.Conv2d(3, stem, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        self.relu = nn.ReLU()
        self.layer1 = _stage(stem, first, count, 1)
        self.layer2 = _stage(first, second, count, 2)
        self.layer3 = _stage(second, third, count, 2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(third, num_classes)
        he(self)

    def forward(self, x: Tensor) -> Tensor:
        """Map N×3×S×S to N×num_classes."""
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        logits: Tensor = self.fc(self.avgpool(x).flatten(1))
        return logits


def _stage(width_in: int, width: int, count: int, stride: int) -> nn.Sequential:
    return nn.Sequential(Block(width_in, width, stride), *(Block(width, width, 1) for _ in range(count - 1)))


_NARROW, _WIDE = (16, 16, 32, 64), (32, 64, 128, 256)


def resnet20(num_classes: int = 100) -> CifarResNet:
    """ResNet-20 for CIFAR."""
    return CifarResNet(20, _NARROW, num_classes)


def resnet32(num_classes: int = 100) -> CifarResNet:
    """ResNet-32 for CIFAR."""
    return CifarResNet(32, _NARROW, num_classes)


def resnet56(num_classes: int = 100) -> CifarResNet:
    """ResNet-56 for CIFAR."""
    return CifarResNet(56, _NARROW, num_classes)


def resnet110(num_classes: int = 100) -> CifarResNet:
    """ResNet-110 for CIFAR."""
    return CifarResNet(110, _NARROW, num_classes)


def resnet8x4(num_classes: int = 100) -> CifarResNet:
    """ResNet-8, four times as wide after the stem, which is twice as wide."""
    return CifarResNet(8, _WIDE, num_classes)


def resnet32x4(num_classes: int = 100) -> CifarResNet:
    """ResNet-32, four times as wide after the stem, which is twice as wide."""
    return CifarResNet(32, _WIDE, num_classes)
