"""Losses on statistics of maps: how a map is distributed over its positions, or goes together with another one."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import NonNegativeFloat, PositiveFloat

from edgekd.distill.arithmetic import full, products, unit
from edgekd.distill.outputs import Batch, Facts, Outputs
from edgekd.errors import ModelError
from edgekd.recipe.loss import FeatureLoss, Reads
from edgekd.registry import losses

if TYPE_CHECKING:
    from torch import Tensor, nn

    from edgekd.taps.pairing import Pair


@losses.register("nst")
class NST(FeatureLoss):
    """Neuron selectivity transfer: maximum mean discrepancy of the channels' maps (Huang & Wang 2017).

    Each channel, normalized over its positions, is a sample: ``mean k(t, t') + mean k(s, s') - 2 mean k(s, t)`` with the
    polynomial kernel ``k(x, y) = (x·y)²`` that did best in the paper; mean over the batch, summed over the pairs. Channels
    may differ in number. The weight is that of RepDistiller's and mdistiller's scripts.
    """

    kind: Literal["nst"] = "nst"
    weight: NonNegativeFloat = 50.0

    def __call__(self, student: Outputs, teacher: Outputs, batch: Batch, adapter: None) -> Tensor:
        """Return the squared discrepancy, summed over the pairs."""
        import torch

        def kernel(a: Tensor, b: Tensor) -> Tensor:
            """Mean of (x·y)² over all pairs of channels: Σ (x·y)² = ⟨aᵀa, bᵀb⟩, the smaller of two matrices."""
            if a.shape[2] < min(a.shape[1], b.shape[1]):
                return (products(a.mT) * products(b.mT)).sum() / (len(a) * a.shape[1] * b.shape[1])
            return products(a, b).pow(2).mean()

        def error(s: Tensor, t: Tensor) -> Tensor:
            s, t = unit(s.flatten(2)), unit(t.flatten(2))
            return kernel(t, t) + kernel(s, s) - 2 * kernel(s, t)

        pairs = zip(student.features, teacher.features, strict=True)
        return torch.stack([error(s, t) for s, t in pairs]).sum()


@losses.register("cwd")
class CWD(FeatureLoss):
    """Channel-wise distillation: KL divergence of each channel's softmax over its positions (Shu et al. 2021).

    ``T² / C · Σ KL(softmax(t / T) ‖ softmax(s / T))`` over the channels, mean over the batch, summed over the pairs. Where
    the widths differ a 1×1 convolution comes first. Weight and temperature are those of the authors' script, which has them
    for the logits of a segmentation; for classification the last stage's map is what has positions.
    """

    reads: ClassVar[Reads] = "last_stage"

    kind: Literal["cwd"] = "cwd"
    weight: NonNegativeFloat = 3.0
    temperature: PositiveFloat = 4.0
    """T: higher spreads a channel over more of its positions."""

    def adapter(self, pairs: Sequence[Pair], facts: Facts) -> nn.Module:
        """Return the 1×1 convolutions."""
        from torch import nn

        from edgekd.distill.adapters import regressor, widths

        return nn.ModuleList(regressor(ours, theirs) for ours, theirs in widths(pairs))

    def __call__(self, student: Outputs, teacher: Outputs, batch: Batch, adapter: nn.ModuleList) -> Tensor:
        """Return the divergence of the channels, summed over the pairs."""
        import torch
        from torch.nn import functional as F

        def error(s: Tensor, t: Tensor) -> Tensor:
            log_q = F.log_softmax(full(s).flatten(2) / self.temperature, dim=2)
            log_p = F.log_softmax(full(t).flatten(2) / self.temperature, dim=2)
            divergence = F.kl_div(log_q, log_p, reduction="sum", log_target=True) / (s.shape[0] * s.shape[1])
            return divergence * self.temperature**2

        pairs = zip(adapter, student.features, teacher.features, strict=True)
        return torch.stack([error(regressor(s), t) for regressor, s, t in pairs]).sum()


@losses.register("fsp")
class FSP(FeatureLoss):
    """Flow of the solution procedure: how each stage's channels go together with the next one's (Yim et al. 2017, eq. 1, 2).

    The FSP matrix of two stages is ``G_ij = mean over positions of a_i · b_j``; the larger map is max-pooled to the smaller,
    as in the paper. Squared error of the matrices, mean over their elements (as in RepDistiller, which trains with it before
    anything else and has no weight there; the paper sums them) and over the batch, summed over neighbouring stages. Where
    the widths differ, the student's maps go through a 1×1 convolution first; the paper has none, for its networks are as
    wide as each other.

    The paper trains with this term alone first: give it an ``end_epoch``, and the others a ``start_epoch``, to do the same.
    """

    kind: Literal["fsp"] = "fsp"
    weight: NonNegativeFloat = 1.0

    def adapter(self, pairs: Sequence[Pair], facts: Facts) -> nn.Module:
        """Return the 1×1 convolutions.

        Raises:
            ModelError: There are less than two pairs.
        """
        from torch import nn

        from edgekd.distill.adapters import regressor, widths

        if len(pairs) < 2:
            raise ModelError(
                f"fsp compares each layer with the next one: it needs two pairs of layers or more, not {len(pairs)}",
                "choose more, layers: {student: teacher, student: teacher}, or another loss",
            )
        return nn.ModuleList(regressor(ours, theirs) for ours, theirs in widths(pairs))

    def __call__(self, student: Outputs, teacher: Outputs, batch: Batch, adapter: nn.ModuleList) -> Tensor:
        """Return the mean squared error of the FSP matrices, summed over neighbouring stages."""
        import torch
        from torch.nn import functional as F

        def flow(a: Tensor, b: Tensor) -> Tensor:
            size = (min(a.shape[2], b.shape[2]), min(a.shape[3], b.shape[3]))
            a, b = (x if x.shape[2:] == size else F.adaptive_max_pool2d(x, size) for x in (a, b))
            return products(a.flatten(2), b.flatten(2)) / (size[0] * size[1])

        ours = [regressor(s) for regressor, s in zip(adapter, student.features, strict=True)]
        flows = zip(pairwise(ours), pairwise(teacher.features), strict=True)
        return torch.stack([F.mse_loss(flow(*s), flow(*t)) for s, t in flows]).sum()
