"""Knowledge review: the student's deep stages help its shallow ones to be like the teacher's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import NonNegativeFloat

from edgekd.distill.outputs import Batch, Facts, Outputs
from edgekd.errors import ModelError
from edgekd.recipe.loss import FeatureLoss
from edgekd.registry import losses

if TYPE_CHECKING:
    from torch import Tensor, nn

    from edgekd.taps.pairing import Pair


@losses.register("reviewkd")
class ReviewKD(FeatureLoss):
    """Distillation by knowledge review (Chen et al. 2021, with its ABF and HCL).

    From deep to shallow, each level of the student is fused with what came from the deeper ones by attention (ABF), and
    what comes out is compared with the teacher's level by hierarchical context (HCL), summed over the levels. The levels
    are the stages and the mean of the last one over its pixels. The authors' code compares with the teacher's maps in front
    of their activation, and takes the mean that the classifier reads, of a later layer in ShuffleNet. It has a weight for
    each pair of networks on CIFAR-100, 0.6 to 8, which it raises over the first 20 of 240 epochs: ``warmup_epochs`` does the
    same.
    """

    kind: Literal["reviewkd"] = "reviewkd"
    weight: NonNegativeFloat = 1.0

    def adapter(self, pairs: Sequence[Pair], facts: Facts) -> nn.Module:
        """Return the fusions."""
        from edgekd.distill.adapters.review import Review, widths

        return Review(widths([p.student.channels for p in pairs]), widths([p.teacher.channels for p in pairs]))

    def __call__(self, student: Outputs, teacher: Outputs, batch: Batch, adapter: nn.Module) -> Tensor:
        """Return the hierarchical context loss, summed over the levels.

        Raises:
            ModelError: The batch has one image, and batch norm of its last level nothing to compare it with.
        """
        import torch

        from edgekd.distill.adapters.review import context, levels

        if len(student.primary) == 1:
            raise ModelError(
                "reviewkd has batch norm of one vector an image: a batch needs two", "set distill.batch_size: 2 or more"
            )
        reviewed = adapter(levels(student.features))
        return torch.stack([context(s, t) for s, t in zip(reviewed, levels(teacher.features), strict=True)]).sum()
