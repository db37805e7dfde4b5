"""MobileNetV2 for CIFAR (Sandler et al. 2018, table 2; with the strides of Tian et al. 2020)."""

from __future__ import annotations

from torch import Tensor, nn

from edgekd.models.zoo.initial import he


class InvertedResidual(nn.Module):
    """1×1 expansion, 3×3 depthwise, linear 1×1 projection; a shortcut where the shape stays."""

    def __init__(self, width_in: int, width: int, stride: int, expand: int) -> None:
        super().__init__()
        hidden = width_in * expand
        self.conv = nn.Sequential(
            *_conv(width_in, hidden, 1, 1), *_conv(hidden, hidden, 3, stride, groups=hidden), *_conv(hidden, width, 1, 1)[:2]
        )
        self.shortcut = stride == 1 and width_in == width

    def forward(self, x: Tensor) -> Tensor:
        """Map N×width_in×H×W to N×width×H/stride×W/stride."""
        out: Tensor = self.conv(x)
        return x + out if self.shortcut else out


class MobileNetV2(nn.Module):
    """A stem of stride 2, seven stages, and a head of 1,280 channels.

    Unlike the paper's the activation is ReLU, the second stage keeps the resolution, the first block has its 1×1
    convolution, widths are rounded down, and there is no dropout: the published CIFAR-100 student.

    Args:
        width: Factor on all widths but the head's.
        num_classes: Size of the classifier.
        expand: Expansion of all blocks but the first.
    """

    def __init__(self, width: float, num_classes: int, expand: int = 6) -> None:
        super().__init__()
        width_in = int(32 * width)
        self.stem = nn.Sequential(*_conv(3, width_in, 3, 2))
        for index, (factor, channels, count, stride) in enumerate((
            (1, 16, 1, 1), (expand, 24, 2, 1), (expand, 32, 3, 2), (expand, 64, 4, 2), (expand, 96, 3, 1),
            (expand, 160, 3, 2), (expand, 320, 1, 1),
        )):  # fmt: skip
            blocks = []
            for step in [stride] + [1] * (count - 1):
                blocks.append(InvertedResidual(width_in, int(channels * width), step, factor))
                width_in = int(channels * width)
            self.add_module(f"stage{index + 1}", nn.Sequential(*blocks))
        self.head = nn.Sequential(*_conv(width_in, 1280, 1, 1))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(1280, num_classes)
        he(self, linear=0.01)

    def forward(self, x: Tensor) -> Tensor:
        """Map N×3×S×S to N×num_classes."""
        x = self.stem(x)
        for index in range(1, 8):
            x = self.get_submodule(f"stage{index}")(x)
        logits: Tensor = self.classifier(self.avgpool(self.head(x)).flatten(1))
        return logits


def _conv(width_in: int, width: int, kernel: int, stride: int, groups: int = 1) -> tuple[nn.Module, ...]:
    convolution = nn.Conv2d(width_in, width, kernel, stride, kernel // 2, groups=groups, bias=False)
    return convolution, nn.BatchNorm2d(width), nn.ReLU()


def mobilenet_v2(num_classes: int = 100, width: float = 0.5) -> MobileNetV2:
    """MobileNetV2 for CIFAR; half width is the published student (T = 6, W = 0.5)."""
    return MobileNetV2(width, num_classes)
