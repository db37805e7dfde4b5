"""The typed schema of a recipe: what may be written, what it means, what is impossible.

Everything is frozen and closed: a key that is not here is a mistake. The attribute docstrings are the documentation an
editor shows (``edgekd schema`` writes them into recipes/schema.json), so they are written once: here, and in
:mod:`~edgekd.recipe_data`, :mod:`~edgekd.recipe_views`, :mod:`~edgekd.recipe_distill`, :mod:`~edgekd.recipe_quantize`,
:mod:`~edgekd.recipe_tune` and
:mod:`~edgekd.recipe_gates`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from edgekd.errors import did_you_mean
from edgekd.recipe_base import Strict, mistake
from edgekd.recipe_data import Data
from edgekd.recipe_distill import Distill, TeacherTrain
from edgekd.recipe_gates import Gates
from edgekd.recipe_model import MODEL_SOURCES, ModelSource, by_name, model_source
from edgekd.recipe_quantize import Quantize
from edgekd.recipe_tune import Tune
from edgekd.recipe_views import View
from edgekd.registry import exporters
from edgekd.resources import device_stem

SCHEMA_VERSION = 1

TENSORFLOW = ("keras", "savedmodel")
BLACK_BOXES = ("onnx", "tflite", "openvino", *TENSORFLOW, "outputs")
_PLACES = {"keras": "FILE.keras", "savedmodel": "DIR"}


def _teacher_source(value: str) -> str:
    kind, _, file = value.partition(":")
    if kind not in BLACK_BOXES:
        return model_source(value, (*MODEL_SOURCES, *(f"{name}:{_PLACES.get(name, 'FILE')}" for name in BLACK_BOXES)))
    if not file:
        raise mistake(f"{value!r} does not say which file", f"write {kind}:{_PLACES.get(kind, 'FILE')}")
    if kind == "keras" and not file.endswith(".keras"):
        why = (
            "which can hold code that Keras runs when it loads it" if file.endswith((".h5", ".hdf5")) else "not a .keras one"
        )
        raise mistake(f"{file} is another file, {why}", "save it again: model.save('FILE.keras')")
    return value


TeacherSource = Annotated[str, BeforeValidator(lambda v: _teacher_source(v) if isinstance(v, str) else v)]
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
    """Checkpoint to start from, FILE#SET where it holds several sets of weights; a head of another size is left out, and
    that is said. Without a distill section it is the trained student, as it is."""
    rewrite: Rewrite = Rewrite()
    """Activations and blocks to replace before distillation, for int8's sake."""


class Teacher(Strict):
    """Who teaches: one network, with `weights`, `train` or `distill`, or several, in an `ensemble`."""

    model: Annotated[TeacherSource, Field(examples=["torchvision:resnet18"])] | None = None
    """torchvision:NAME, timm:NAME, edgekd:NAME, or FILE.py:CALLABLE beside the recipe. Or a black box, of which only the
    outputs are known: onnx:FILE, tflite:FILE, openvino:FILE.xml, keras:FILE.keras, savedmodel:DIR, or outputs:FILE.npz with
    stored ones (`train`, a row for each training image of the data, and `test`)."""
    args: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of the model's builder; num_classes is set from the data."""
    weights: str | None = None
    """A .safetensors or weights-only .pt/.pth checkpoint, FILE#SET where it holds several sets of weights (such as
    best.pt#model_ema), or edgekd:NAME for one that ships with edgekd. With train or distill the teacher starts from it; a
    head of another size is left out, and that is said."""
    train: TeacherTrain | None = None
    """Train the teacher in this run: from `weights` where they are given, else from random ones."""
    distill: Distill | None = None
    """Train it in this run as the student of its own `teacher`: an assistant between a large teacher and a small student
    (Mirzadeh et al. 2020), or, with the same model, a born-again generation (Furlanello et al. 2018)."""
    teacher: Teacher | None = None
    """Who teaches this teacher, with `distill`; in turn it may have a teacher, and so on."""
    seed: NonNegativeInt | None = None
    """Seed of its first weights and of its order of images. Left out: the recipe's, plus the number of teachers behind it,
    so that generations of one network do not start alike."""

    data: View | None = None
    """What this teacher, and all behind it, see of the samples, such as more pixels or more channels (cross-modal
    distillation, Gupta et al. 2016). Left out: what its student sees."""
    outputs: Literal["logits", "probabilities"] = "logits"
    """What a black box, or a network with given weights, returns."""
    classes: tuple[str | int, ...] | None = None
    """Names of the data's classes in the order of its outputs, where that is another one than the data's."""
    signature: str | None = None
    """Which signature of a savedmodel is the network. Left out: serving_default, or the only one."""
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
    activations: Literal["uint8", "int8"] | None = None
    """Type of the activations of an int8 ONNX file; the values are the same. Left out: int8, which Arm computes with, where
    all devices of the recipe are Arm, else uint8."""
    zero_points: Literal["biases", "activations"] | None = None
    """Where an int8 OpenVINO file has the zero points of its convolutions; the values are the same. Left out: in the biases,
    which is faster on x86, where all devices of the recipe are x86; else with the activations: OpenVINO 2026.4 on Arm
    refuses convolutions that have them in their biases."""


