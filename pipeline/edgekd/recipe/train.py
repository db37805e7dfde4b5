"""The budget of a training: epochs, batches, the optimizer."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import (
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
)

from edgekd.recipe.base import Fraction, Strict


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
