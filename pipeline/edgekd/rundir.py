"""The run folder and ``run.json``: what a run found, as frozen dataclasses.

``run.json`` is what tools and tests read; the report is made from it alone. A figure that was not measured is ``None``
here, absent in the file, and named in ``not_measured``; it is never 0.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from edgekd.errors import UsageError, cause_of
from edgekd.records_errors import CopiedErrors
from edgekd.records_fidelity import Fidelity
from edgekd.records_gates import GateRecord, Verdict
from edgekd.records_json import from_json, to_json
from edgekd.records_profile import Comparison, DeviceRecord, Failure, ProfileRecord
from edgekd.records_runtime import DefaultPrecision, FloatWeights, RuntimeGraph
from edgekd.records_tune import TuningRecord

SCHEMA = 1
_GIVE = "give a run folder, such as reports/mobilenet/latest"

Measure = Literal["accuracy", "agreement"]


@dataclass(frozen=True)
class StageRecord:
    """One stage of the run; ``seconds`` is what the work took when it was done, ``reason`` why it failed."""

    name: str
    status: Literal["ran", "cached", "failed"]
    key: str
    seconds: float
    reason: str = ""


@dataclass(frozen=True)
class Metrics:
    """Quality on one split: ``top1`` and ``top5`` from 0 to 1, ``loss`` the cross-entropy, over ``n`` images.

    ``measure`` says of what: accuracy against labels, or agreement with the teacher's classes where ``top1`` is that.
    """

    split: Literal["val", "test"]
    n: int
    top1: float
    top5: float | None = None
    loss: float | None = None
    measure: Measure = "accuracy"


@dataclass(frozen=True)
class Parity:
    """How far an artifact, run by its own runtime, is from its reference over ``n`` labelled test images.

    ``reference`` is the torch int8 model; for other files the torch float model, with the weights that the file has. Errors
    are of the output; ``*_lsb`` in whole steps of the output's scale. ``ties`` images of those that have another top-1 are
    ties of the reference (its two best within two steps). ``error`` is the root mean square of the error over the deviation
    of the reference's logits.
    """

    reference: str
    n: int
    top1_agreement: float
    max_abs_error: float
    mean_lsb: float | None = None
    p99_lsb: float | None = None
    max_lsb: float | None = None
    ties: int = 0
    error: float | None = None


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of an artifact; scale and zero point where it is quantized."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    layout: str = ""
    scale: float | None = None
    zero_point: int | None = None


@dataclass(frozen=True)
class ModelRecord:
    """A network or a file: the teacher, the student in its states, and every artifact.

    Attributes:
        name: Unique in the run, such as ``teacher``, ``student_alone``, ``kd``, ``tuned_kd``, ``peer.NAME``, ``distilled``,
            ``qat`` or ``ptq``, ``onnx``.
        role: ``teacher``, ``baseline``, ``peer``, ``student`` or ``artifact``.
        format: ``torch``, ``onnx``, ``tflite`` or ``openvino``.
        path: Main file, relative to the run folder; ``None`` where none was delivered.
        sha256: Hash of that file.
        bin_sha256: Hash of the .bin beside it, which has the weights of an OpenVINO model.
        place: Where the file lay when it was measured, as an absolute path; only of ``edgekd profile``.
        bytes: Size of all files of the artifact.
        params: Number of parameters.
        macs: Multiply-accumulates for one image.
        precision: ``float32``, ``int8 (8-bit weights)``, or another that a recipe's export can have, such as ``float16``.
        fidelity: How close it is to the float model; of the network in int8, and of files that are not float32.
        float_ops: Operations left in float, each with the reason.
        float_tensors: Float tensors inside a TFLite file other than input and output.
        runtime_graph: What the runtime makes of an int8 file when it loads it, and what of that it runs in float.
        default_precision: Parity of an OpenVINO file that is loaded without a precision hint, where that is another one.
    """

    name: str
    role: Literal["teacher", "baseline", "peer", "student", "artifact"]
    format: str
    precision: str
    source: str = ""
    path: str | None = None
    sha256: str | None = None
    bytes: int | None = None
    params: int | None = None
    macs: int | None = None
    metrics: tuple[Metrics, ...] = ()
    parity: Parity | None = None
    fidelity: Fidelity | None = None
    float_ops: tuple[str, ...] = ()
    float_tensors: tuple[str, ...] | None = None
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    runtime_graph: RuntimeGraph | None = None
    default_precision: DefaultPrecision | None = None
    bin_sha256: str | None = None
    place: str | None = None

    @property
    def content(self) -> tuple[str, ...]:
        """Hashes of all its files; empty where one is not known."""
        hashes = (self.sha256, self.bin_sha256) if self.format == "openvino" else (self.sha256,)
        return tuple(value for value in hashes if value) if all(hashes) else ()

    def top1(self, split: Literal["val", "test"] = "test") -> float | None:
        """Top-1 on a split, accuracy rather than agreement, or ``None`` if it was not measured."""
        found = sorted((m for m in self.metrics if m.split == split), key=lambda m: m.measure)
        return found[0].top1 if found else None

    def metric(self, measure: Measure, split: Literal["val", "test"] = "test") -> Metrics | None:
        """What was measured on a split, or ``None`` if it was not."""
        return next((m for m in self.metrics if m.split == split and m.measure == measure), None)


@dataclass(frozen=True)
class Curve:
    """Training of one network, a value an epoch.

    Attributes:
        model: ``teacher``, ``student_alone``, ``kd``, ``tuned_kd``, ``peer.NAME``, ``distilled`` or ``qat``.
        terms: Mean of every (weighted) loss term over the epoch, by its name.
        train_top1: Top-1 over the (augmented) training images.
        val_top1: Top-1 on the validation split.
        lr: Learning rate at the epoch's end.
        best_epoch: Index of the kept epoch (best by validation).
        seconds: Wall time of the training.
        pairs: Layers paired for feature losses, in words.
        measure: What ``val_top1`` is: accuracy, or agreement with the teacher. Without labels ``train_top1`` is empty.
    """

    model: str
    terms: Mapping[str, tuple[float, ...]]
    train_top1: tuple[float, ...]
    val_top1: tuple[float, ...]
    lr: tuple[float, ...]
    best_epoch: int
    seconds: float
    pairs: tuple[str, ...] = ()
    measure: Measure = "accuracy"


@dataclass(frozen=True)
class SeedRecord:
    """One student of one seed: top-1 of the weights that were kept (the best epoch by validation) and of the last epoch.

    ``model`` is ``student_alone``, ``kd``, ``tuned_kd`` or ``distilled``. Figures on the test split are None where nothing
    is known of its images: neither labels nor what the teacher says.
    """

    model: str
    seed: int
    val_kept: float
    val_last: float
    test_kept: float | None = None
    test_last: float | None = None


EXACT_DB = 120.0
"""Where float32 ends: a ratio of signal to noise that is not told from exactness any more is given as this."""


@dataclass(frozen=True)
class Difference:
    """What a runtime makes of a layer that torch makes otherwise, from the same input.

    Attributes:
        share: Of the values that differ, 0 to 1.
        steps: The greatest difference, in steps of the layer's int8 scale.
    """

    share: float
    steps: float


@dataclass(frozen=True)
class LayerRecord:
    """What int8 does to one layer: signal to quantization noise (SQNR) in dB, more is better.

    Attributes:
        name: Node of the graph.
        path: Module of the student; ``input`` for the image.
        op: Operator.
        alone_db: At its output, with this layer alone in int8.
        logits_db: At the logits, with this layer alone in int8.
        total_db: At its output, with the whole graph in int8, as torch computes it.
        cause: What makes most of its noise at the logits.
        runtimes: ``total_db`` as each int8 artifact's own runtime computes it, by the artifact's name.
        differences: Where the runtime differs from torch in this layer alone, by the artifact's name.
    """

    name: str
    path: str
    op: str
    alone_db: float
    logits_db: float
    total_db: float
    cause: Literal["weight", "output"]
    runtimes: Mapping[str, float] = field(default_factory=dict)
    differences: Mapping[str, Difference] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """The module; for what no module makes the operator and its name, as ``keep_float`` takes it."""
        return self.path or f"forward() {self.op} (%{self.name})"


@dataclass(frozen=True)
class RepairCost:
    """An artifact with some layers in float beside the same all in int8: bytes, and the median milliseconds on a device.

    ``*_ci`` are 95 % intervals.
    """

    model: str
    bytes: int
    bytes_int8: int
    device: str | None = None
    p50: float | None = None
    p50_ci: tuple[float, float] | None = None
    p50_int8: float | None = None
    p50_int8_ci: tuple[float, float] | None = None
    trusted: bool = True


@dataclass(frozen=True)
class RepairRecord:
    """The layers that were given back to float to meet the gates against float, on the validation split, and their cost.

    Attributes:
        limit: Top-1 that was needed; without labels, agreement with the float student.
        float_top1: Of the float student; 1 where it is agreement with it.
        before: Of the graph all in int8.
        after: With ``layers`` in float.
        measure: What top-1 is here.
        sqnr_limit: Signal to noise at the logits that was needed, in dB; None where labels decide.
        sqnr_before: Of the graph all in int8.
        sqnr_after: With ``layers`` in float.
        keep_float: What a recipe names to have the same without searching.
        layers: The layers as they were in int8, the most sensitive first.
        candidates: Number of layers in all.
        costs: Of each int8 artifact, on each device.
    """

    limit: float
    float_top1: float
    before: float
    after: float
    keep_float: tuple[str, ...]
    layers: tuple[LayerRecord, ...]
    candidates: int
    costs: tuple[RepairCost, ...] = ()
    measure: Literal["accuracy", "agreement", "agreement with float"] = "accuracy"
    sqnr_limit: float | None = None
    sqnr_before: float | None = None
    sqnr_after: float | None = None


@dataclass(frozen=True)
class Picture:
    """A small picture for the report: ``data`` is the file in base64, ``caption`` says what is on it."""

    title: str
    caption: str
    media_type: str
    data: str


@dataclass(frozen=True)
class DataRecord:
    """The data as used: ``source``, ``fingerprint`` (sha256), number of images in each split and the normalization."""

    source: str
    fingerprint: str
    classes: tuple[str, ...]
    train: int
    val: int
    test: int
    image_size: int
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    license: str = ""


@dataclass(frozen=True)
class RunResult:
    """Everything a run found.

    Attributes:
        schema: Version of this file's form.
        edgekd: Version of edgekd.
        name: Recipe name.
        run: Name of the run folder.
        command: What reproduces the run.
        verdict: The worst of the gates' verdicts, without those at level ``warn`` or ``off``; ``fail`` if something that the
            recipe asks for is missing.
        recipe: The resolved recipe.
        findings: Plain sentences the report shows near the top, such as why int8 is not faster.
        doubts: What is doubtful of the networks whose weights were given, such as another size at which one is right more
            often; each is a caution.
        snippets: Load snippet (Python text) for each artifact, by model name.
        not_measured: What a reader may look for and will not find, each with the reason.
        layers: What int8 does to each layer, the worst at the logits first.
        repair: Layers given back to float; None where none was.
        float_weights: Weights that are float32 in the int8 files; None without int8.
        tuning: The search for values of the distillation; None where there was none. ``recipe`` has the values as written.
        copied: The teacher's mistakes that the students make, too.
        pictures: What is better looked at than read, such as synthesized images.
        seeds: Every student of every seed; empty with one seed.
        comparisons: Artifacts beside another measurement.
        failures: Files that failed on a device on which others were measured.
        kind: ``run`` of a recipe, or ``profile`` of model files, which has no stages, gates and test split.
    """

    schema: int
    edgekd: str
    name: str
    run: str
    created: str
    command: str
    verdict: Verdict
    recipe: Mapping[str, Any]
    data: DataRecord
    stages: tuple[StageRecord, ...]
    models: tuple[ModelRecord, ...]
    curves: tuple[Curve, ...]
    profiles: tuple[ProfileRecord, ...]
    gates: tuple[GateRecord, ...]
    environment: Mapping[str, Any]
    findings: tuple[str, ...] = ()
    snippets: Mapping[str, str] = field(default_factory=dict)
    not_measured: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()
    layers: tuple[LayerRecord, ...] = ()
    repair: RepairRecord | None = None
    tuning: TuningRecord | None = None
    copied: tuple[CopiedErrors, ...] = ()
    pictures: tuple[Picture, ...] = ()
    seeds: tuple[SeedRecord, ...] = ()
    float_weights: FloatWeights | None = None
    comparisons: tuple[Comparison, ...] = ()
    devices: tuple[DeviceRecord, ...] = ()
    failures: tuple[Failure, ...] = ()
    kind: Literal["run", "profile"] = "run"

    def student(self) -> ModelRecord | None:
        """Return the float student: the distilled one, or the one that was given."""
        return self.model("distilled") or self.model("student")

    def model(self, name: str) -> ModelRecord | None:
        """Return the model called ``name``, or ``None``."""
        return next((model for model in self.models if model.name == name), None)


def write(result: RunResult, folder: Path) -> Path:
    """Write ``run.json`` into the run folder."""
    path = folder / "run.json"
    text = json.dumps(to_json(result), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    path.write_text(text, encoding="utf-8", errors="backslashreplace")  # \udcff, which is JSON for a byte of a file's name
    return path


def read(folder: Path) -> RunResult:
    """Read the ``run.json`` of a run folder (or the file itself).

    Raises:
        UsageError: There is none, or it has another schema.
    """
    path = folder / "run.json" if folder.is_dir() else folder
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        if value["schema"] != SCHEMA:
            raise UsageError(f"{path} has schema {value['schema']}; this edgekd reads {SCHEMA}", "run the recipe again")
        return from_json(RunResult, value)
    except FileNotFoundError:
        raise UsageError(f"{path} does not exist", _GIVE) from None
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        hint = "run the recipe again" if path.name == "run.json" else _GIVE
        raise UsageError(f"{path} is not a run.json: {damage(error)}", hint) from error


def damage(error: Exception) -> str:
    """Say in one line what is wrong with a JSON file that could not be read.

    Example:
        >>> damage(KeyError("schema"))
        "'schema' is missing"
    """
    if isinstance(error, KeyError):
        return f"{error} is missing"
    if isinstance(error, UnicodeDecodeError):
        return "it is not text"
    if isinstance(error, OSError):
        return error.strerror or cause_of(error)
    return f"it is not JSON: {error}" if isinstance(error, json.JSONDecodeError) else cause_of(error)
