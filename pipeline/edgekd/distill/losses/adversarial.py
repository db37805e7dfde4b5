"""Losses with an opponent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import NonNegativeFloat, PositiveInt

from edgekd.distill.arithmetic import full
from edgekd.distill.outputs import Batch, Facts, Outputs
from edgekd.recipe.loss import FeatureLoss
from edgekd.registry import losses

if TYPE_CHECKING:
    from torch import Tensor

    from edgekd.distill.adapters.adversarial import Discriminators
    from edgekd.taps.pairing import Pair


@losses.register("adversarial")
class Adversarial(FeatureLoss):
    """The student's stages are to pass for the teacher's (a discriminator for each, as in MEAL, Shen et al. 2019).

    A discriminator tells from a stage's feature, averaged over its pixels, which network it is of. The value is its binary
    cross-entropy, a mean over images, both networks and the stages: log 2 when it can only guess. The discriminators
    descend it; the student, behind a gradient reversal (Ganin & Lempitsky 2015), ascends it. It says nothing
    about a single image: use it beside a loss that does.
    """

    kind: Literal["adversarial"] = "adversarial"
    weight: NonNegativeFloat = 1.0
    reversal: NonNegativeFloat = 1.0
    """Factor of the student's reversed gradient alone (Ganin's λ); weight counts for the discriminators as well."""
    hidden: PositiveInt = 128
    """Width of a discriminator's two hidden layers."""

    def adapter(self, pairs: Sequence[Pair], facts: Facts) -> Discriminators:
        """Return the discriminators, with a linear map of the student's feature where the widths differ."""
        from edgekd.distill.adapters.adversarial import Discriminators

        return Discriminators([(pair.student.channels, pair.teacher.channels) for pair in pairs], self.hidden)

    def __call__(self, student: Outputs, teacher: Outputs, batch: Batch, adapter: Discriminators) -> Tensor:
        """Return the discriminators' cross-entropy."""
        import torch
        from torch.nn import functional as F

        def error(ours: Tensor, theirs: Tensor) -> Tensor:
            return (F.softplus(full(ours)) + F.softplus(-full(theirs))).mean() / 2

        judged = adapter(student.features, teacher.features, self.reversal)
        return torch.stack([error(*each) for each in judged]).mean()
