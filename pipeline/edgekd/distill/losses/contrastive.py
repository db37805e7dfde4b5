"""Losses that tell an image from others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from edgekd.distill.outputs import Batch, Facts, Outputs
from edgekd.recipe.loss import FeatureLoss, Reads
from edgekd.registry import losses

if TYPE_CHECKING:
    from torch import Tensor

    from edgekd.distill.adapters.contrast import Contrast
    from edgekd.taps.pairing import Pair


@losses.register("crd")
class CRD(FeatureLoss):
    """Contrastive representation distillation (Tian et al. 2020, §3.1): whose embedding is it, of the same image or another?

    Both networks' embeddings are mapped to one space. Noise-contrastive estimation tells the student's of an image, by the
    memory of the teacher's, from ``negatives`` other images, and the teacher's by the memory of the student's; the sum of
    both. As the authors' code does by default, the others are images of another class; here they are drawn independently
    of each other, there without replacement where the images suffice. The memory holds 2 × ``width`` numbers for each
    training image and stays behind.
    """

    reads: ClassVar[Reads] = "embedding"

    kind: Literal["crd"] = "crd"
    weight: NonNegativeFloat = 0.8
    negatives: PositiveInt = 16384
    """Images each one is compared with; never more than there are others."""
    temperature: PositiveFloat = 0.07
    """τ: what similarities are divided by."""
    momentum: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.5
    """Share of an image's memory that stays when it is seen again."""
    width: PositiveInt = 128
    """Dimension of the space in which embeddings are compared."""

    def adapter(self, pairs: Sequence[Pair], facts: Facts) -> Contrast:
        """Return both maps, the memory and the constants that normalize it."""
        from edgekd.distill.adapters.contrast import Contrast

        (pair,) = pairs
        return Contrast(
            (pair.student.channels, pair.teacher.channels), facts.samples, facts.targets,
            width=self.width, negatives=min(self.negatives, facts.samples - 1),
            temperature=self.temperature, momentum=self.momentum,
        )  # fmt: skip

    def __call__(self, student: Outputs, teacher: Outputs, batch: Batch, adapter: Contrast) -> Tensor:
        """Return the loss of both directions, a mean over the images."""
        value: Tensor = adapter(student.features[0], teacher.features[0], batch.indices, adapter.draw(batch.indices))
        return value
