"""Records of each network and each file: quality, parity, size, precision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from edgekd.results.fidelity import Fidelity, Figure
from edgekd.results.runtime import DefaultPrecision, FloatOperation, RuntimeGraph

Of = Literal["labels", "teacher"]
"""What outputs are held against: the samples' own targets, or what the teacher says where those are not known."""
Split = Literal["val", "test"]


@dataclass(frozen=True)
class MetricFacts:
    """A metric as a reader needs it, without the code of it.

    Attributes:
        name: Its key in ``run.json`` and in gates, such as ``top1``.
        label: Its name in tables and sentences, such as ``top-1``.
        unit: ``%`` for a share, which is 0 to 1 in ``run.json``; empty for none.
        better: Which way it gets better.
    """

    name: str
    label: str
    unit: str
    better: Literal["higher", "lower"]

    def gain(self, value: float, reference: float) -> float:
        """Return by how much a value is better than another one; negative where it is worse."""
        return value - reference if self.better == "higher" else reference - value


@dataclass(frozen=True)
class TaskFacts:
    """The task of a run: its kind, the hub's word, and its metrics. The first one decides.

    Of a file that nobody describes the kind is None, and there are no metrics.
    """

    kind: str | None
    metrics: tuple[MetricFacts, ...] = ()

    @property
    def metric(self) -> MetricFacts:
        """The metric that decides about epochs, searches and gates."""
        return self.metrics[0]


@dataclass(frozen=True)
class Estimate:
    """A value with the ends of its 95 % interval over the samples; None where there is no interval."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Metrics:
    """Quality on one split.

    Attributes:
        split: Which one.
        n: Number of its samples.
        values: Of each metric of the task that could be measured, by its name.
        of: What the outputs were held against.
    """

    split: Split
    n: int
    values: Mapping[str, Estimate]
    of: Of = "labels"

    def figure(self, metric: str) -> Figure | None:
        """Return a metric with its interval and number of samples; None where it was not measured."""
        found = self.values.get(metric)
        return Figure(found.value, self.n, found.low, found.high) if found else None


@dataclass(frozen=True)
class OutputParity:
    """Error of one output of an artifact against its reference.

    Attributes:
        max_abs_error: Greatest difference of two values.
        error: Root mean square of the differences over the deviation of the reference's output; None of an output of
            integers or truth values, and in older files.
        agreement: Share of samples with the same class, 0 to 1; ties of the reference count as the same. Of an output of
            integers or truth values the share of its values that are the same. None of other outputs.
        ties: Samples that count as the same for that reason: the reference's two best are within two steps.
        mean_lsb: Mean difference in steps of the output's scale; None for a float output, like the next two.
        p99_lsb: 99th percentile of the differences, in steps.
        max_lsb: Greatest difference, in steps.
    """

    max_abs_error: float
    error: float | None = None
    agreement: float | None = None
    ties: int = 0
    mean_lsb: float | None = None
    p99_lsb: float | None = None
    max_lsb: float | None = None


@dataclass(frozen=True)
class Parity:
    """Error of an artifact, run by its own runtime, against its reference: on every output, the worst of which counts.

    Attributes:
        reference: The torch int8 model; for other files the torch float model, with the weights that the file has.
        n: Number of test samples.
        outputs: By name, in the order of the file.
    """

    reference: str
    n: int
    outputs: Mapping[str, OutputParity]

    @property
    def agreement(self) -> float | None:
        """The least agreement of an output that has classes, integers or truth values."""
        return self._worst("agreement")[1]

    @property
    def p99_lsb(self) -> float | None:
        """The greatest 99th percentile of an output that has steps."""
        return self._worst("p99_lsb")[1]

    @property
    def error(self) -> float | None:
        """The greatest error of an output that has no steps; of all where all have."""
        return self._worst("error")[1]

    @property
    def has_floats(self) -> bool:
        """True if an output of floats has no steps, so that its error decides."""
        return any(part.p99_lsb is None and part.error is not None for part in self.outputs.values())

    def worst(self, figure: Literal["agreement", "p99_lsb", "error"]) -> str | None:
        """Name the output that has the worst of a figure; None where none has it."""
        return self._worst(figure)[0]

    def _worst(self, figure: Literal["agreement", "p99_lsb", "error"]) -> tuple[str | None, float | None]:
        stepless = figure == "error" and self.has_floats
        found: dict[str, float] = {
            name: value
            for name, part in self.outputs.items()
            if (value := getattr(part, figure)) is not None and not (stepless and part.p99_lsb is not None)
        }
        if not found:
            return None, None
        name = min(found, key=lambda name: found[name] if figure == "agreement" else -found[name])
        return name, found[name]


@dataclass(frozen=True)
class FilePort:
    """One input or output of a file.

    Attributes:
        layout: ``NCHW`` or ``NHWC`` of images and maps, ``NC`` of vectors; empty for everything else.
        scale: One step, where the file takes or gives integers that stand for floats.
        zero_point: The integer that stands for 0.0, likewise.
        step: One int8 step of an output inside the file, whatever type it leaves it in; None where it is float there.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    layout: str = ""
    scale: float | None = None
    zero_point: int | None = None
    step: float | None = None


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
        beside: Hashes of the files that its runtime loads with it, in the runtime's order, such as the .bin of an OpenVINO
            model; None where they are not known.
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
        float_ops: Operations that the int8 rules leave in float.
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
    float_ops: tuple[FloatOperation, ...] = ()
    float_tensors: tuple[str, ...] | None = None
    inputs: tuple[FilePort, ...] = ()
    outputs: tuple[FilePort, ...] = ()
    runtime_graph: RuntimeGraph | None = None
    default_precision: DefaultPrecision | None = None
    beside: tuple[str, ...] | None = None
    place: str | None = None
    weight_bits: int | None = None
    io: Literal["float32", "int8"] | None = None
    twin_of: str | None = None

    @property
    def content(self) -> tuple[str, ...]:
        """Hashes of all its files; empty where one is not known."""
        return (self.sha256, *self.beside) if self.sha256 is not None and self.beside is not None else ()

    def measured(self, of: Of | None = None, split: Split = "test") -> Metrics | None:
        """Return what was measured on a split, against labels rather than a teacher; None if nothing was.

        Args:
            of: Only against these.
            split: Which one.
        """
        found = [metrics for metrics in self.metrics if metrics.split == split and of in (None, metrics.of)]
        return min(found, key=lambda metrics: metrics.of, default=None)

    def figure(self, metric: str, of: Of | None = None, split: Split = "test") -> Figure | None:
        """Return a metric on a split, as :meth:`measured` has it."""
        found = self.measured(of, split)
        return found.figure(metric) if found else None
