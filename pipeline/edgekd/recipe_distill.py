"""The schema of what is trained: budgets, losses, the distill section."""

from __future__ import annotations

import json
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    BeforeValidator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    SerializeAsAny,
    ValidationInfo,
    model_validator,
)

from edgekd.errors import UsageError
from edgekd.recipe_base import Fraction, Strict, mistake
from edgekd.recipe_model import ModelSource, by_name
from edgekd.registry import losses


class Train(Strict):
    """A training budget."""

    epochs: Annotated[PositiveInt, Field(examples=[8])]
    """Passes over the training images."""
    batch_size: PositiveInt = 64
    """Images per step on one device."""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    """adamw, or sgd with momentum 0.9."""
    nesterov: bool = True
    """Whether the momentum of sgd is Nesterov's."""
    lr: PositiveFloat = 0.002
    """Peak learning rate of the schedule."""
    schedule: Literal["cosine", "step"] = "cosine"
    """How the learning rate falls: cosine, to zero in the last step; step, to gamma of what it was at each milestone."""
    milestones: tuple[PositiveInt, ...] = ()
    """Epochs after which a step schedule steps; those beyond the last epoch are never reached."""
    gamma: Annotated[float, Field(gt=0.0, le=1.0)] = 0.1
    """Factor of the learning rate at each milestone of a step schedule."""
    weight_decay: NonNegativeFloat = 0.01
    """Weight decay; not applied to biases and normalization, unless decay_norms."""
    decay_norms: bool = False
    """Apply weight decay to biases and normalization too."""
    warmup_epochs: NonNegativeFloat = 0.5
    """Epochs of linear warm-up before the schedule."""
    ema: Annotated[float, Field(gt=0.0, lt=1.0)] | None = None
    """Decay of an exponential moving average of the weights, per step; the average is what is validated and kept."""
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] = "auto"
    """auto: mixed on a GPU (bf16 where it has it), float32 on a CPU."""
    clip_grad_norm: PositiveFloat | None = None
    """Largest norm of the gradient."""


class TeacherTrain(Train):
    """The budget of a teacher trained in this run, with hard labels."""

    label_smoothing: Fraction = 0.0
    """Share of the label's probability spread over all classes."""
    save_dtype: Literal["float32", "float16"] = "float32"
    """Type of the weights kept; the kept weights are the ones measured."""


Reads = Literal["logits", "stages", "last_stage", "preactivations", "embedding", "attention", "own_stages", "last_map"]
"""What a loss compares: logits; the output of each stage, or of the last one; the same in front of the activation; what
the classifier reads; queries, keys and values of each self-attention; the student's own stages with its last one; or what
the last pooling reads."""

Depth = Literal["early", "middle", "late"]
"""A quarter, a half, and the whole of a network's depth."""


class Loss(Strict):
    """What all distillation losses share; each loss adds its own options (``edgekd list losses``)."""

    needs_teacher: ClassVar[bool] = True
    reads_labels: ClassVar[bool] = False  # whether it cannot do without the images' labels
    reads_all_logits: ClassVar[bool] = False  # whether top_k of a teacher cache would leave out what it reads
    reads: ClassVar[Reads] = "logits"
    reuses_teacher: ClassVar[bool] = False  # whether the student takes over a part of the teacher: see student()

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
        """Whether it goes on in int8: not if it has ended, nor if it reads what int8 computes in one with the activation."""
        return self.weight > 0 and not self.rests()

    def rests(self) -> str:
        """Why it does not go on in int8; empty if it does."""
        if self.end_epoch is not None:
            return f"it has ended at epoch {self.end_epoch:g}"
        if self.reads == "preactivations":
            return "what stands before an activation is no tensor of an int8 graph, which computes both in one"
        return ""

    def adapter(self, pairs: Any, facts: Any) -> Any:
        """Return what is trained for this loss beside the student; nothing, but for losses that say otherwise."""
        return None

    def student(self, student: Any, teacher: Any, example: Any) -> Any:
        """Return the network that is trained and shipped: the student, but for losses that say otherwise."""
        return student


class FeatureLoss(Loss):
    """A loss on features of paired layers."""

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
    assert issubclass(schema, Loss)
    if info.mode == "json":
        # As strict as the rest of a recipe file; the mode is not handed down by itself.
        return schema.model_validate_json(json.dumps(value), strict=True)
    return schema.model_validate(value)


AnyLoss = Annotated[SerializeAsAny[Loss], BeforeValidator(_loss)]


class TeacherCache(Strict):
    """What is kept of the teacher's outputs; students, losses, runs and quantization-aware training share it."""

    draws: PositiveInt | None = None
    """Views of each image: epoch e sees the augmentation of epoch e modulo this number. Left out: another one each epoch."""
    dtype: Literal["float32", "float16"] = "float32"
    """Type of the numbers kept; float32 gives the same student as no cache."""
    top_k: PositiveInt | None = None
    """Logits kept of each image, the largest ones; the others get one value, with which the probabilities sum to 1."""
    features: bool = True
    """Keep feature maps, which can be large, for the losses that read them. false: the teacher runs where a loss does."""

    @property
    def exact(self) -> bool:
        """Whether the student is the same, bit for bit, as without a cache."""
        return self.draws is None and self.dtype == "float32" and self.top_k is None

    def largest(self, classes: int) -> int | None:
        """How many of the logits are kept; None: all."""
        return self.top_k if self.top_k and self.top_k < classes else None


def _teacher_cache(value: Any) -> Any:
    return {} if value is True else value


class Peer(Strict):
    """A network that is trained beside the student, each the other's teacher (Zhang et al. 2018)."""

    model: Annotated[ModelSource, Field(examples=["torchvision:resnet18"])]
    """torchvision:NAME, timm:NAME, edgekd:NAME, or FILE.py:CALLABLE beside the recipe."""
    args: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of the model's builder; num_classes is set from the data."""
    weights: str | None = None
    """Checkpoint to start from; a head of another size is left out and said aloud."""
    seed: NonNegativeInt | None = None
    """Seed of its first weights and of its dropout. Left out: the recipe's, plus its place among the peers, from 1."""
    name: Annotated[str, Field(pattern=r"^[A-Za-z]\w*$")] | None = None
    """Its name in reports. Left out: its model's."""


class Distill(Train):
    """How the student is trained."""

    losses: Annotated[tuple[AnyLoss, ...], Field(min_length=1, examples=[[{"kind": "kd"}]])]
    """Terms of the training loss, summed with their weights."""
    teacher_cache: Annotated[TeacherCache | bool, BeforeValidator(_teacher_cache)] = False
    """Keep the teacher's outputs on disk and read them when the same view of an image comes again: true, or a mapping with
    its options."""
    peers: tuple[Peer, ...] = ()
    """Networks that are trained together with the student, in the place of a teacher: each learns from the labels and from
    what the others say about the same batch."""
    combine: Literal["losses", "probabilities"] = "losses"
    """How a network learns from several others. losses: the mean of its losses with each (DML). probabilities: its loss with
    the mean of their probabilities (DML_e)."""

    def named_peers(self) -> dict[str, Peer]:
        """The peers by their names in run and report, such as ``peer.resnet18``."""
        return {f"peer.{name}": peer for name, peer in by_name(self.peers).items()}
