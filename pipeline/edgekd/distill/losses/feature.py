"""Losses on pairs of feature maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, cast

from pydantic import Field, NonNegativeFloat, PositiveFloat, model_validator

from edgekd.distill.arithmetic import full, unit
from edgekd.distill.outputs import Batch, Facts, Outputs
from edgekd.recipe.base import mistake
from edgekd.recipe.loss import FeatureLoss, Reads
from edgekd.registry import losses

if TYPE_CHECKING:
    from torch import Tensor, nn

    from edgekd.distill.adapters import FactorAdapter
    from edgekd.taps.pairing import Pair


@losses.register("fitnet")
class FitNet(FeatureLoss):
    """Hints: squared error between the teacher's feature and the student's after a regressor (Romero et al. 2015, eq. 3).

    Mean over elements and pairs. The regressor is a 1×1 convolution wherever the widths differ. The paper has one pair in
    the middle, half the sum of the squares, and trains with this term alone first: ``layers: middle``, an ``end_epoch``, and
    a ``start_epoch`` for the others do that. The weight is edgekd's, for all stages; RepDistiller and mdistiller have 100
    for their one pair, behind a regressor with batch norm and ReLU.
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
        return torch.stack([F.mse_loss(full(regressor(s)), full(t)) for regressor, s, t in pairs]).mean()


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
            return unit(full(feature).pow(2).mean(dim=1).flatten(1))

        pairs = zip(student.features, teacher.features, strict=True)
        return torch.stack([F.mse_loss(attention(s), attention(t)) for s, t in pairs]).sum()


@losses.register("mgd")
class MGD(FeatureLoss):
    """Masked generative distillation: the teacher's map from a masked one of the student (Yang et al. 2022).

    A 1×1 convolution where the widths differ, a random mask, and a block of two 3×3 convolutions; squared error summed over
    a map, mean over the batch, summed over the pairs. The settings are those of the authors' configurations for
    classification, which mask channels; in the paper, and for dense prediction, it is pixels. As this is a sum, the weight
    is one for maps of their sizes, 512×7×7 and 2048×7×7: a map with a tenth of the elements needs one ten times as large.
    """

    reads: ClassVar[Reads] = "last_stage"

    kind: Literal["mgd"] = "mgd"
    weight: NonNegativeFloat = 7e-5
    ratio: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.15
    """λ: share of the student's map that is masked."""
    mask: Literal["channels", "pixels"] = "channels"
    """Whether whole channels are masked, or pixels in all channels."""

    def adapter(self, pairs: Sequence[Pair], facts: Facts) -> nn.Module:
        """Return the generation blocks."""
        from torch import nn

        from edgekd.distill.adapters import MaskedGenerator, widths

        return nn.ModuleList(MaskedGenerator(ours, theirs, self.ratio, self.mask) for ours, theirs in widths(pairs))

    def __call__(self, student: Outputs, teacher: Outputs, batch: Batch, adapter: nn.ModuleList) -> Tensor:
        """Return the squared error, summed over the pairs."""
        import torch

        pairs = zip(adapter, student.features, teacher.features, strict=True)
        return torch.stack([(full(generate(s)) - full(t)).pow(2).sum() / len(t) for generate, s, t in pairs]).sum()


@losses.register("vid")
class VID(FeatureLoss):
    """Variational information distillation: how likely the teacher's map is, given the student's (Ahn et al. 2019).

    ``½ ((t - μ(s))² / σ² + log σ²)``, the negative log-likelihood without its constant, mean over elements and summed over
    the pairs; so it can be negative. μ is a network of three 1×1 convolutions, σ² one number for each channel. Weight,
    initial variance and ε are those of RepDistiller and mdistiller.
    """

    kind: Literal["vid"] = "vid"
    weight: NonNegativeFloat = 1.0
    variance: PositiveFloat = 5.0
    """σ² at the start."""
    epsilon: PositiveFloat = 1e-5
    """ε: σ² is larger than this."""

    @model_validator(mode="after")
    def _above_epsilon(self) -> VID:
        if self.variance <= self.epsilon:
            raise mistake(
                f"the variance begins at {self.variance:g}, but is always larger than epsilon, {self.epsilon:g}",
                "let variance be larger than epsilon",
                "variance",
            )
        return self

    def adapter(self, pairs: Sequence[Pair], facts: Facts) -> nn.Module:
        """Return μ and σ² of each pair."""
        from torch import nn

        from edgekd.distill.adapters import Gaussian, widths

        return nn.ModuleList(Gaussian(ours, theirs, self.variance, self.epsilon) for ours, theirs in widths(pairs))

    def __call__(self, student: Outputs, teacher: Outputs, batch: Batch, adapter: nn.ModuleList) -> Tensor:
        """Return the negative log-likelihood, summed over the pairs."""
        import torch

        def error(gaussian: nn.Module, s: Tensor, t: Tensor) -> Tensor:
            mean, variance = gaussian(s)
            surprise: Tensor = 0.5 * ((full(t) - full(mean)).pow(2) / variance + variance.log())
            return surprise.mean()

        pairs = zip(adapter, student.features, teacher.features, strict=True)
        return torch.stack([error(gaussian, s, t) for gaussian, s, t in pairs]).sum()


