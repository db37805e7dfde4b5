"""The section of a teacher."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, NonNegativeInt, PositiveFloat, model_validator

from edgekd.recipe.base import Strict, mistake
from edgekd.recipe.data import Data
from edgekd.recipe.distill import Distill
from edgekd.recipe.model import MODEL_SOURCES, by_name, model_source
from edgekd.recipe.train import TeacherTrain
from edgekd.recipe.view import View
from edgekd.runtimes import tensorflow
from edgekd.runtimes.base import runtimes

_PLACES = {"keras": "FILE.keras", "savedmodel": "DIR"}


def black_boxes() -> tuple[str, ...]:
    """Return the kinds of files that may teach by their outputs: of each runtime, of TensorFlow, and stored outputs."""
    return (*runtimes.names(), *tensorflow.FORMATS, "outputs")


def _teacher_source(value: str) -> str:
    kind, _, file = value.partition(":")
    if kind not in black_boxes():
        return model_source(value, (*MODEL_SOURCES, *(f"{name}:{_PLACES.get(name, 'FILE')}" for name in black_boxes())))
    if not file:
        raise mistake(f"{value!r} does not say which file", f"write {kind}:{_PLACES.get(kind, 'FILE')}")
    if kind == "keras" and not file.endswith(".keras"):
        why = (
            "which can hold code that Keras runs when it loads it" if file.endswith((".h5", ".hdf5")) else "not a .keras one"
        )
        raise mistake(f"{file} is another file, {why}", "save it again: model.save('FILE.keras')")
    return value


TeacherSource = Annotated[str, BeforeValidator(lambda v: _teacher_source(v) if isinstance(v, str) else v)]


class Teacher(Strict):
    """The teacher: one network, with `weights`, `train` or `distill`, or several, in an `ensemble`."""

    model: Annotated[TeacherSource, Field(examples=["torchvision:resnet18"])] | None = None
    """torchvision:NAME, timm:NAME, edgekd:NAME, or FILE.py:CALLABLE beside the recipe. Or a black box, whose
    layers are unknown: onnx:FILE, tflite:FILE, openvino:FILE.xml, keras:FILE.keras, savedmodel:DIR, or outputs:FILE.npz with
    stored ones (`train`, a row for each training image of the data, and `test`)."""
    args: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of the model's builder; num_classes is set from the data."""
    weights: str | None = None
    """A .safetensors or weights-only .pt/.pth checkpoint, FILE#SET where it holds several sets of weights (such as
    best.pt#model_ema), or edgekd:NAME for one that ships with edgekd. With train or distill the teacher starts from it; a
    head of another size is left out, with a warning."""
    train: TeacherTrain | None = None
    """Train the teacher in this run: from `weights` where they are given, else from random ones."""
    distill: Distill | None = None
    """Train it in this run as the student of its own `teacher`: an assistant between a large teacher and a small student
    (Mirzadeh et al. 2020), or, with the same model, a born-again generation (Furlanello et al. 2018)."""
    teacher: Teacher | None = None
    """The teacher of this teacher, with `distill`; it may have a teacher, too."""
    seed: NonNegativeInt | None = None
    """Seed of its first weights and of its order of images. Left out: the recipe's, plus the number of teachers behind it,
    so that generations of one network start from different weights."""

    data: View | None = None
    """The view of this teacher and of all behind it, such as more pixels or more channels (cross-modal
    distillation, Gupta et al. 2016). Left out: the student's view."""
    outputs: Literal["logits", "probabilities"] = "logits"
    """Output of a black box, or of a network with given weights."""
    classes: tuple[str | int, ...] | None = None
    """Names of the data's classes in the order of its outputs, where it differs from the data's."""
    signature: str | None = None
    """Which signature of a savedmodel is the network. Left out: serving_default, or the only one."""
    mean: tuple[float, ...] | None = None
    """Mean that a black box subtracted from pixels between 0 and 1 in its training, a number a channel or one for all, with
    `std`. Left out: the same as the student."""
    std: tuple[PositiveFloat, ...] | None = None
    """What they were then divided by."""
    ensemble: tuple[Teacher, ...] | None = None
    """Several teachers instead of one, each with a `model` and all keys of a teacher."""
    combine: Literal["probabilities", "logits", "confidence"] = "probabilities"
    """How the logits of an ensemble become one teacher's. probabilities: the mean of their probabilities. logits: the mean
    of their logits. confidence: the mean of their probabilities, for each image weighted by how sure each is of the label
    (CA-MKD, Zhang et al. 2022)."""
    temperature: PositiveFloat = 1.0
    """Temperature of the probabilities that `combine` averages, such as that of the kd loss."""
    name: Annotated[str, Field(pattern=r"^[A-Za-z]\w*$")] | None = None
    """Name of a teacher of an ensemble, for losses and reports. Left out: its model's."""

    @model_validator(mode="after")
    def _someone(self) -> Teacher:
        if self.model is None and self.ensemble is None:
            raise mistake("model is missing", "add model: torchvision:resnet18, or ensemble: [{model: …}, {model: …}]")
        return self

    @property
    def black_box(self) -> tuple[str, str] | None:
        """Kind and file of a teacher of which only the outputs are known."""
        kind, _, file = (self.model or "").partition(":")
        return (kind, file) if kind in black_boxes() else None

    @property
    def budget(self) -> TeacherTrain | Distill | None:
        """The budget it is trained with in this run, if it is."""
        return self.train or self.distill

    def lineage(self, name: str = "teacher") -> tuple[tuple[str, Teacher], ...]:
        """This teacher and all behind it, each after who teaches it, and the names of their stages."""
        behind = self.teacher.lineage(f"{name}.teacher") if self.teacher else ()
        for own, member in self.members().items():
            behind = (*behind, *member.lineage(f"{name}.{own}"))
        return (*behind, (name, self))

    def seen(self, data: Data) -> Data:
        """The data section of this teacher where its student's is ``data``."""
        return self.data.of(data) if self.data else data

    def views(self, data: Data, name: str = "teacher") -> dict[str, Data]:
        """The data section of this teacher and of all behind it, by the names of their stages."""
        own = self.seen(data)
        found = {name: own} | (self.teacher.views(own, f"{name}.teacher") if self.teacher else {})
        for member, section in self.members().items():
            found |= section.views(own, f"{name}.{member}")
        return found

    def members(self) -> dict[str, Teacher]:
        """The teachers of an ensemble by their names; the second of a model is called such as resnet18_2."""
        return by_name(self.ensemble or ())

    def stages(self, name: str = "teacher") -> tuple[str, ...]:
        """The stages that make this teacher: its own, or one for each of an ensemble."""
        return tuple(f"{name}.{own}" for own in self.members()) or (name,)
