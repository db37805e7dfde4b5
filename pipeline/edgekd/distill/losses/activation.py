"""Losses on what neurons receive in front of their activation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import NonNegativeFloat, PositiveFloat

from edgekd.distill.arithmetic import full
from edgekd.distill.outputs import Batch, Facts, Outputs
from edgekd.recipe.loss import FeatureLoss, Reads
from edgekd.registry import losses

if TYPE_CHECKING:
    from torch import Tensor, nn

    from edgekd.taps.pairing import Pair


@losses.register("ab")
class AB(FeatureLoss):
    """Activation boundaries: the student's neurons on and off where the teacher's are (Heo et al. 2019, AAAI).

    The paper's differentiable loss: with a connector r, ``Σ max(0, μ - r(s))²`` over the neurons where the teacher's is
    positive, and ``Σ max(0, μ + r(s))²`` over the others; mean over the batch. As in the authors' code the last pair
    counts 1, the one before 1/2, and so on, and the weight is theirs (3 / 1000). They have a connector only where the widths
    differ; here every pair has one.

    The paper trains with this term alone first, as an initialization: give it an ``end_epoch``, and the others a
    ``start_epoch``, to do the same.
    """

    reads: ClassVar[Reads] = "preactivations"

    kind: Literal["ab"] = "ab"
    weight: NonNegativeFloat = 0.003
    margin: PositiveFloat = 1.0
    """μ: how far from its boundary a neuron shall be."""

    def adapter(self, pairs: Sequence[Pair], facts: Facts) -> nn.Module:
        """Return the connectors."""
        from torch import nn

        from edgekd.distill.adapters import connector, widths

        return nn.ModuleList(connector(ours, theirs) for ours, theirs in widths(pairs))

    def __call__(self, student: Outputs, teacher: Outputs, batch: Batch, adapter: nn.ModuleList) -> Tensor:
        """Return the squared distances beyond the margin."""
        import torch

        def error(s: Tensor, t: Tensor) -> Tensor:
            return (self.margin - torch.where(t > 0, full(s), -full(s))).relu().pow(2).sum() / len(s)

        pairs = zip(adapter, student.features, teacher.features, strict=True)
        return _later_counts_more([error(connector(s), t) for connector, s, t in pairs])


@losses.register("ofd")
class OFD(FeatureLoss):
    """Overhaul of feature distillation: partial L2 to the teacher's margin ReLU (Heo et al. 2019, ICCV).

    ``Σ (r(s) - max(t, m))²``, with the connector r and the margin m = E[t | t < 0] by channel, over the places that are not
    ``r(s) ≤ max(t, m) ≤ 0``; mean over the batch. As in the authors' code the last pair counts 1, the one before 1/2, and so
    on, and the weight is theirs for CIFAR (1 / 1000; for ImageNet, with its larger maps, 1 / 10000).

    The margin is the mean of the negative values that the teacher has given so far. The authors' code takes it from the
    batch norm in front instead; here any architecture will do.
    """

    reads: ClassVar[Reads] = "preactivations"

    kind: Literal["ofd"] = "ofd"
    weight: NonNegativeFloat = 0.001

    def adapter(self, pairs: Sequence[Pair], facts: Facts) -> nn.Module:
        """Return the connectors and the margins."""
        from torch import nn

        from edgekd.distill.adapters import MarginConnector, widths

        return nn.ModuleList(MarginConnector(ours, theirs) for ours, theirs in widths(pairs))

    def __call__(self, student: Outputs, teacher: Outputs, batch: Batch, adapter: nn.ModuleList) -> Tensor:
        """Return the partial squared distances."""

        def error(s: Tensor, t: Tensor) -> Tensor:
            return ((full(s) - full(t)).pow(2) * ((s > t) | (t > 0))).sum() / len(s)

        pairs = zip(adapter, student.features, teacher.features, strict=True)
        return _later_counts_more([error(part.connector(s), part.margin(t)) for part, s, t in pairs])  # type: ignore[operator]


def _later_counts_more(values: Iterable[Tensor]) -> Tensor:
    """Sum with the weights ..., 1/4, 1/2, 1."""
    import torch

    stacked = torch.stack(tuple(values))
    return (stacked * 2.0 ** torch.arange(1 - len(stacked), 1, device=stacked.device)).sum()
