"""ShuffleNet V1 and V2 for CIFAR: a 1×1 stem, three stages at half, quarter and eighth of the resolution."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Shuffle(nn.Module):
    """Interleave the channels of ``groups`` groups (Zhang et al. 2018, fig. 1)."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        """Map N×C×H×W to the same shape."""
        n, c, h, w = x.shape
        return x.view(n, self.groups, c // self.groups, h, w).transpose(1, 2).contiguous().view(n, c, h, w)


class GroupedUnit(nn.Module):
    """ShuffleNet unit (Zhang et al. 2018, fig. 2): grouped 1×1, shuffle, depthwise 3×3, grouped 1×1.

    With stride 2 the pooled input is concatenated, else the input is added.
    """

    def __init__(self, width_in: int, width: int, stride: int, groups: int, first: bool) -> None:
        super().__init__()
        out = width - width_in if stride == 2 else width
        # As in the authors' code for CIFAR, whose shuffle has the groups of the convolution in front of it
        hidden, before = out // 4, 1 if first else groups
        self.conv1 = nn.Conv2d(width_in, hidden, 1, groups=before, bias=False)
        self.bn1 = nn.BatchNorm2d(hidden)
        self.relu1 = nn.ReLU()
        self.shuffle = Shuffle(before) if before > 1 else nn.Identity()
        self.conv2 = nn.Conv2d(hidden, hidden, 3, stride, 1, groups=hidden, bias=False)
        self.bn2 = nn.BatchNorm2d(hidden)
        self.relu2 = nn.ReLU()
        self.conv3 = nn.Conv2d(hidden, out, 1, groups=groups, bias=False)
        self.bn3 = nn.BatchNorm2d(out)
        self.pool = nn.AvgPool2d(3, 2, 1) if stride == 2 else None
        self.relu3 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Map N×width_in×H×W to N×width×H/stride×W/stride."""
        out: Tensor = self.shuffle(self.relu1(self.bn1(self.conv1(x))))
        out = self.bn3(self.conv3(self.relu2(self.bn2(self.conv2(out)))))
        joined = out + x if self.pool is None else torch.cat([out, self.pool(x)], 1)
        result: Tensor = self.relu3(joined)
        return result


class SplitUnit(nn.Module):
    """ShuffleNetV2 unit of stride 1 (Ma et al. 2018, fig. 3c): half of the channels pass by."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.branch = _branch(width // 2, width // 2, 1)
        self.shuffle = Shuffle(2)

    def forward(self, x: Tensor) -> Tensor:
        """Map N×width×H×W to the same shape."""
        kept, worked = x.chunk(2, dim=1)
        out: Tensor = self.shuffle(torch.cat([kept, self.branch(worked)], 1))
        return out


class DownUnit(nn.Module):
    """ShuffleNetV2 unit of stride 2 (Ma et al. 2018, fig. 3d)."""

    def __init__(self, width_in: int, width: int) -> None:
        super().__init__()
        self.left = nn.Sequential(*_depthwise(width_in, 2), *_pointwise(width_in, width // 2))
        self.right = _branch(width_in, width // 2, 2)
        self.shuffle = Shuffle(2)

    def forward(self, x: Tensor) -> Tensor:
        """Map N×width_in×H×W to N×width×H/2×W/2."""
        out: Tensor = self.shuffle(torch.cat([self.left(x), self.right(x)], 1))
        return out


class ShuffleNet(nn.Module):
    """Common parts of both versions.

    Args:
        stages: The three stages.
        head: What follows them, before the pooling.
        width: Channels after the head.
        num_classes: Size of the classifier.
    """

    def __init__(self, stages: list[nn.Sequential], head: nn.Module, width: int, num_classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(*_pointwise(3, 24))
        self.layer1, self.layer2, self.layer3 = stages
        self.head = head
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map N×3×S×S to N×num_classes."""
        x = self.head(self.layer3(self.layer2(self.layer1(self.stem(x)))))
        logits: Tensor = self.linear(self.avgpool(x).flatten(1))
        return logits


def _pointwise(width_in: int, width: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(width_in, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()


def _depthwise(width: int, stride: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(width, width, 3, stride, 1, groups=width, bias=False), nn.BatchNorm2d(width)


def _branch(width_in: int, width: int, stride: int) -> nn.Sequential:
    return nn.Sequential(*_pointwise(width_in, width), *_depthwise(width, stride), *_pointwise(width, width))


def shufflenet_v1(num_classes: int = 100, groups: int = 3) -> ShuffleNet:
    """ShuffleNet V1 of 3 groups (Zhang et al. 2018, table 1) with four, eight and four units."""
    width_in = 24
    stages: list[nn.Sequential] = []
    for width, count in ((240, 4), (480, 8), (960, 4)):
        down = GroupedUnit(width_in, width, 2, groups, first=not stages)
        stages.append(nn.Sequential(down, *(GroupedUnit(width, width, 1, groups, first=False) for _ in range(count - 1))))
        width_in = width
    return ShuffleNet(stages, nn.Identity(), width_in, num_classes)


def shufflenet_v2(num_classes: int = 100) -> ShuffleNet:
    """ShuffleNet V2 1× (Ma et al. 2018, table 5) with 116, 232 and 464 channels and a head of 1,024."""
    width_in = 24
    stages: list[nn.Sequential] = []
    for width, count in ((116, 3), (232, 7), (464, 3)):
        stages.append(nn.Sequential(DownUnit(width_in, width), *(SplitUnit(width) for _ in range(count))))
        width_in = width
    return ShuffleNet(stages, nn.Sequential(*_pointwise(width_in, 1024)), 1024, num_classes)
