"""Losses on relations: between the images of a batch, and between the channels of a map."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt

from edgekd.distill.arithmetic import full, products, unit
from edgekd.distill.outputs import Batch, Facts, Outputs
from edgekd.recipe.loss import FeatureLoss, Reads
from edgekd.registry import losses

if TYPE_CHECKING:
    from torch import Tensor, nn

    from edgekd.taps.pairing import Pair


@losses.register("rkd")
class RKD(FeatureLoss):
    """Relational distillation: distances and angles between images (Park et al. 2019, §3.2).

    Huber loss of the distance of every two embeddings, in units of the mean one, and of the cosine of the angle at every
    three. Mean over all N² pairs and N³ triplets, those of an image with itself among them, as in the authors' code, which
    the paper's weights for classification, 25 and 50, belong to. Needs memory for N² · D and N³ numbers.
    """

    reads: ClassVar[Reads] = "embedding"

    kind: Literal["rkd"] = "rkd"
    distance: NonNegativeFloat = 25.0
    """Weight of the distances."""
    angle: NonNegativeFloat = 50.0
    """Weight of the angles."""

    def __call__(self, student: Outputs, teacher: Outputs, batch: Batch, adapter: None) -> Tensor:
        """Return the weighted sum of both errors, summed over the pairs of layers."""
        from torch.nn import functional as F

        def relations(x: Tensor) -> tuple[Tensor, Tensor]:
            x = full(x)
            edges = x.unsqueeze(0) - x.unsqueeze(1)
            lengths = edges.norm(dim=2)
            mean = lengths.sum() / max(1, len(x) * (len(x) - 1))
            return lengths / mean.clamp(min=1e-12), products(unit(edges))

        def error(s: Tensor, t: Tensor) -> Tensor:
            distances, angles = (F.smooth_l1_loss(*pair) for pair in zip(relations(s), relations(t), strict=True))
            return self.distance * distances + self.angle * angles

        return _sum(error(s, t) for s, t in zip(student.features, teacher.features, strict=True))


@losses.register("similarity_preserving")
class SimilarityPreserving(FeatureLoss):
    """Similarity-preserving distillation (Tung & Mori 2019, its loss L_SP).

    The products of every two images' maps, N×N, each row divided by its L2 norm, compared by squared error: mean over N²,
    summed over the pairs of layers, which the paper's weight of 3000 belongs to. torchdistill 1.1.5 divides by the L1 norm.
    """

    reads: ClassVar[Reads] = "last_stage"

    kind: Literal["similarity_preserving"] = "similarity_preserving"
    weight: NonNegativeFloat = 3000.0

    def __call__(self, student: Outputs, teacher: Outputs, batch: Batch, adapter: None) -> Tensor:
        """Return the error of the similarity matrices, summed over the pairs."""
        from torch.nn import functional as F

        def similarity(feature: Tensor) -> Tensor:
            return unit(products(feature.flatten(1)))

        pairs = zip(student.features, teacher.features, strict=True)
        return _sum(F.mse_loss(similarity(s), similarity(t)) for s, t in pairs)


@losses.register("correlation_congruence")
class CorrelationCongruence(FeatureLoss):
    """Correlation congruence (Peng et al. 2019, with the Gaussian RBF kernel).

    The correlation of two images is the Gaussian RBF ``exp(−γ‖x − y‖²)`` of their embeddings over their L2 norm, in its
    Taylor expansion to order P: ``exp(−2γ) · Σ (2γ)ᵖ / p! · (x·y)ᵖ``, p = 0 … P. The N×N matrices are compared by squared
    error, mean over N². The student's embedding goes through a linear layer to the teacher's width first.

    The expansion is that of the RBF for vectors of length 1 alone. torchdistill does not normalise, and divides the norm of
    the difference by N², not its square; the weight 0.003 is for that. RepDistiller's `correlation` (weight 0.02) has no
    correlation matrix: it multiplies the absolute errors of one image and the next. Both also train a linear layer on the
    teacher's embedding: with this loss it soon makes all images alike, and nothing is left to learn from, so there is none
    here. The default weight is that of Knowledge-Distillation-Zoo, whose formula this is, without a linear layer.
    """

    reads: ClassVar[Reads] = "embedding"

    kind: Literal["correlation_congruence"] = "correlation_congruence"
    weight: NonNegativeFloat = 100.0
    gamma: PositiveFloat = 0.4
    """γ of the Gaussian RBF."""
    order: PositiveInt = 2
    """P, the order of the Taylor expansion."""

    def adapter(self, pairs: Sequence[Pair], facts: Facts) -> nn.Module:
        """Return the student's linear layers."""
        from torch import nn

        return nn.ModuleList(nn.Linear(pair.student.channels, pair.teacher.channels) for pair in pairs)

    def __call__(self, student: Outputs, teacher: Outputs, batch: Batch, adapter: nn.ModuleList) -> Tensor:
        """Return the error of the correlation matrices, summed over the pairs."""
        from torch.nn import functional as F

        def correlation(x: Tensor) -> Tensor:
            cosines = products(unit(x))
            terms = ((2 * self.gamma) ** p / math.factorial(p) * cosines**p for p in range(self.order + 1))
            return math.exp(-2 * self.gamma) * _sum(terms)

        pairs = zip(adapter, student.features, teacher.features, strict=True)
        return _sum(F.mse_loss(correlation(embed(s)), correlation(t)) for embed, s, t in pairs)


