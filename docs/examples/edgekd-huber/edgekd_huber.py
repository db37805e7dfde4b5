"""A loss for edgekd: Huber loss of the logits."""

from __future__ import annotations

from typing import Literal

from pydantic import PositiveFloat

from edgekd.recipe.loss import Loss


class Huber(Loss):
    """Huber loss of the logits (Huber 1964): large differences count linearly."""

    kind: Literal["huber"] = "huber"
    delta: PositiveFloat = 1.0
    """Difference up to which the loss is quadratic."""

    def __call__(self, student, teacher, batch, adapter):
        """Return the mean over batch and classes."""
        from torch.nn import functional as F  # here, so that `edgekd check` needs no torch

        return F.huber_loss(student.primary, teacher.primary, delta=self.delta)
