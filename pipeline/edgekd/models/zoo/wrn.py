"""Wide residual networks for CIFAR (Zagoruyko & Komodakis 2016, table 1)."""

from __future__ import annotations

from torch import Tensor, nn

from edgekd.models.zoo.initial import he


class Block(nn.Module):
    """Normalization and activation in front of each of two 3×3 convolutions; no dropout.

    Where the shape changes, the shortcut is a 1×1 convolution of the activated input, else the input itself.
    """

    def __init__(self, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(width_in)
        self.relu1 = nn.ReLU()
        self.conv1 = nn.Conv2d(width_in, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu2 = nn.ReLU()
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.convShortcut = nn.Conv2d(width_in, width, 1, stride, bias=False) if width_in != width else None

    def forward(self, x: Tensor) -> Tensor:
        """Map N×width_in×H×W to N×width×H/stride×W/stride."""
        active: Tensor = self.relu1(self.bn1(x))
        out: Tensor = self.conv2(self.relu2(self.bn2(self.conv1(active))))
        return out + (x if self.convShortcut is None else self.convShortcut(active))


class Stage(nn.Module):
    """Blocks of one width; the first has the stride."""

    def __init__(self, width_in: int, width: int, count: int, stride: int) -> None:
        super().__init__()
        self.layer = nn.Sequential(Block(width_in, width, stride), *(Block(width, width, 1) for _ in range(count - 1)))

    def forward(self, x: Tensor) -> Tensor:
        """Map N×width_in×H×W to N×width×H/stride×W/stride."""
        out: Tensor = self.layer(x)
        return out


class WideResNet(nn.Module):
    """A 3×3 stem of 16 channels and three stages at full, half and quarter resolution.

    Args:
        depth: 6n + 4 for n blocks in each stage.
        widen: Factor on the widths 16, 32 and 64 of the stages.
        num_classes: Size of the head.
    """

    def __init__(self, depth: int, widen: int, num_classes: int) -> None:
        super().__init__()
        count = (depth - 4) // 6
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.block1 = Stage(16, 16 * widen, count, 1)
        self.block2 = Stage(16 * widen, 32 * widen, count, 2)
        self.block3 = Stage(32 * widen, 64 * widen, count, 2)
        self.bn1 = nn.BatchNorm2d(64 * widen)
        self.relu = nn.ReLU()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(64 * widen, num_classes)
        he(self)
        nn.init.zeros_(self.fc.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map N×3×S×S to N×num_classes."""
        x = self.block3(self.block2(self.block1(self.conv1(x))))
        logits: Tensor = self.fc(self.avgpool(self.relu(self.bn1(x))).flatten(1))
        return logits


def wrn_16_2(num_classes: int = 100) -> WideResNet:
    """WRN-16-2."""
    return WideResNet(16, 2, num_classes)


def wrn_40_1(num_classes: int = 100) -> WideResNet:
    """WRN-40-1."""
    return WideResNet(40, 1, num_classes)


def wrn_40_2(num_classes: int = 100) -> WideResNet:
    """WRN-40-2."""
    return WideResNet(40, 2, num_classes)
