"""The typed schema of a recipe: what may be written, what it means, what is impossible.

Everything is frozen and closed: a key that is not here is a mistake. The attribute docstrings below are the
documentation an editor shows (``edgekd schema`` writes them into recipes/schema.json), so they are written once, here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    SerializeAsAny,
    ValidationInfo,
    model_validator,
)
from pydantic_core import PydanticCustomError

from edgekd.errors import UsageError, did_you_mean
from edgekd.registry import exporters, losses

SCHEMA_VERSION = 1

DATA_SOURCES = (
    "fashion-mnist-mini", "fashion-mnist", "random", "torchvision:NAME", "imagefolder:DIR", "images:DIR", "npz:FILE",
)  # fmt: skip
UNLABELLED = ("random", "images")
MODEL_SOURCES = ("torchvision:NAME", "timm:NAME", "edgekd:NAME", "FILE.py:CALLABLE")


class Strict(BaseModel):
    """A frozen part of a recipe that knows all its keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)


def mistake(message: str, hint: str, key: str = "") -> PydanticCustomError:
    """Return an error for a validator to raise: what is wrong, what to write instead, and at which key of a mapping."""
    return PydanticCustomError("mistake", "{message}", {"message": message, "hint": hint, "key": key})


def _data_source(value: str) -> str:
    prefix, _, rest = value.partition(":")
    if value in DATA_SOURCES[:3] or (prefix in {"torchvision", "imagefolder", "images", "npz"} and rest):
        return value
    hint = did_you_mean(value, DATA_SOURCES[:3])
    if not hint.startswith("did you mean"):
        hint = f"allowed: {', '.join(DATA_SOURCES)}"
    raise mistake(f"{value!r} is not a data source", hint)


def _model_source(value: str) -> str:
    if re.fullmatch(r"(torchvision|timm|edgekd):[\w.\-]+", value) or re.fullmatch(r".+\.py:[A-Za-z_]\w*", value):
        return value
    if re.fullmatch(r"\w+", value):
        raise mistake(f"{value!r} does not say where the model is from", f"write torchvision:{value} or timm:{value}")
    if value.endswith(".py"):
        raise mistake(f"{value!r} does not say which function builds the model", f"write {value}:FUNCTION")
    raise mistake(f"{value!r} is not a model", f"allowed: {', '.join(MODEL_SOURCES)}")


