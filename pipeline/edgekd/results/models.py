"""Records of each network and each file: quality, parity, size, precision."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edgekd.results.fidelity import Fidelity
from edgekd.results.runtime import DefaultPrecision, RuntimeGraph

Measure = Literal["accuracy", "agreement"]


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
    """Error of an artifact, run by its own runtime, against its reference over ``n`` labelled test images.

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
        precision: ``float32``, ``int8``, or another that a recipe's export can have, such as ``float16``; None for a file or
            a network that nobody describes.
        weight_bits: Bits of the int8 weights, 7 or 8.
        io: Type of a file's inputs and outputs as the recipe asks for it, ``float32`` or ``int8``.
        twin_of: Of a float file that stands beside one in int8: the name of that.
        fidelity: How close it is to the float model; of the network in int8, and of files that are not float32.
        float_ops: Operations left in float, each with the reason.
        float_tensors: Float tensors inside a TFLite file other than input and output.
        runtime_graph: What the runtime makes of an int8 file when it loads it, and what of that it runs in float.
        default_precision: Parity of an OpenVINO file that is loaded without a precision hint, where that is another one.
    """

    name: str
    role: Literal["teacher", "baseline", "peer", "student", "artifact"]
    format: str
    precision: str | None
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
    weight_bits: int | None = None
    io: Literal["float32", "int8"] | None = None
    twin_of: str | None = None

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
        """Return the figures of a split, or ``None`` if it was not measured."""
        return next((m for m in self.metrics if m.split == split and m.measure == measure), None)
