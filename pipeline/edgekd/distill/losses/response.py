"""Losses on the logits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, PositiveFloat

from edgekd.distill.outputs import Batch, Outputs
from edgekd.recipe import Loss
from edgekd.registry import losses

if TYPE_CHECKING:
    from torch import Tensor


@losses.register("task")
class Task(Loss):
    """Cross-entropy with the labels."""

    needs_teacher: ClassVar[bool] = False

    kind: Literal["task"] = "task"
    label_smoothing: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Share of the label's probability spread over all classes (Szegedy et al. 2016, §7)."""

    def __call__(self, student: Outputs, teacher: Outputs | None, batch: Batch, adapter: None) -> Tensor:
        """Return the mean cross-entropy."""
        from torch.nn import functional as F

        return F.cross_entropy(student.logits, batch.labels, label_smoothing=self.label_smoothing)


@losses.register("kd")
class KD(Loss):
    """Hinton's distillation: KL divergence of softened probabilities (Hinton et al. 2015, §2).

    ``T² · KL(softmax(t / T) ‖ softmax(s / T))``, mean over the batch; T² keeps the gradient's size when T changes.
    """

    kind: Literal["kd"] = "kd"
    temperature: PositiveFloat = 4.0
    """T: higher shows more of how the teacher ranks the wrong classes."""

    def __call__(self, student: Outputs, teacher: Outputs, batch: Batch, adapter: None) -> Tensor:
        """Return the mean divergence times T²."""
        from torch.nn import functional as F

        t = self.temperature
        log_p = F.log_softmax(student.logits / t, dim=1)
        log_q = F.log_softmax(teacher.logits / t, dim=1)
        return F.kl_div(log_p, log_q, reduction="batchmean", log_target=True) * t**2