DataSource = Annotated[str, BeforeValidator(lambda v: _data_source(v) if isinstance(v, str) else v)]
ModelSource = Annotated[str, BeforeValidator(lambda v: _model_source(v) if isinstance(v, str) else v)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
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
    """adamw, or sgd with Nesterov momentum 0.9."""
    lr: PositiveFloat = 0.002
    """Peak learning rate of the cosine schedule."""
    weight_decay: NonNegativeFloat = 0.01
    """Weight decay; not applied to biases and normalization."""
    warmup_epochs: NonNegativeFloat = 0.5
    """Epochs of linear warm-up before the cosine."""
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


class Teacher(Strict):
    """The big model: give `weights` or `train`."""

    model: Annotated[ModelSource, Field(examples=["torchvision:resnet18"])]
    """torchvision:NAME, timm:NAME, edgekd:NAME, or FILE.py:CALLABLE beside the recipe."""
    args: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of the model's builder; num_classes is set from the data."""
    weights: str | None = None
    """A .safetensors or weights-only .pt/.pth checkpoint, or edgekd:NAME for one that ships with edgekd."""
    train: TeacherTrain | None = None
    """Train the teacher in this run instead."""


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


Reads = Literal["logits", "stages", "last_stage", "preactivations", "embedding", "own_stages", "last_map"]
"""What a loss compares: logits; the output of each stage, or of the last one; the same in front of the activation; what
the classifier reads; the student's own stages with its last one; or what the last pooling reads."""


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

    def adapter(self, pairs: Any, facts: Any) -> Any:
        """Return what is trained for this loss beside the student; nothing, but for losses that say otherwise."""
        return None

    def student(self, student: Any, teacher: Any, example: Any) -> Any:
        """Return the network that is trained and shipped: the student, but for losses that say otherwise."""
        return student


class FeatureLoss(Loss):
    """A loss on features of paired layers."""

    reads: ClassVar[Reads] = "stages"

    layers: Literal["auto"] | dict[str, str] = "auto"
    """auto chooses by tracing both networks (``edgekd plan`` prints the pairs); or module paths, student: teacher, such as
    {features.6: layer3}."""


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


class Distill(Train):
    """How the student is trained."""

    losses: Annotated[tuple[AnyLoss, ...], Field(min_length=1, examples=[[{"kind": "kd"}]])]
    """Terms of the training loss, summed with their weights."""


WeightBits = Literal["auto", 7, 8]


def _keep_float(value: Any) -> Any:
    if isinstance(value, str) and value != "auto":
        raise mistake(f"{value!r} is not a list of layers", f"write auto, or a list such as [{value}]")
    return tuple(value) if isinstance(value, list) else value


class Int8(Strict):
    """What both methods of int8 quantization share."""

    method: Literal["qat", "ptq"]
    """qat: quantization-aware training. ptq: post-training quantization."""
    weight_bits: WeightBits = "auto"
    """Bits of an int8 weight that are used. auto: 7 where a target's kernels add pairs of products in 16 bits (x86 with
    AVX2 and without VNNI), which saturate with 8; else 8."""
    keep_float: Annotated[Literal["auto"] | tuple[str, ...], BeforeValidator(_keep_float)] = ()
    """Layers that stay in float: paths of modules of the student, with all that is inside, such as [features.0]. auto: the
    fewest that meet gates.accuracy_drop on the validation split, and what they cost."""

    def named_float(self) -> tuple[str, ...]:
        """Return the layers that are named to stay in float; none with auto."""
        return () if self.keep_float == "auto" else self.keep_float


class Qat(Int8):
    """int8 quantization-aware training; the distillation losses stay on."""

    method: Literal["qat"] = "qat"
    """qat: quantization-aware training from the distilled student. ptq: post-training quantization, without training."""
    epochs: PositiveInt = 2
    """Passes over the training images with fake quantization on."""
    lr: PositiveFloat = 0.0002
    """Peak learning rate; about a tenth of the float one."""
    freeze_last: Fraction = 0.34
    """Share of the steps, at the end, that train with frozen ranges."""
    learn_scales: bool = False
    """Move the scales by gradient (LSQ) from calibrated ranges, in the place of following the values seen."""
    self_distill: bool = False
    """The float student is the teacher of the int8 one, by the kd loss on logits, in the place of distill.losses; needs no
    labels and no teacher."""


class AdaRound(Strict):
    """Learned rounding of the weights, one layer after the other (Nagel et al. 2020)."""

    steps: PositiveInt = 1000
    """Optimizer steps for each layer."""
    lr: PositiveFloat = 0.01
    """Learning rate of Adam."""
    batch_size: PositiveInt = 32
    """Calibration images in a step."""
    regularization: NonNegativeFloat = 0.01
    """Factor of the term that drives every weight to one of its two grid points (λ)."""


def _adaround(value: Any) -> Any:
    return {} if value is True else value


class Ptq(Int8):
    """int8 post-training quantization: ranges from calibration images, no training."""

    method: Literal["ptq"]
    """ptq: post-training quantization of the distilled student, without training. qat: quantization-aware training."""
    observer: Literal["minmax", "percentile", "mse", "entropy"] = "minmax"
    """How an activation's range follows from the values seen: minmax (all of them), percentile (nearly all), mse (least
    squared error of rounding and clipping), entropy (least KL divergence, as TensorRT)."""
    percentile: Annotated[float, Field(gt=50, le=100)] = 99.99
    """Share of the values, in %, that observer: percentile keeps within the range; the rest is cut off in equal parts."""
    calibration_images: PositiveInt = 512
    """Training images, drawn once and not augmented, that ranges and corrections are measured on."""
    equalize: bool = False
    """Balance the weight ranges of neighbouring layers first (cross-layer equalization, Nagel et al. 2019)."""
    bias_correction: bool = True
    """Correct each layer's bias by the mean shift of its output (Nagel et al. 2019)."""
    adaround: Annotated[AdaRound | bool, BeforeValidator(_adaround)] = False
    """Learn the rounding of each weight: true, or a mapping with its options."""


METHODS: dict[str, type[Qat] | type[Ptq]] = {"qat": Qat, "ptq": Ptq}


def _quantize(value: Any, info: ValidationInfo) -> Any:
    if isinstance(value, Qat | Ptq):
        return value
    method = value.get("method", "qat") if isinstance(value, dict) else "qat"
    if isinstance(method, str) and method not in METHODS:
        raise mistake(f"unknown method {method!r}", f"allowed: {', '.join(METHODS)}", "method")
    schema = METHODS[method] if isinstance(method, str) else Qat
    if info.mode == "json":
        # As strict as the rest of a recipe file; the mode is not handed down by itself.
        return schema.model_validate_json(json.dumps(value), strict=True)
    return schema.model_validate(value)


Quantize = Annotated[Qat | Ptq, BeforeValidator(_quantize)]


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


class Gate(Strict):
    """A limit that decides the exit code."""

    max: float | None = None
    """Largest value that passes."""
    min: float | None = None
    """Smallest value that passes."""
    device: str = "host"
    """Device whose figure is meant (latency and memory)."""

    @model_validator(mode="after")
    def _one_limit(self) -> Gate:
        if (self.max is None) == (self.min is None):
            what = "neither max nor min is given" if self.max is None else "max and min are both given"
            raise mistake(what, "a gate has one limit: {max: NUMBER} or {min: NUMBER}")
        return self


class Gates(Strict):
    """Limits on the result. A gate with no measurement fails; parity is always gated."""

    accuracy_drop: Gate | None = None
    """Top-1 of the distilled float student minus that of each int8 artifact, on the test split (0.01 is one point)."""
    top1: Gate | None = None
    """Top-1 of each int8 artifact on the test split, from 0 to 1."""
    parity_top1: Gate = Gate(min=0.995)
    """Share of test images on which an artifact's top-1 is the torch int8 model's."""
    parity_lsb_p99: Gate = Gate(max=2.0)
    """99th percentile of the error against the torch int8 model, in steps (LSB) of the output's scale."""
    size_ratio: Gate | None = None
    """Bytes of each int8 artifact divided by those of the float32 ONNX file."""
    latency_p50_ms: Gate | None = None
    """Median latency in milliseconds of each int8 artifact."""
    latency_p90_ms: Gate | None = None
    """90th percentile of the latency in milliseconds of each int8 artifact."""
    peak_memory_mib: Gate | None = None
    """Peak memory of the process in MiB (VmHWM) of each int8 artifact."""

    def limits(self) -> Iterator[tuple[str, Gate]]:
        """Yield the gates that are set, by name."""
        for name in type(self).model_fields:
            gate = getattr(self, name)
            if gate is not None:
                yield name, gate


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
