"""Losses of a training: what all have, and how one is found by its name."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    BeforeValidator,
    NonNegativeFloat,
    PositiveFloat,
    SerializeAsAny,
    ValidationInfo,
    model_validator,
)

from edgekd.errors import UsageError
from edgekd.recipe.base import Strict, mistake, validated
from edgekd.registry import losses

Reads = Literal["logits", "stages", "last_stage", "preactivations", "embedding", "attention", "own_stages", "last_map"]
"""What a loss compares: logits; the output of each stage, or of the last one; the same in front of the activation; what
the classifier reads; queries, keys and values of each self-attention; the student's own stages with its last one; or what
the last pooling reads."""


Need = Literal["classes", "images"]
"""What a loss may need of the task: logits of classes, or images to take maps from."""
Depth = Literal["early", "middle", "late"]
"""A quarter, a half, and the whole of a network's depth."""


class Loss(Strict):
    """Common keys of all distillation losses; each loss adds its own options (``edgekd list losses``)."""

    needs: ClassVar[tuple[Need, ...]] = ()  # what the task has to give; `edgekd check` refuses the loss elsewhere
    needs_teacher: ClassVar[bool] = True
    reads_labels: ClassVar[bool] = False  # whether it cannot do without the images' labels
    reads_all_logits: ClassVar[bool] = False  # whether top_k of a teacher cache would leave out what it reads
    reads: ClassVar[Reads] = "logits"
    reuses_teacher: ClassVar[bool] = False  # whether the student takes over a part of the teacher, by its student()

    kind: str
    """Name of the loss."""
    weight: NonNegativeFloat = 1.0
    """Factor of this term in the sum."""
    start_epoch: NonNegativeFloat = 0.0
    """Epochs of distillation before this term begins."""
    end_epoch: PositiveFloat | None = None
    """Epoch of distillation after which it is gone, in quantization-aware training too; left out: it stays."""
    warmup_epochs: NonNegativeFloat = 0.0
    """Epochs in which its weight rises linearly from 0."""
    teacher: str | None = None
    """Which of several teachers (`teacher.ensemble`) it learns from. Left out: all of them, combined; a loss on features
    needs one."""

    @model_validator(mode="after")
    def _in_order(self) -> Loss:
        if self.end_epoch is not None and self.end_epoch <= self.start_epoch:
            raise mistake(
                f"this term ends at epoch {self.end_epoch:g}, before it begins at {self.start_epoch:g}",
                "let end_epoch be larger than start_epoch",
                "end_epoch",
            )
        return self

    def factor(self, epoch: float) -> float:
        """Return what the weight is multiplied with at ``epoch``, counted in epochs of distillation from 0."""
        if epoch < self.start_epoch or (self.end_epoch is not None and epoch >= self.end_epoch):
            return 0.0
        return min(1.0, (epoch - self.start_epoch) / self.warmup_epochs) if self.warmup_epochs else 1.0

    def lasts(self) -> bool:
        """Return whether the loss stays on in int8 training; see :meth:`rests`."""
        return self.weight > 0 and not self.rests()

    def rests(self) -> str:
        """Return the reason why the loss is switched off in int8 training; empty if it stays on."""
        if self.end_epoch is not None:
            return f"it has ended at epoch {self.end_epoch:g}"
        if self.reads == "preactivations":
            return "what stands before an activation is no tensor of an int8 graph, which computes both in one"
        return ""


class FeatureLoss(Loss):
    """A loss on features of paired layers."""

    needs: ClassVar[tuple[Need, ...]] = ("images",)
    reads: ClassVar[Reads] = "stages"

    layers: Literal["auto"] | Depth | dict[str, str] = "auto"
    """auto chooses by tracing both networks (``edgekd plan --layers`` prints the pairs); early, middle, late: the pair at a
    quarter, at half, at the end of the depth; or module paths, student: teacher, such as {features.6: layer3}."""


def _loss(value: Any, info: ValidationInfo) -> Any:
    if isinstance(value, Loss):
        return value
    if not isinstance(value, dict):
        raise mistake("a loss is a mapping with a kind", "such as {kind: kd, temperature: 4}")
    if not isinstance(value.get("kind"), str):
        raise mistake("this loss has no kind", f"add kind: one of {', '.join(losses.names())}")
    try:
        schema = losses.get(value["kind"])
    except UsageError as error:
        raise mistake(error.message, error.hint, "kind") from None
    assert issubclass(schema, Loss)  # the registry admits nothing else
    return validated(schema, value, info)


AnyLoss = Annotated[SerializeAsAny[Loss], BeforeValidator(_loss)]
