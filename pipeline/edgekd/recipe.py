"""The typed schema of a recipe: what may be written, what it means, what is impossible.

Everything is frozen and closed: a key that is not here is a mistake. The attribute docstrings are the documentation an
editor shows (``edgekd schema`` writes them into recipes/schema.json), so they are written once, here and in
:mod:`edgekd.recipe_quantize`.
"""

from __future__ import annotations

import json
import re
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

from edgekd.errors import UsageError, did_you_mean
from edgekd.recipe_base import Fraction, Strict, mistake
from edgekd.recipe_gates import Gates
from edgekd.recipe_quantize import Quantize
from edgekd.registry import exporters, losses

SCHEMA_VERSION = 1

DATA_SOURCES = (
    "fashion-mnist-mini", "fashion-mnist", "random", "torchvision:NAME", "imagefolder:DIR", "images:DIR", "npz:FILE",
)  # fmt: skip
UNLABELLED = ("random", "images")
BLACK_BOXES = ("onnx", "tflite", "openvino", "outputs")
MODEL_SOURCES = ("torchvision:NAME", "timm:NAME", "edgekd:NAME", "FILE.py:CALLABLE")


def _data_source(value: str) -> str:
    prefix, _, rest = value.partition(":")
    if value in DATA_SOURCES[:3] or (prefix in {"torchvision", "imagefolder", "images", "npz"} and rest):
        return value
    hint = did_you_mean(value, DATA_SOURCES[:3])
    if not hint.startswith("did you mean"):
        hint = f"allowed: {', '.join(DATA_SOURCES)}"
    raise mistake(f"{value!r} is not a data source", hint)


def _model_source(value: str, allowed: tuple[str, ...] = MODEL_SOURCES) -> str:
    if re.fullmatch(r"(torchvision|timm|edgekd):[\w.\-]+", value) or re.fullmatch(r".+\.py:[A-Za-z_]\w*", value):
        return value
    if re.fullmatch(r"\w+", value):
        raise mistake(f"{value!r} does not say where the model is from", f"write torchvision:{value} or timm:{value}")
    if value.endswith(".py"):
        raise mistake(f"{value!r} does not say which function builds the model", f"write {value}:FUNCTION")
    raise mistake(f"{value!r} is not a model", f"allowed: {', '.join(allowed)}")


DataSource = Annotated[str, BeforeValidator(lambda v: _data_source(v) if isinstance(v, str) else v)]


def _teacher_source(value: str) -> str:
    kind, _, file = value.partition(":")
    if kind not in BLACK_BOXES:
        return _model_source(value, (*MODEL_SOURCES, *(f"{name}:FILE" for name in BLACK_BOXES)))
    if not file:
        raise mistake(f"{value!r} does not say which file", f"write {kind}:FILE")
    return value


ModelSource = Annotated[str, BeforeValidator(lambda v: _model_source(v) if isinstance(v, str) else v)]
TeacherSource = Annotated[str, BeforeValidator(lambda v: _teacher_source(v) if isinstance(v, str) else v)]
Augmentation = Literal["crop", "flip", "rotate", "color", "erase", "trivial"]


class Data(Strict):
    """Images and labels. The validation split is carved from train; the test split is touched once a run."""

    source: Annotated[DataSource, Field(examples=["fashion-mnist-mini"])]
    """fashion-mnist-mini (ships with edgekd), fashion-mnist (Debian package dataset-fashion-mnist), torchvision:NAME
    (such as torchvision:CIFAR100), imagefolder:DIR (train/CLASS/*.png and test/CLASS/*.png, or CLASS/*.png alone), npz:FILE
    (x_train, y_train, x_test, y_test); without labels images:DIR (any images), random (noise, to compare files with)."""
    image_size: Annotated[int, Field(ge=8, le=1024)] = 32
    """Height and width in pixels that every image is resized to."""
    channels: Literal[1, 3] = 3
    """Channels the models see; grey images are repeated to 3."""
    classes: Annotated[int, Field(ge=2)] | None = None
    """Number of classes, where the images have no labels that tell it."""
    mean: tuple[Annotated[float, Field(ge=0.0, le=1.0)], ...] | None = None
    """Subtracted from pixels between 0 and 1, a number a channel or one for all; with `std`, what the given weights were
    trained with. Left out: the mean of the training images (0 for random ones)."""
    std: tuple[PositiveFloat, ...] | None = None
    """Then divided by. Left out: the standard deviation of the training images (1 for random ones)."""
    augment: tuple[Augmentation, ...] = ()
    """Random transforms of the training images: crop (pad 1/8 and crop), flip (left-right), rotate (±10°), color
    (jitter), erase (random erasing), trivial (TrivialAugmentWide)."""
    val_fraction: Annotated[float, Field(gt=0.0, lt=0.9)] = 0.1
    """Share of the training images kept for validation, the same number from each class."""
    root: str | None = None
    """Folder where torchvision keeps its downloads; the user's cache folder when left out."""
    download: bool = True
    """Whether a torchvision data set that is not in `root` may be downloaded."""


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


