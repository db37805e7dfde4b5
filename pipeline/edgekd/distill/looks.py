"""Normalize a batch for a teacher that sees other views of the samples than its student."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from edgekd.data.batches import Normalize
from edgekd.data.dataset import DataSet

Look = Tensor | tuple[Tensor, ...]
"""What a teacher takes: images, or those of each of an ensemble."""


class Looks(nn.Module):
    """From the student's input and the other views of a batch to the teacher's input.

    Args:
        views: The samples as the teacher sees them, or, in turn, each of an ensemble; empty: as the student does.
    """

    def __init__(self, views: Sequence[DataSet]) -> None:
        super().__init__()
        self.normalize = nn.ModuleList([Normalize(view) for view in views])
        self._shapes = [view.train.images[0].shape for view in views]

    def forward(self, x: Tensor, others: Sequence[Tensor]) -> Look:
        """Return what the teacher takes.

        Args:
            x: The student's input, N×C×S×S.
            others: The views as they are stored, uint8 N×C×S×S of each one's own size.
        """
        seen = tuple(normalize(images) for normalize, images in zip(self.normalize, others, strict=True))
        return x if not seen else seen if len(seen) > 1 else seen[0]

    def blank(self, count: int = 2) -> list[Tensor]:
        """Return black images for each view, uint8."""
        return [torch.zeros(count, *shape, dtype=torch.uint8) for shape in self._shapes]


@torch.no_grad()
def logits(teacher: nn.Module, views: Sequence[DataSet], device: torch.device) -> Tensor:
    """Logits on the validation split, N×classes, of a teacher in evaluation mode that sees ``views``."""
    looks, found = Looks(views).to(device), []
    for batches in zip(*(view.val.batches() for view in views), strict=True):
        others = [torch.from_numpy(images).to(device) for images, _ in batches]
        found.append(teacher(looks(others[0], others)))
    return torch.cat(found)