@losses.register("pkt")
class PKT(FeatureLoss):
    """Probabilistic knowledge transfer (Passalis & Tefas 2018, with the cosine similarity).

    The cosine of every two embeddings, brought to [0, 1] and divided by the sum of its row, is the probability that one
    image is the other's neighbour; the student's is compared by KL divergence. As in the authors' code an image is its own
    neighbour too, and the divergence is a mean over N², the sum over a row divided by N once more: the weight of 30000 is
    RepDistiller's for that.
    """

    reads: ClassVar[Reads] = "embedding"

    kind: Literal["pkt"] = "pkt"
    weight: NonNegativeFloat = 30000.0

    def __call__(self, student: Outputs, teacher: Outputs, batch: Batch, adapter: None) -> Tensor:
        """Return the mean divergence, summed over the pairs of layers."""

        def neighbours(x: Tensor) -> Tensor:
            similarity = (products(unit(x)).double() + 1) / 2  # in float32 the divergence of near distributions cancels
            return similarity / similarity.sum(dim=1, keepdim=True)

        def divergence(p: Tensor, q: Tensor) -> Tensor:
            return (q * ((q + 1e-7) / (p + 1e-7)).log()).mean()

        pairs = zip(student.features, teacher.features, strict=True)
        return _sum(divergence(neighbours(s), neighbours(t)) for s, t in pairs).to(full(student.features[0]).dtype)


@losses.register("ickd")
class ICKD(FeatureLoss):
    """Inter-channel correlation, ICKD-C (Liu et al. 2021, its loss for classification).

    The products of every two channels of a map, C×C for each image, each row divided by its L2 norm, compared by squared
    error. As in the authors' code for CIFAR-100 the error is summed over a row and averaged over rows and images, which the
    weight of 2.5 belongs to; torchdistill divides by N once more. Where the widths differ, the student's map goes through a
    1×1 convolution and batch norm first; the authors' code has both always.
    """

    reads: ClassVar[Reads] = "last_stage"

    kind: Literal["ickd"] = "ickd"
    weight: NonNegativeFloat = 2.5

    def adapter(self, pairs: Sequence[Pair], facts: Facts) -> nn.Module:
        """Return the 1×1 convolutions with batch norm."""
        from torch import nn

        def embed(ours: int, theirs: int) -> nn.Module:
            if ours == theirs:
                return nn.Identity()
            return nn.Sequential(nn.Conv2d(ours, theirs, 1, bias=False), nn.BatchNorm2d(theirs))

        return nn.ModuleList(embed(pair.student.channels, pair.teacher.channels) for pair in pairs)

    def __call__(self, student: Outputs, teacher: Outputs, batch: Batch, adapter: nn.ModuleList) -> Tensor:
        """Return the error of the correlation matrices, summed over the pairs."""

        def correlation(feature: Tensor) -> Tensor:
            return unit(products(feature.flatten(2)))

        pairs = zip(adapter, student.features, teacher.features, strict=True)
        return _sum((correlation(embed(s)) - correlation(t)).pow(2).sum(dim=2).mean() for embed, s, t in pairs)


def _sum(values: Iterable[Tensor]) -> Tensor:
    import torch

    return torch.stack(list(values)).sum(dim=0)
