"""Losses in which a network is its own teacher."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import NonNegativeFloat, PositiveFloat

from edgekd.distill.arithmetic import full
from edgekd.distill.outputs import Batch, Facts, Outputs
from edgekd.recipe.base import Fraction
from edgekd.recipe.loss import FeatureLoss, Need, Reads
from edgekd.registry import losses

if TYPE_CHECKING:
    from torch import Tensor, nn

    from edgekd.taps.pairing import Pair


@losses.register("byot")
class BYOT(FeatureLoss):
    """Be your own teacher (Zhang et al. 2019, loss sources 1 to 3): the deepest stage teaches the others; no other network.

    Each stage but the last gets a classifier, which learns from the labels (1 − ``alpha``), from the student's logits
    (``alpha``, KL divergence of softened probabilities, without a factor of T²) and from the student's last map, averaged
    over its pixels (``hint``, squared distance to the classifier's own); a sum over the stages and a mean over the images.
    The student's end gets no gradient from it: give it the task loss beside. The authors' code has T = 3, α = 0.3, and a
    distance that is not squared, over the whole batch, times 0.03, and attention modules in front of its bottlenecks.
    """

    needs: ClassVar[tuple[Need, ...]] = ("classes", "images")
    needs_teacher: ClassVar[bool] = False
    reads_labels: ClassVar[bool] = True
    reads: ClassVar[Reads] = "own_stages"

    kind: Literal["byot"] = "byot"
    temperature: PositiveFloat = 3.0
    """T of the probabilities that the classifiers learn from."""
    alpha: Fraction = 0.3
    """Share of the student's logits in what a classifier learns; the labels have the rest."""
    hint: NonNegativeFloat = 0.03
    """Factor of the squared distance to the deepest feature (λ)."""

    def adapter(self, pairs: Sequence[Pair], facts: Facts) -> nn.Module:
        """Return the classifiers."""
        from torch import nn

        from edgekd.distill.adapters.own import Branch

        widths = [*(pair.student.channels for pair in pairs), pairs[-1].teacher.channels]
        return nn.ModuleList(Branch(widths[index:], facts.classes) for index in range(len(pairs)))

    def __call__(self, student: Outputs, teacher: Outputs, batch: Batch, adapter: nn.ModuleList) -> Tensor:
        """Return the loss of the classifiers; ``teacher`` is the student's end, without a gradient."""
        import torch
        from torch.nn import functional as F

        target = F.log_softmax(full(teacher.primary) / self.temperature, dim=1)
        values = []
        for branch, feature, deepest in zip(adapter, student.features, teacher.features, strict=True):
            deep, logits = map(full, branch(feature))
            learnt = F.log_softmax(logits / self.temperature, dim=1)
            values += [
                (1 - self.alpha) * F.cross_entropy(logits, batch.target),
                self.alpha * F.kl_div(learnt, target, reduction="batchmean", log_target=True),
                self.hint * (deep - full(deepest).mean((2, 3))).pow(2).sum(dim=1).mean(),
            ]
        return torch.stack(values).sum()
