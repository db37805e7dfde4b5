"""ResNets of four stages for small images."""

from __future__ import annotations

from torch import Tensor, nn


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut (He et al. 2016, fig. 2 and §3.3 option B)."""

    def __init__(self, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width_in, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu2 = nn.ReLU()
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or width_in != width:
            self.shortcut = nn.Sequential(nn.Conv2d(width_in, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        """Map N×width_in×H×W to N×width×H/stride×W/stride."""
        out: Tensor = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        result: Tensor = self.relu2(out + self.shortcut(x))
        return result


class ResNet(nn.Module):
    """ResNet (He et al. 2016) for small images: a 3×3 stem without max-pooling.

    Args:
        depths: Blocks in each of the four stages, layer1 to layer4.
        num_classes: Size of the head.
        width: Channels of the first stage; each next stage has twice as many.
        stem_stride: Stride of the stem; 2 makes it four times cheaper.
        in_channels: Channels of the images.
    """

    def __init__(
        self, depths: tuple[int, int, int, int], num_classes: int, width: int, stem_stride: int, in_channels: int = 3
    ) -> None:
        super().__init__()
        stem = nn.Conv2d(in_channels, width, 3, stem_stride, 1, bias=False)
        self.stem = nn.Sequential(stem, nn.BatchNorm2d(width), nn.ReLU())
        width_in = width
        for index, depth in enumerate(depths):
            width_out = width * 2**index
            strides = [1 if index == 0 else 2] + [1] * (depth - 1)
            blocks = []
            for stride in strides:
                blocks.append(BasicBlock(width_in, width_out, stride))
                width_in = width_out
            self.add_module(f"layer{index + 1}", nn.Sequential(*blocks))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.head = nn.Linear(width_in, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Map N×in_channels×S×S to N×num_classes."""
        x = self.stem(x)
        for name in ("layer1", "layer2", "layer3", "layer4"):
            x = self.get_submodule(name)(x)
        logits: Tensor = self.head(self.flatten(self.pool(x)))
        return logits


def resnet18(num_classes: int = 10, width: int = 64, stem_stride: int = 1, in_channels: int = 3) -> ResNet:
    """ResNet-18 for small images; 64 channels in the first stage are the paper's."""
    return ResNet((2, 2, 2, 2), num_classes, width, stem_stride, in_channels)


def resnet10(num_classes: int = 10, width: int = 64, stem_stride: int = 1, in_channels: int = 3) -> ResNet:
    """ResNet-10 for small images: one block a stage."""
    return ResNet((1, 1, 1, 1), num_classes, width, stem_stride, in_channels)
