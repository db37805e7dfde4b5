"""The schema of what is trained: budgets, losses, the distill section."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    NonNegativeInt,
    PositiveInt,
)

from edgekd.recipe.base import Strict
from edgekd.recipe.loss import AnyLoss
from edgekd.recipe.model import ModelSource, by_name
from edgekd.recipe.train import Train


class TeacherCache(Strict):
    """The cache of the teacher's outputs; students, losses, runs and quantization-aware training share it."""

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
        """True if the student is the same, bit for bit, as without a cache."""
        return self.draws is None and self.dtype == "float32" and self.top_k is None

    def largest(self, classes: int) -> int | None:
        """Return the number of logits that are kept; None: all."""
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
    """Checkpoint to start from; a head of another size is left out, and the run says so."""
    seed: NonNegativeInt | None = None
    """Seed of its first weights and of its dropout. Left out: the recipe's, plus its place among the peers, from 1."""
    name: Annotated[str, Field(pattern=r"^[A-Za-z]\w*$")] | None = None
    """Its name in reports. Left out: its model's."""


class Distill(Train):
    """The training of the student."""

    losses: Annotated[tuple[AnyLoss, ...], Field(min_length=1, examples=[[{"kind": "kd"}]])]
    """Terms of the training loss, summed with their weights."""
    teacher_cache: Annotated[TeacherCache | bool, BeforeValidator(_teacher_cache)] = False
    """Keep the teacher's outputs on disk and read them when the same view of an image comes again: true, or a mapping with
    its options."""
    peers: tuple[Peer, ...] = ()
    """Networks that are trained together with the student, instead of a teacher: each learns from the labels and from
    the others' outputs for the same batch."""
    combine: Literal["losses", "probabilities"] = "losses"
    """How a network learns from several others. losses: the mean of its losses with each (DML). probabilities: its loss with
    the mean of their probabilities (DML_e)."""

    def named_peers(self) -> dict[str, Peer]:
        """The peers by their names in run and report, such as ``peer.resnet18``."""
        return {f"peer.{name}": peer for name, peer in by_name(self.peers).items()}