def _export(value: Any) -> Any:
    if isinstance(value, str):
        value = {"format": value}
    if isinstance(value, dict) and isinstance(value.get("format"), str) and value["format"] not in exporters:
        hint = did_you_mean(value["format"], exporters.names())
        raise mistake(f"unknown format {value['format']!r}", hint, "format")
    return value


AnyExport = Annotated[Export, BeforeValidator(_export)]


class Profile(Strict):
    """The measuring protocol. Figures are never re-used from an earlier run."""

    devices: Annotated[tuple[str, ...], Field(min_length=1)] = ("host",)
    """Devices to measure on: names of files in devices/ beside the recipe or in the working folder, or of devices that ship
    with edgekd, or paths of files."""
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
    sustained_minutes: NonNegativeFloat = 0
    """Minutes that each artifact runs without a pause after the blocks, to see what heat does to it; 0: none."""
    accuracy: PositiveInt | None = None
    """Test images whose classes are found on each device, for the accuracy there; left out: none."""

    @property
    def names(self) -> tuple[str, ...]:
        """What the devices are called in stages, gates and reports: the stems of their files."""
        return tuple(device_stem(device) for device in self.devices)


Baseline = Literal["student_alone", "kd", "tuned_kd"]


class Lock(Strict):
    """What a run writes into its lock of the files that it has read."""

    recipe: str
    """The recipe's own file: what your code reads is looked for from its folder."""
    sha256: dict[str, Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]] = Field(default_factory=dict)
    """SHA-256 of each file, and of the files of each data source; a replay stops where one is another."""


class Recipe(Strict):
    """One recipe: data → teacher → student → int8 artifacts → figures → report."""

    edgekd: Annotated[Literal[1], Field(examples=[1])]
    """Version of this schema."""
    seed: NonNegativeInt = 0
    """Seed of everything random."""
    seeds: PositiveInt = 1
    """Train the student and its baselines this many times, with seed, seed + 1 and so on and the same teacher, to have a
    spread. The first one is quantized, exported and profiled."""
    threads: PositiveInt | None = None
    """Threads that torch computes with, which decide the last bits of every sum. Left out: one a core, at most 4; a run
    writes into its lock how many there were."""
    data: Annotated[Data, Field(examples=[{"source": "fashion-mnist-mini"}])]
    teacher: Teacher | None = None
    """Left out: the student is trained with hard labels alone."""
    student: Student | None = None
    """Left out: only the teacher is trained (a recipe that makes a checkpoint)."""
    distill: Distill | None = None
    """Left out: the student is trained already, and `student.weights` are its weights."""
    tune: Tune | None = None
    """Search for values of `distill` first, on the validation split."""
    baselines: tuple[Baseline, ...] = ("student_alone",)
    """Trained beside the distilled student for comparison with the same budget: student_alone, without a teacher; kd, with
    the labels and Hinton's distillation alone, as the recipe has them among its losses or else with their defaults;
    tuned_kd, the same once its temperature and weight have been searched for, as `tune` says or else in a grid of twelve."""
    quantize: Quantize | None = None
    """Left out: float artifacts only."""
    export: tuple[AnyExport, ...] = ()
    profile: Profile | None = None
    reads: tuple[str, ...] = ()
    """Files, or folders with all files in them, that your own code reads and that no stage may be re-used without, such as
    one that a native library opens. What Python opens is seen without it."""
    gates: Gates = Gates()
    lock: Lock | None = None
    """Written by edgekd, in recipe.lock.yaml alone."""