Activation = Literal["relu", "relu6"]


class Rewrite(Strict):
    """Changes of the student made before distillation so that the teacher pays for them."""

    hardswish: Activation | None = None
    """Replaces every hard-swish: XNNPACK has none in int8 and cuts the graph at each."""
    silu: Activation | None = None
    """Replaces every SiLU (swish)."""
    gelu: Activation | None = None
    """Replaces every GELU."""
    gate: Literal["keep", "sigmoid", "hardsigmoid"] = "keep"
    """sigmoid: replaces every hard-sigmoid, which int8 takes apart, by sigmoid, which is one operator. hardsigmoid: the
    reverse."""
    se: Literal["keep", "drop"] = "keep"
    """drop: takes every squeeze-excite block out, with its weights."""
    round_channels: Literal[8, 16, 32] | None = None
    """Rounds widths up to a multiple; the new channels start without any effect, so that loaded weights stay good."""

    def activations(self) -> dict[str, str]:
        """Return what becomes of each kind of activation that is replaced, such as ``{"hardswish": "relu6"}``."""
        targets: dict[str, str | None] = {"hardswish": self.hardswish, "silu": self.silu, "gelu": self.gelu}
        if self.gate != "keep":
            targets["sigmoid" if self.gate == "hardsigmoid" else "hardsigmoid"] = self.gate
        return {kind: target for kind, target in targets.items() if target is not None}


class Student(Strict):
    """The small model that is shipped."""

    model: Annotated[ModelSource, Field(examples=["torchvision:mobilenet_v2"])]
    """torchvision:NAME, timm:NAME, edgekd:NAME, or FILE.py:CALLABLE beside the recipe."""
    args: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of the model's builder; num_classes is set from the data."""
    weights: str | None = None
    """Checkpoint to start from; a head of another size is left out and said aloud. Without a distill section it is the
    trained student, as it is."""
    rewrite: Rewrite = Rewrite()
    """Activations and blocks to replace before distillation, for int8's sake."""


Reads = Literal["logits", "stages", "last_stage", "preactivations", "embedding", "attention", "own_stages", "last_map"]
"""What a loss compares: logits; the output of each stage, or of the last one; the same in front of the activation; what
the classifier reads; queries, keys and values of each self-attention; the student's own stages with its last one; or what
the last pooling reads."""

Depth = Literal["early", "middle", "late"]
"""A quarter, a half, and the whole of a network's depth."""


class Loss(Strict):
    """What all distillation losses share; each loss adds its own options (``edgekd list losses``)."""

    needs_teacher: ClassVar[bool] = True
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
        return self.weight > 0 and self.end_epoch is None and self.reads != "preactivations"

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


def _teacher_cache(value: Any) -> Any:
    return {} if value is True else value


class Distill(Train):
    """How the student is trained."""

    losses: Annotated[tuple[AnyLoss, ...], Field(min_length=1, examples=[[{"kind": "kd"}]])]
    """Terms of the training loss, summed with their weights."""
    teacher_cache: Annotated[TeacherCache | bool, BeforeValidator(_teacher_cache)] = False
    """Keep the teacher's outputs on disk and read them when the same view of an image comes again: true, or a mapping with
    its options."""


