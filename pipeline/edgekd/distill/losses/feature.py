"""Losses on pairs of feature maps."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import NonNegativeFloat

from edgekd.distill.outputs import Outputs
from edgekd.recipe import Loss
from edgekd.registry import losses

if TYPE_CHECKING:
    from torch import Tensor, nn


class FeaturePairs(Loss):
    """The option that all feature losses share."""

    needs_features: ClassVar[bool] = True

    layers: Literal["auto"] | dict[str, str] = "auto"
    """auto pairs layers of the same resolution; or module paths, student: teacher, such as {features.6: layer3}."""


@losses.register("fitnet")
class FitNet(FeaturePairs):
    """Hints: squared error between the teacher's feature and the student's after a regressor (Romero et al. 2015, eq. 3).

    Mean over elements and pairs. The regressor is a 1×1 convolution wherever the widths differ.
    """

    kind: Literal["fitnet"] = "fitnet"
    weight: NonNegativeFloat = 1.0

    def adapter(self, student_channels: int, teacher_channels: int) -> nn.Module | None:
        """Return the 1×1 regressor, or None for equal widths."""
        from torch import nn

        if student_channels == teacher_channels:
            return None
        return nn.Conv2d(student_channels, teacher_channels, kernel_size=1)

    def __call__(self, student: Outputs, teacher: Outputs | None, labels: Tensor) -> Tensor:
        """Return the mean squared error over the pairs."""
        import torch
        from torch.nn import functional as F

        assert teacher is not None
        errors = [F.mse_loss(s, t) for s, t in zip(student.features, teacher.features, strict=True)]
        return torch.stack(errors).mean()


@losses.register("attention_transfer")
class AttentionTransfer(FeaturePairs):
    """Activation-based attention transfer (Zagoruyko & Komodakis 2017, eq. 2 with p = 2).

    The attention map of a feature is the mean over channels of its squares, flattened and divided by its L2 norm. As in the
    authors' code the maps are compared by mean squared error, summed over the pairs; hence the large weight.
    """

    kind: Literal["attention_transfer"] = "attention_transfer"
    weight: NonNegativeFloat = 1000.0

    def adapter(self, student_channels: int, teacher_channels: int) -> nn.Module | None:
        """Maps have no channels, so nothing has to be adapted."""
        return None

    def __call__(self, student: Outputs, teacher: Outputs | None, labels: Tensor) -> Tensor:
        """Return the error of the attention maps, summed over the pairs."""
        import torch
        from torch.nn import functional as F

        def attention(feature: Tensor) -> Tensor:
            return F.normalize(feature.pow(2).mean(dim=1).flatten(1), dim=1)

        assert teacher is not None
        pairs = zip(student.features, teacher.features, strict=True)
        return torch.stack([F.mse_loss(attention(s), attention(t)) for s, t in pairs]).sum()
