"""Losses that give the student a part of the teacher."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import PositiveInt

from edgekd.distill.arithmetic import full
from edgekd.distill.outputs import Batch, Outputs
from edgekd.recipe.loss import FeatureLoss, Reads
from edgekd.registry import losses

if TYPE_CHECKING:
    from torch import Tensor, nn


@losses.register("simkd")
class SimKD(FeatureLoss):
    """Distillation with the reused teacher classifier (SimKD, Chen et al. 2022): the student learns the last map alone.

    The student that is trained, quantized and shipped is another network: its own, up to the last map, then a projector,
    then the teacher's pooling and classifier, which are never trained. The loss is the mean squared error of the projected
    map against the teacher's; no other loss is needed. The run says what the projector costs; as in the authors' code its
    inner width is half of the teacher's.
    """

    reads: ClassVar[Reads] = "last_map"
    reuses_teacher: ClassVar[bool] = True

    kind: Literal["simkd"] = "simkd"
    layers: Literal["auto"] = "auto"
    """auto: what the last pooling reads, in both networks."""
    reduction: PositiveInt = 2
    """The projector's inner width is the teacher's divided by it (r): fewer parameters with more."""
    depthwise: bool = False
    """Whether the projector's 3×3 convolution takes each channel by itself: far fewer parameters."""

    def student(self, student: nn.Module, teacher: nn.Module, example: Tensor) -> nn.Module:
        """Return the student with a projector and the teacher's end."""
        from edgekd.distill.reuse import reuse

        return reuse(student, teacher, example, reduction=self.reduction, depthwise=self.depthwise)

    def __call__(self, student: Outputs, teacher: Outputs, batch: Batch, adapter: None) -> Tensor:
        """Return the mean squared error of the last maps."""
        from torch.nn import functional as F

        return F.mse_loss(full(student.features[0]), full(teacher.features[0]))
