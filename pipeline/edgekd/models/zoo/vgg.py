"""VGG for CIFAR: batch norm after every convolution, one linear layer (Simonyan & Zisserman 2015; Tian et al. 2020, §4)."""

from __future__ import annotations

from torch import Tensor, nn

from edgekd.models.zoo.initial import he


class VGG(nn.Module):
    """Five blocks of 3×3 convolutions.

    The first three halvings are max-pools; the authors' network for 32×32 images has none between the last two blocks.

    Args:
        blocks: Widths of the convolutions of each block.
        num_classes: Size of the head.
    """

    def __init__(self, blocks: tuple[tuple[int, ...], ...], num_classes: int) -> None:
        super().__init__()
        width_in = 3
        for index, widths in enumerate(blocks):
            layers: list[nn.Module] = []
            for width in widths:
                layers += [nn.Conv2d(width_in, width, 3, 1, 1), nn.BatchNorm2d(width), nn.ReLU()]
                width_in = width
            self.add_module(f"block{index}", nn.Sequential(*layers[:-1]))
            self.add_module(f"relu{index}", layers[-1])  # outside of its block: the authors' numbers of layers
        self.pool0, self.pool1, self.pool2 = (nn.MaxPool2d(2) for _ in range(3))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(width_in, num_classes)
        he(self, linear=0.01)

    def forward(self, x: Tensor) -> Tensor:
        """Map N×3×S×S to N×num_classes."""
        for index in range(5):
            x = self.get_submodule(f"relu{index}")(self.get_submodule(f"block{index}")(x))
            if index < 3:
                x = self.get_submodule(f"pool{index}")(x)
        logits: Tensor = self.classifier(self.avgpool(x).flatten(1))
        return logits


def vgg8(num_classes: int = 100) -> VGG:
    """VGG-8: one convolution a block."""
    return VGG(((64,), (128,), (256,), (512,), (512,)), num_classes)


def vgg13(num_classes: int = 100) -> VGG:
    """VGG-13: two convolutions a block (configuration B)."""
    return VGG(((64, 64), (128, 128), (256, 256), (512, 512), (512, 512)), num_classes)