@losses.register("factor_transfer")
class FactorTransfer(FeatureLoss):
    """Factor transfer: a translation of the student's map learns a paraphrase of the teacher's (Kim et al. 2018).

    ``mean |translator(s) / ‖translator(s)‖ - factor / ‖factor‖|``, factor = paraphraser(t), a map flattened to one vector,
    summed over the pairs. Weight and rate are those of the authors' code.

    The paper trains the paraphraser first, by how well a decoder gets the teacher's map back. Here it is trained beside the
    student: that reconstruction error is the second term. The factor is detached in the first, so that the paraphraser gets
    the gradient of its reconstruction alone, and the student and the translator that of the transfer alone. The figure in
    the curve is the sum of both.
    """

    reads: ClassVar[Reads] = "last_stage"

    kind: Literal["factor_transfer"] = "factor_transfer"
    weight: NonNegativeFloat = 500.0
    rate: PositiveFloat = 0.5
    """k: channels of a factor, relative to the teacher's."""
    reconstruction: NonNegativeFloat = 0.002
    """Weight of the reconstruction's mean squared error, inside of this term: times 500 it is 1, as in the paper."""

    def adapter(self, pairs: Sequence[Pair], facts: Facts) -> nn.Module:
        """Return paraphrasers, decoders and translators."""
        from torch import nn

        from edgekd.distill.adapters import FactorAdapter, widths

        return nn.ModuleList(FactorAdapter(ours, theirs, self.rate) for ours, theirs in widths(pairs))

    def __call__(self, student: Outputs, teacher: Outputs, batch: Batch, adapter: nn.ModuleList) -> Tensor:
        """Return the distance of the factors and the weighted reconstruction error, summed over the pairs."""
        import torch
        from torch.nn import functional as F

        def error(part: FactorAdapter, s: Tensor, t: Tensor) -> Tensor:
            factor = part.paraphraser(t)
            ours, theirs = part.translator(s).flatten(1), factor.detach().flatten(1)
            transfer = F.l1_loss(unit(ours), unit(theirs))
            return transfer + self.reconstruction * F.mse_loss(full(part.decoder(factor)), full(t))

        pairs = zip(adapter, student.features, teacher.features, strict=True)
        return torch.stack([error(cast("FactorAdapter", part), s, t) for part, s, t in pairs]).sum()


@losses.register("pkd")
class PKD(FeatureLoss):
    """Patient distillation: squared error of normalized hidden states of intermediate layers (Sun et al. 2019, L_PT).

    ``‖s / ‖s‖ - t / ‖t‖‖²`` of the vectors of channels at every position, or of every token; mean over elements and pairs,
    as in the authors' code. The paper compares the first token alone, whose embedding is classified. Where the widths differ
    a 1×1 convolution comes first. The paper's weights are 10 to 1000.
    """

    kind: Literal["pkd"] = "pkd"
    weight: NonNegativeFloat = 100.0

    def adapter(self, pairs: Sequence[Pair], facts: Facts) -> nn.Module:
        """Return the 1×1 convolutions."""
        from torch import nn

        from edgekd.distill.adapters import regressor, widths

        return nn.ModuleList(regressor(ours, theirs) for ours, theirs in widths(pairs))

    def __call__(self, student: Outputs, teacher: Outputs, batch: Batch, adapter: nn.ModuleList) -> Tensor:
        """Return the mean squared error of the directions over the pairs."""
        import torch
        from torch.nn import functional as F

        pairs = zip(adapter, student.features, teacher.features, strict=True)
        errors = [F.mse_loss(unit(regressor(s), dim=1), unit(t, dim=1)) for regressor, s, t in pairs]
        return torch.stack(errors).mean()
