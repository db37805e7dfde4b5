"""Normalize a batch for a teacher that sees other views of the samples than its student."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgekd.data.batches import Prepare
from edgekd.data.dataset import DataSet
from edgekd.task.named import call

Look = Mapping[str, Tensor] | tuple[Tensor, ...]
"""Inputs of a teacher by name; or the images that each of an ensemble sees."""


class ViewNormalizer(nn.Module):
    """From the student's inputs and the other views of a batch to the teacher's inputs.

    Args:
        views: The samples as the teacher sees them, or, in turn, each of an ensemble; empty: as the student does.
    """

    def __init__(self, views: Sequence[DataSet]) -> None:
        super().__init__()
        self.prepare = nn.ModuleList([Prepare(view) for view in views])
        self._examples = [view.train.stacked([0]) if len(view.train) else {} for view in views]

    def forward(self, inputs: Mapping[str, Tensor], others: Sequence[Mapping[str, Tensor]]) -> Look:
        """Return the teacher's inputs.

        Args:
            inputs: The student's.
            others: The views as they are stored, each of its own size.
        """
        seen: list[dict[str, Tensor]] = [prepare(one) for prepare, one in zip(self.prepare, others, strict=True)]
        if not seen:
            return inputs
        return seen[0] if len(seen) == 1 else tuple(next(iter(view.values())) for view in seen)

    def blank(self, count: int = 2) -> list[dict[str, Tensor]]:
        """Return samples of zeros for each view, as they are stored."""
        return [blank(example, count) for example in self._examples]


def ask(teacher: nn.Module, look: Look) -> Any:
    """Return the outputs of a teacher."""
    return call(teacher, look) if isinstance(look, Mapping) else teacher(look)


def blank(stored: Mapping[str, NDArray[Any]], count: int = 2) -> dict[str, Tensor]:
    """Return samples of zeros in the form of one stored sample."""
    return {name: torch.zeros(count, *rows.shape[1:], dtype=torch.from_numpy(rows).dtype) for name, rows in stored.items()}


@torch.no_grad()
def logits(teacher: nn.Module, views: Sequence[DataSet], device: torch.device) -> Tensor:
    """Return the primary outputs on the validation split, N×…, of a teacher in evaluation mode that sees ``views``."""
    normalizer, found = ViewNormalizer(views).to(device), []
    for parts in zip(*(view.val.batches() for view in views), strict=True):
        others = [{name: torch.from_numpy(rows).to(device) for name, rows in part.items()} for part in parts]
        found.append(ask(teacher, normalizer(others[0], others)))
    return torch.cat(found)
