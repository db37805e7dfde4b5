"""The run folder and ``run.json``: what a run found, as frozen dataclasses.

``run.json`` is what tools and tests read; the report is made from it alone. A figure that was not measured is ``None``
here, absent in the file, and named in ``not_measured``; it is never 0.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from edgekd import writes
from edgekd.errors import UsageError, cause_of
from edgekd.results import upgrade
from edgekd.results.codec import from_json, to_json
from edgekd.results.findings import Finding, Missing
from edgekd.results.gates import GateRecord, Verdict
from edgekd.results.layers import LayerRecord, RepairRecord
from edgekd.results.mistakes import CopiedErrors
from edgekd.results.models import ModelRecord, Of, TaskFacts
from edgekd.results.profile import Comparison, DeviceRecord, Failure, ProfileRecord
from edgekd.results.runtime import FloatWeights
from edgekd.results.speed import Int8Speed
from edgekd.results.tuning import TuningRecord

FILE = "run.json"
_GIVE = "give a run folder, such as reports/mobilenet/latest"


@dataclass(frozen=True)
class StageRecord:
    """One stage of the run; ``seconds`` is what the work took when it was done, ``reason`` why it failed."""

    name: str
    status: Literal["ran", "cached", "failed"]
    key: str
    seconds: float
    reason: str = ""


@dataclass(frozen=True)
class Curve:
    """Training of one network, a value an epoch.

    Attributes:
        model: ``teacher``, ``student_alone``, ``kd``, ``tuned_kd``, ``peer.NAME``, ``distilled`` or ``qat``.
        terms: Mean of every (weighted) loss term over the epoch, by its name.
        train: Metrics over the (augmented) training samples, by name; empty where targets are not known.
        val: Metrics on the validation split, by name.
        lr: Learning rate at the epoch's end.
        best_epoch: Index of the kept epoch (best by validation).
        seconds: Wall time of the training.
        pairs: Layers paired for feature losses, in words.
        of: What the outputs were held against on the validation split.
    """

    model: str
    terms: Mapping[str, tuple[float, ...]]
    train: Mapping[str, tuple[float, ...]]
    val: Mapping[str, tuple[float, ...]]
    lr: tuple[float, ...]
    best_epoch: int
    seconds: float
    pairs: tuple[str, ...] = ()
    of: Of = "labels"

    @property
    def epochs(self) -> int:
        """Number of epochs."""
        return len(self.lr)


def best_of(curve: Curve) -> float:
    """Return the deciding metric of the kept epoch, on the validation split."""
    (scores,) = curve.val.values()
    return scores[curve.best_epoch]


@dataclass(frozen=True)
class SeedRecord:
    """One student of one seed: the task's first metric, of the weights that were kept and of those of the last epoch.

    ``model`` is ``student_alone``, ``kd``, ``tuned_kd`` or ``distilled``. Figures on the test split are None where nothing
    is known of its images: neither labels nor what the teacher says.
    """

    model: str
    seed: int
    val_kept: float
    val_last: float
    test_kept: float | None = None
    test_last: float | None = None


@dataclass(frozen=True)
class Picture:
    """A small picture for the report: ``data`` is the file in base64, ``caption`` says what is on it."""

    title: str
    caption: str
    media_type: str
    data: str


@dataclass(frozen=True)
class DataRecord:
    """The data as used: ``source``, ``fingerprint`` (sha256), number of samples in each split and the normalization.

    Of samples that are no images ``inputs`` says what they are, and there are neither sizes nor channels: they are 0.
    """

    source: str
    fingerprint: str
    classes: tuple[str, ...]
    train: int
    val: int
    test: int
    image_size: int
    """Height of the images, and width where ``image_width`` says no other."""
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    license: str = ""
    image_width: int | None = None
    inputs: Mapping[str, tuple[int, ...]] | None = None
    """Shape of one sample, by input; None for images."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the images."""
        return self.image_size, self.image_width or self.image_size


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
        findings: Facts that the report tells near the top, such as a rewrite of the student.
        speeds: Whether int8 is faster than float, for each pair of files on each device, and why not.
        doubts: What is doubtful of the networks whose weights were given, such as another size at which one is right more
            often; each is a caution.
        snippets: Load snippet (Python text) for each artifact, by model name.
        not_measured: What a reader may look for and will not find, each with the reason.
        task: What the networks are for, and the metrics by which they are compared.
        layers: What int8 does to each layer, the worst at the logits first.
        repair: Layers given back to float; None where none was.
        float_weights: Weights that are float32 in the int8 files; None without int8.
        tuning: The search for values of the distillation; None where there was none. ``recipe`` has the values as written.
        baseline_tuning: The search of the baseline ``tuned_kd``.
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
    task: TaskFacts
    findings: tuple[Finding, ...] = ()
    speeds: tuple[Int8Speed, ...] = ()
    snippets: Mapping[str, str] = field(default_factory=dict)
    not_measured: tuple[Missing, ...] = ()
    doubts: tuple[Finding, ...] = ()
    layers: tuple[LayerRecord, ...] = ()
    repair: RepairRecord | None = None
    tuning: TuningRecord | None = None
    baseline_tuning: TuningRecord | None = None
    copied: tuple[CopiedErrors, ...] = ()
    pictures: tuple[Picture, ...] = ()
    seeds: tuple[SeedRecord, ...] = ()
    float_weights: FloatWeights | None = None
    comparisons: tuple[Comparison, ...] = ()
    devices: tuple[DeviceRecord, ...] = ()
    failures: tuple[Failure, ...] = ()
    kind: Literal["run", "profile"] = "run"

    def __repr__(self) -> str:
        """Say which run it is; all that it holds is thousands of lines."""
        return f"RunResult(name={self.name!r}, run={self.run!r}, verdict={self.verdict!r})"

    def student(self) -> ModelRecord | None:
        """Return the float student: the distilled one, or the one that was given."""
        return self.model("distilled") or self.model("student")

    def model(self, name: str) -> ModelRecord | None:
        """Return the model called ``name``, or ``None``."""
        return next((model for model in self.models if model.name == name), None)


def write_run(result: RunResult, path: Path) -> Path:
    """Write a ``run.json``."""
    text = json.dumps(to_json(result), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    writes.write_text(path, text, errors="backslashreplace")  # \udcff, which is JSON for a byte of a file's name
    return path


@contextmanager
def reported(result: RunResult, folder: Path) -> Iterator[None]:
    """Write ``run.json`` into the run folder; it has its name after the block, which writes the reports."""
    write_run(result, writes.waiting(folder / FILE))
    with writes.completing(folder / FILE):
        yield


def read_run(folder: Path) -> RunResult:
    """Read the ``run.json`` of a run folder (or the file itself).

    Raises:
        UsageError: There is none, or it has another schema.
    """
    path = folder / FILE if folder.is_dir() else folder
    try:
        value = json.loads(path.read_text(encoding="utf-8-sig"))  # some Windows editors begin a file with a mark
        return from_json(RunResult, upgrade.run(value, str(path)))
    except FileNotFoundError:
        if writes.waiting(path).is_file():
            hint = f"free some space if the disk is full, and write it: edgekd report {shlex.quote(str(path.parent))}"
            raise UsageError(f"{path} does not exist, since its report could not be written", hint) from None
        raise UsageError(f"{path} does not exist", _GIVE) from None
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        hint = "run the recipe again" if path.name == FILE else _GIVE
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
    if isinstance(error, TypeError | AttributeError | IndexError):  # words of Python, which name no place of the file
        return "a value has another form than edgekd writes"
    return f"it is not JSON: {error}" if isinstance(error, json.JSONDecodeError) else cause_of(error)