class Teacher(Strict):
    """Who teaches: one network, with `weights`, `train` or `distill`, or several, in an `ensemble`."""

    model: Annotated[TeacherSource, Field(examples=["torchvision:resnet18"])] | None = None
    """torchvision:NAME, timm:NAME, edgekd:NAME, or FILE.py:CALLABLE beside the recipe. Or a black box, of which only the
    outputs are known: onnx:FILE, tflite:FILE, openvino:FILE.xml, or outputs:FILE.npz with stored ones (`train`, a row for
    each training image of the data, and `test`)."""
    args: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of the model's builder; num_classes is set from the data."""
    weights: str | None = None
    """A .safetensors or weights-only .pt/.pth checkpoint, or edgekd:NAME for one that ships with edgekd."""
    train: TeacherTrain | None = None
    """Train the teacher in this run instead."""
    distill: Distill | None = None
    """Train it in this run as the student of its own `teacher`: an assistant between a large teacher and a small student
    (Mirzadeh et al. 2020), or, with the same model, a born-again generation (Furlanello et al. 2018)."""
    teacher: Teacher | None = None
    """Who teaches this teacher, with `distill`; in turn it may have a teacher, and so on."""
    seed: NonNegativeInt | None = None
    """Seed of its first weights and of its order of images. Left out: the recipe's, plus the number of teachers behind it,
    so that generations of one network do not start alike."""

    outputs: Literal["logits", "probabilities"] = "logits"
    """What a black box gives."""
    mean: tuple[float, ...] | None = None
    """What a black box had subtracted from pixels between 0 and 1 in its training, a number a channel or one for all, with
    `std`. Left out: the same as the student."""
    std: tuple[PositiveFloat, ...] | None = None
    """What they were then divided by."""
    ensemble: tuple[Teacher, ...] | None = None
    """Several teachers in the place of one, each with a `model` and all that a teacher has."""
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
        return (kind, file) if kind in BLACK_BOXES else None

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

    def members(self) -> dict[str, Teacher]:
        """The teachers of an ensemble by their names; the second of a model is called such as resnet18_2."""
        found: dict[str, Teacher] = {}
        for member in self.ensemble or ():
            name = member.name or re.sub(r"\W", "_", (member.model or "teacher").rpartition(":")[2])
            number = next(n for n in range(1, len(found) + 2) if (f"{name}_{n}" if n > 1 else name) not in found)
            found[f"{name}_{number}" if number > 1 else name] = member
        return found

    def stages(self, name: str = "teacher") -> tuple[str, ...]:
        """The stages that make this teacher: its own, or one for each of an ensemble."""
        return tuple(f"{name}.{own}" for own in self.members()) or (name,)


Precision = Literal["int8", "float32", "float16", "dynamic", "int8-weights", "int4-weights", "int16x8"]


class Export(Strict):
    """One artifact."""

    format: Annotated[str, Field(examples=["onnx"])]
    """onnx, tflite or openvino."""
    precision: Precision | None = None
    """int8 (default with quantize), float32 (default without), or of the float student, without a quantize section: float16,
    int8-weights, int4-weights (weights stored in fewer bits, computed in float), dynamic (int8 weights, activations
    quantized as they come), int16x8 (16-bit activations, 8-bit weights). docs/formats.md says which format has which."""
    io: Literal["float32", "int8"] = "float32"
    """Type of the input and the output; int8 only in tflite."""


def _export(value: Any) -> Any:
    if isinstance(value, str):
        value = {"format": value}
    if isinstance(value, dict) and isinstance(value.get("format"), str) and value["format"] not in exporters.names():
        hint = did_you_mean(value["format"], exporters.names())
        raise mistake(f"unknown format {value['format']!r}", hint, "format")
    return value


AnyExport = Annotated[Export, BeforeValidator(_export)]


class Profile(Strict):
    """The measuring protocol. Figures are never re-used from an earlier run."""

    devices: Annotated[tuple[str, ...], Field(min_length=1)] = ("host",)
    """Names of files in devices/."""
    threads: PositiveInt = 1
    """Threads each runtime may use."""
    warmup_runs: PositiveInt = 20
    """Inferences before measuring; at least warmup_ms as well."""
    warmup_ms: NonNegativeInt = 300
    """Milliseconds of warm-up at the least."""
    blocks: Annotated[int, Field(ge=3)] = 7
    """Blocks per variant; the variants take turns, so that heat and load favour none."""
    block_ms: PositiveInt = 150
    """Milliseconds a block takes at the least."""
    block_runs: PositiveInt = 30
    """Inferences in a block at the least."""


class Recipe(Strict):
    """One recipe: data → teacher → student → int8 artifacts → figures → report."""

    edgekd: Annotated[Literal[1], Field(examples=[1])]
    """Version of this schema."""
    seed: NonNegativeInt = 0
    """Seed of everything random."""
    data: Annotated[Data, Field(examples=[{"source": "fashion-mnist-mini"}])]
    teacher: Teacher | None = None
    """Left out: the student is trained with hard labels alone."""
    student: Student | None = None
    """Left out: only the teacher is trained (a recipe that makes a checkpoint)."""
    distill: Distill | None = None
    """Left out: the student is trained already, and `student.weights` are its weights."""
    baselines: tuple[Literal["student_alone"], ...] = ("student_alone",)
    """Trained beside the distilled student for comparison: student_alone, the same budget without a teacher."""
    quantize: Quantize | None = None
    """Left out: float artifacts only."""
    export: tuple[AnyExport, ...] = ()
    profile: Profile | None = None
    gates: Gates = Gates()
