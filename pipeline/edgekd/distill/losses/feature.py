"""Losses on pairs of feature maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import NonNegativeFloat

from edgekd.distill.outputs import Batch, Facts, Outputs
from edgekd.recipe import FeatureLoss
from edgekd.registry import losses

if TYPE_CHECKING:
    from torch import Tensor, nn

    from edgekd.distill.pairing import Pair


@losses.register("fitnet")
class FitNet(FeatureLoss):
    """Hints: squared error between the teacher's feature and the student's after a regressor (Romero et al. 2015, eq. 3).

    Mean over elements and pairs. The regressor is a 1×1 convolution wherever the widths differ.
    """

    kind: Literal["fitnet"] = "fitnet"
    weight: NonNegativeFloat = 1.0

    def adapter(self, pairs: Sequence[Pair], facts: Facts) -> nn.Module:
        """Return the 1×1 regressors."""
        from torch import nn

        widths = [(pair.student.channels, pair.teacher.channels) for pair in pairs]
        return nn.ModuleList(nn.Identity() if ours == theirs else nn.Conv2d(ours, theirs, 1) for ours, theirs in widths)

    def __call__(self, student: Outputs, teacher: Outputs, batch: Batch, adapter: nn.ModuleList) -> Tensor:
        """Return the mean squared error over the pairs."""
        import torch
        from torch.nn import functional as F

        pairs = zip(adapter, student.features, teacher.features, strict=True)
        return torch.stack([F.mse_loss(regressor(s), t) for regressor, s, t in pairs]).mean()


@losses.register("attention_transfer")
class AttentionTransfer(FeatureLoss):
    """Activation-based attention transfer (Zagoruyko & Komodakis 2017, eq. 2 with p = 2).

    The attention map of a feature is the mean over channels of its squares, flattened and divided by its L2 norm. As in the
    authors' code the maps are compared by mean squared error, summed over the pairs; hence the large weight.
    """

    kind: Literal["attention_transfer"] = "attention_transfer"
    weight: NonNegativeFloat = 1000.0

    def __call__(self, student: Outputs, teacher: Outputs, batch: Batch, adapter: None) -> Tensor:
        """Return the error of the attention maps, summed over the pairs."""
        import torch
        from torch.nn import functional as F

        def attention(feature: Tensor) -> Tensor:
            return F.normalize(feature.pow(2).mean(dim=1).flatten(1), dim=1)

        pairs = zip(student.features, teacher.features, strict=True)
        return torch.stack([F.mse_loss(attention(s), attention(t)) for s, t in pairs]).sum()
