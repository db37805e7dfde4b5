"""Outputs of stages: frozen dataclasses, which the codec writes beside arrays, weights and files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from edgekd.distill.advice import Softness
from edgekd.exporting.exporter import Exported
from edgekd.results.fidelity import Fidelity
from edgekd.results.findings import Finding, Missing
from edgekd.results.layers import Difference, LayerRecord, RepairRecord
from edgekd.results.mistakes import CopiedErrors
from edgekd.results.models import Metrics, Parity
from edgekd.results.profile import DeviceRecord, Failure, ProfileRecord
from edgekd.results.run import Curve, SeedRecord
from edgekd.results.runtime import DefaultPrecision, FloatOperation, FloatWeights, RuntimeGraph

ALL_INT8 = "_all_int8"
"""Ends the name of a file that stands beside an artifact to tell what a repair costs; it is measured, not shipped."""


@dataclass(frozen=True)
class Taught:
    """Facts about the choice of a teacher.

    Attributes:
        student_params: Number of parameters of the network that it teaches.
        params: Its own; None where only its outputs are known.
        val_score: The task's first metric on the validation split; None where its own classes stand in for labels.
        softness: Of each loss with a temperature.
    """

    student_params: int
    params: int | None
    val_score: float | None
    softness: tuple[Softness, ...]


@dataclass(frozen=True)
class Structure:
    """Structure of a student.

    Attributes:
        changes: Rewrites that were made, in words.
        left: Places that a rewrite left, each with the reason.
        reused: Cost of the teacher's classifier at its end; empty without one.
        activations: Number of activation functions that int8 may be slow at, by their names.
        squeezes: Number of squeeze-excite blocks.
    """

    changes: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    reused: str = ""
    activations: Mapping[str, int] = field(default_factory=dict)
    squeezes: int = 0


@dataclass(frozen=True)
class TeacherOutput:
    """A teacher: its ``curve`` where it was trained, its own teacher where it was taught, ``doubts`` where it was given."""

    curve: Curve | None = None
    taught: Taught | None = None
    doubts: tuple[Finding, ...] = ()


@dataclass(frozen=True)
class DistillOutput:
    """A trained student: its curve, those of its peers by their names, what it is made of and what its teacher is."""

    curve: Curve
    peers: Mapping[str, Curve]
    structure: Structure
    taught: Taught | None = None


@dataclass(frozen=True)
class StudentOutput:
    """A student that was given."""

    structure: Structure
    doubts: tuple[Finding, ...] = ()


@dataclass(frozen=True)
class Synthesized:
    """Images that were made: how many, from how many batch norms, and the share of which the network finds the class."""

    images: int
    norms: int
    recognized: float


@dataclass(frozen=True)
class TrialOutput:
    """One trial of a search: its curve, or why it could not be trained."""

    curve: Curve | None = None
    failure: str = ""


@dataclass(frozen=True)
class Int8Graph:
    """The int8 graph of a student, whose state lies beside.

    Attributes:
        taps: Modules whose outputs the graph returns behind the logits.
        val_score: The task's first metric on the validation split; None without labels.
        keep_float: Layers that are left in float.
        float_ops: Operations that the int8 rules leave in float.
        layers: What int8 does to each layer, the worst at the logits first.
        copies: What the quantize stage found about the form of the network, in words.
        float_weights: Weights that the files hold in float32.
        repair: Layers given back to float; None where none was.
    """

    taps: tuple[str, ...]
    val_score: float | None
    keep_float: tuple[str, ...]
    float_ops: tuple[FloatOperation, ...]
    layers: tuple[LayerRecord, ...]
    copies: tuple[str, ...]
    float_weights: FloatWeights
    repair: RepairRecord | None = None


@dataclass(frozen=True)
class QuantizeOutput:
    """The student in int8; the curve where it was trained."""

    graph: Int8Graph
    curve: Curve | None = None


@dataclass(frozen=True)
class ExportOutput:
    """A file, whose paths are names in the stage's folder, and the same file all in int8 where layers are in float."""

    file: Exported
    all_int8: Exported | None = None


@dataclass(frozen=True)
class Evaluated:
    """Figures of one network or file on the test split.

    Attributes:
        metrics: Quality, against labels or the teacher.
        params: Number of parameters, of a network whose inside is known.
        macs: Multiply-accumulates for one image, likewise.
        parity: Of a file with its reference.
        fidelity: Of what is compressed to the float model.
        runtime_graph: What the runtime makes of an int8 file.
        default_precision: Parity of an OpenVINO file without its hint.
    """

    metrics: tuple[Metrics, ...] = ()
    params: int | None = None
    macs: int | None = None
    parity: Parity | None = None
    fidelity: Fidelity | None = None
    runtime_graph: RuntimeGraph | None = None
    default_precision: DefaultPrecision | None = None


@dataclass(frozen=True)
class InsideFile:
    """Values inside a file, by layer: SQNR in dB, and the difference between runtime and torch."""

    runtimes: Mapping[str, float]
    differences: Mapping[str, Difference]


@dataclass(frozen=True)
class EvaluateOutput:
    """The test split: figures by model name, mistakes copied of the teacher, every seed's student, layers by artifact."""

    models: Mapping[str, Evaluated]
    copied: tuple[CopiedErrors, ...] = ()
    seeds: tuple[SeedRecord, ...] = ()
    inside: Mapping[str, InsideFile] = field(default_factory=dict)


@dataclass(frozen=True)
class ProfileOutput:
    """One device: figures of the artifacts, of the files for comparison, failures, and the device as it was found."""

    profiles: tuple[ProfileRecord, ...]
    all_int8: tuple[ProfileRecord, ...]
    failures: tuple[Failure, ...]
    findings: tuple[Finding, ...]
    notes: tuple[Missing, ...]
    device: DeviceRecord
