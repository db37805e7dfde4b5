"""Losses on the logits."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat

from edgekd.distill.arithmetic import full, z_scores
from edgekd.distill.outputs import Batch, Outputs
from edgekd.recipe.loss import Loss, Need
from edgekd.registry import losses

if TYPE_CHECKING:
    from torch import Tensor


@losses.register("task")
class Task(Loss):
    """The task's own loss with the true targets: for classes cross-entropy with the labels."""

    needs_teacher: ClassVar[bool] = False
    reads_labels: ClassVar[bool] = True

    kind: Literal["task"] = "task"
    label_smoothing: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Share of the label's probability spread over all classes (Szegedy et al. 2016, §7)."""

    def __call__(self, student: Outputs, teacher: Outputs | None, batch: Batch, adapter: None) -> Tensor:
        """Return its mean over the batch."""
        return batch.criterion(full(student.primary), batch.target, self.label_smoothing)


@losses.register("kd")
class KD(Loss):
    """Hinton's distillation: KL divergence of softened probabilities (Hinton et al. 2015, §2).

    ``T² · KL(softmax(t / T) ‖ softmax(s / T))``, mean over the batch; T² keeps the gradient's size when T changes.
    """

    needs: ClassVar[tuple[Need, ...]] = ("classes",)

    kind: Literal["kd"] = "kd"
    temperature: PositiveFloat = 4.0
    """T: higher shows more of how the teacher ranks the wrong classes."""
    standardize: bool = False
    """Compare Z-scores of logits (Sun et al. 2024), so that the student need not match their size; the paper has temperature
    2 and weight 9 with it."""

    def __call__(self, student: Outputs, teacher: Outputs, batch: Batch, adapter: None) -> Tensor:
        """Return the mean divergence times T²."""
        ours, theirs = (_softened(outputs.primary, self.temperature, self.standardize) for outputs in (student, teacher))
        return _divergence(ours, theirs) * self.temperature**2


@losses.register("dkd")
class DKD(Loss):
    """Decoupled distillation: the target class and the other classes apart (DKD, Zhao et al. 2022).

    ``T² · (α · TCKD + β · NCKD)``, mean over the batch. TCKD is the KL divergence of (target, not target), NCKD that of the
    probabilities among the other classes. With α = 1 and β = 1 − the teacher's probability of the target it would be `kd`.
    Reads the labels. At β = 8 and a high learning rate a student that starts with the whole weight may never recover
    (benchmarks/results/distill_quality.md), so it rises from 0, as in the authors' code: there for 20 of 240 epochs on
    CIFAR-100, for 1 of 100 on ImageNet.
    """

    reads_labels: ClassVar[bool] = True

    needs: ClassVar[tuple[Need, ...]] = ("classes",)
    kind: Literal["dkd"] = "dkd"
    alpha: NonNegativeFloat = 1.0
    """α, weight of the target class."""
    beta: NonNegativeFloat = 8.0
    """β, weight of the other classes: on CIFAR-100 8 for most pairs in the authors' settings, 2 for small ResNets; on
    ImageNet 0.5 (ResNet-18) or 2 (MobileNet)."""
    temperature: PositiveFloat = 4.0
    """T of both parts; 1 on ImageNet in the paper."""
    standardize: bool = False
    """Compare Z-scores of logits (Sun et al. 2024), so that the student need not match their size."""
    warmup_epochs: NonNegativeFloat = 1.0

    def __call__(self, student: Outputs, teacher: Outputs, batch: Batch, adapter: None) -> Tensor:
        """Return the weighted sum of the two mean divergences times T²."""
        import torch
        from torch.nn import functional as F

        target = F.one_hot(batch.target, student.primary.shape[1]).bool()

        def parts(outputs: Outputs) -> tuple[Tensor, Tensor]:
            logits = _softened(outputs.primary, self.temperature, self.standardize)
            others = logits[~target].view(len(logits), -1)
            # softmax of these two is the probability of the target and that of the rest: nothing under- or overflows
            return torch.stack([logits[target], others.logsumexp(dim=1)], dim=1), others

        ours, theirs = parts(student), parts(teacher)
        tckd, nckd = (_divergence(s, t) for s, t in zip(ours, theirs, strict=True))
        return (self.alpha * tckd + self.beta * nckd) * self.temperature**2


