"""Classifiers at a network's own stages, which learn from its end."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn


class Branch(nn.Module):
    """A classifier at a stage, behind a bottleneck to the last stage's width (BYOT, Zhang et al. 2019).

    Args:
        widths: Channels of the stage and of all behind it; a step of stride 2 leads from each to the next, also where the
            network's stages keep their size, as a transformer's do.
        classes: Of the data.
    """

    def __init__(self, widths: Sequence[int], classes: int) -> None:
        super().__init__()
        self.bottleneck = nn.Sequential(*(_step(a, b) for a, b in pairwise(widths)), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.classifier = nn.Linear(widths[-1], classes)

    def forward(self, feature: Tensor) -> tuple[Tensor, Tensor]:
        """Map N×widths[0]×H×W to (N×widths[-1], what is like the deepest feature; logits N×classes)."""
        deep: Tensor = self.bottleneck(feature)
        return deep, self.classifier(deep)


def _step(width_in: int, width_out: int) -> nn.Sequential:
    """Two separable convolutions, as in the authors' code; the first halves height and width."""
    return nn.Sequential(
        nn.Conv2d(width_in, width_in, 3, 2, 1, groups=width_in, bias=False),
        nn.Conv2d(width_in, width_in, 1, bias=False),
        nn.BatchNorm2d(width_in),
        nn.ReLU(),
        nn.Conv2d(width_in, width_in, 3, 1, 1, groups=width_in, bias=False),
        nn.Conv2d(width_in, width_out, 1, bias=False),
        nn.BatchNorm2d(width_out),
        nn.ReLU(),
    )