@losses.register("dist")
class DIST(Loss):
    """Distillation from a stronger teacher: correlation instead of KL divergence (DIST, Huang et al. 2022).

    ``β · (1 − mean over images of ρ) + γ · (1 − mean over classes of ρ)``, where ρ is Pearson's correlation of the student's
    and the teacher's probabilities: of all classes of an image (inter-class), of a class over the batch (intra-class).
    As in the paper there is no T²; the authors' later code, and torchdistill, have it: give weight T² for theirs.
    """

    reads_all_logits: ClassVar[bool] = True

    needs: ClassVar[tuple[Need, ...]] = ("classes",)
    kind: Literal["dist"] = "dist"
    beta: NonNegativeFloat = 2.0
    """β, weight of the inter-class relation."""
    gamma: NonNegativeFloat = 2.0
    """γ, weight of the intra-class relation."""
    temperature: PositiveFloat = 1.0
    """T of the softmax: 1 on ImageNet, 4 on CIFAR-100 in the paper."""
    standardize: bool = False
    """Compare Z-scores of logits (Sun et al. 2024), so that the student need not match their size."""

    def __call__(self, student: Outputs, teacher: Outputs, batch: Batch, adapter: None) -> Tensor:
        """Return the weighted sum of the two distances; a class or image that does not vary correlates with nothing."""

        def correlation(a: Tensor, b: Tensor) -> Tensor:
            return (z_scores(a) * z_scores(b)).mean()

        p, q = (_softened(x.primary, self.temperature, self.standardize).softmax(dim=1) for x in (student, teacher))
        return self.beta * (1 - correlation(p, q)) + self.gamma * (1 - correlation(p.T, q.T))


@losses.register("mse_logits")
class MSELogits(Loss):
    """Squared error of the logits (Ba & Caruana 2014, eq. 1; Kim et al. 2021, their L_MSE).

    Mean over classes and batch, as in the code of Kim et al.; `kd` at T → ∞ is half of it for logits of zero mean.
    """

    reads_all_logits: ClassVar[bool] = True

    kind: Literal["mse_logits"] = "mse_logits"

    def __call__(self, student: Outputs, teacher: Outputs, batch: Batch, adapter: None) -> Tensor:
        """Return the mean squared difference."""
        from torch.nn import functional as F

        return F.mse_loss(full(student.primary), full(teacher.primary))


@losses.register("tf_kd")
class TfKD(Loss):
    """Teacher-free distillation: a virtual teacher made from the labels, Tf-KD_reg (Yuan et al. 2020).

    The virtual teacher is right with probability ``correct`` and finds all other classes equally likely. Its logits, the
    logarithms of that, are compared as in `kd`: ``T² · KL(softmax(t / T) ‖ softmax(s / T))``. The paper has no T², without
    which a T of 20 leaves hardly any gradient. The authors' code for CIFAR-100 differs from the paper: its student is not
    softened, and the virtual teacher's probabilities are taken for logits, which makes them all but uniform. Default weight:
    the paper's α, beside 1 − α = 0.9 for `task`. Reads the labels. Tf-KD_self is `kd` with the trained student as teacher.
    """

    needs_teacher: ClassVar[bool] = False
    reads_labels: ClassVar[bool] = True

    needs: ClassVar[tuple[Need, ...]] = ("classes",)
    kind: Literal["tf_kd"] = "tf_kd"
    weight: NonNegativeFloat = 0.1
    correct: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.99
    """Probability that the virtual teacher gives to the label; at least 0.9 in the paper."""
    temperature: PositiveFloat = 20.0
    """T, high so that the virtual teacher is soft."""

    def __call__(self, student: Outputs, teacher: Outputs | None, batch: Batch, adapter: None) -> Tensor:
        """Return the mean divergence from the virtual teacher times T²."""
        import torch
        from torch.nn import functional as F

        ours = _softened(student.primary, self.temperature)
        label = F.one_hot(batch.target, ours.shape[1]).bool()
        virtual = torch.full_like(ours, math.log((1 - self.correct) / (ours.shape[1] - 1)))
        virtual[label] = math.log(self.correct)
        return _divergence(ours, virtual / self.temperature) * self.temperature**2


def _divergence(ours: Tensor, theirs: Tensor) -> Tensor:
    """KL divergence of the teacher's softmax from the student's, mean over the batch."""
    from torch.nn import functional as F

    return F.kl_div(F.log_softmax(ours, dim=1), F.log_softmax(theirs, dim=1), reduction="batchmean", log_target=True)


def _softened(logits: Tensor, temperature: float, standardize: bool = False) -> Tensor:
    """Logits (N×classes) over the temperature; on request first as Z-scores over the classes (Sun et al. 2024).

    The standard deviation is the paper's, with 1 / K. The authors' code, and torchdistill, have 1 / (K − 1), with which a
    temperature of T acts as one of T · √(K / (K − 1)) here.
    """
    logits = full(logits)
    return (z_scores(logits) if standardize else logits) / temperature
