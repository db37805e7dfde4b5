"""The schema of a recipe, one section per file.

Everything is frozen and closed: a key that is not here is a mistake. The attribute docstrings are the documentation an
editor shows (``edgekd schema`` writes them into recipes/schema.json).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from edgekd.recipe.base import Strict
from edgekd.recipe.data import Data
from edgekd.recipe.distill import Distill
from edgekd.recipe.export import AnyExport, Export, Precision
from edgekd.recipe.gates import Gates
from edgekd.recipe.profile import Profile
from edgekd.recipe.quantize import Quantize
from edgekd.recipe.student import Student
from edgekd.recipe.task import TaskName
from edgekd.recipe.teacher import Teacher
from edgekd.recipe.tune import Tune

VERSIONS = (1, 2)
"""Versions of a recipe that can be read. A default that changes is another one from a version on; the older recipes keep
theirs (:mod:`edgekd.loading.upgrade`)."""
SCHEMA_VERSION = VERSIONS[-1]
"""Version of a recipe that is written now."""


Baseline = Literal["student_alone", "kd", "tuned_kd"]


class Lock(Strict):
    """Files that a run has read, with their hashes, as written into its lock."""

    recipe: str
    """The recipe's own file: what your code reads is looked for from its folder."""
    sha256: dict[str, Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]] = Field(default_factory=dict)
    """SHA-256 of each file, and of the files of each data source; a replay stops where one is another."""


class Recipe(Strict):
    """One recipe: data → teacher → student → int8 artifacts → figures → report."""

    edgekd: Annotated[Literal[1, 2], Field(examples=[2])]
    """Version of this schema: 2, or 1 for a recipe that was written earlier; `edgekd upgrade` rewrites it."""
    seed: NonNegativeInt = 0
    """Seed of everything random."""
    seeds: PositiveInt = 1
    """Train the student and its baselines this many times, with seed, seed + 1 and so on and the same teacher, to have a
    spread. The first one is quantized, exported and profiled."""
    threads: PositiveInt | None = None
    """Threads that torch computes with, which decide the last bits of every sum. Left out: one a core, at most 4; a run
    writes into its lock how many there were."""
    task: TaskName = "image-classification"
    """The task of the networks: inputs, outputs and metrics (`edgekd list tasks`)."""
    data: Annotated[Data, Field(examples=[{"source": "fashion-mnist-mini"}])]
    teacher: Teacher | None = None
    """The teacher. Left out: the student is trained with hard labels only."""
    student: Student | None = None
    """The student. Left out: only the teacher is trained (a recipe that makes a checkpoint)."""
    distill: Distill | None = None
    """Training of the student. Left out: it is trained already, and `student.weights` are its weights."""
    tune: Tune | None = None
    """Search for values of `distill` first, on the validation split."""
    baselines: tuple[Baseline, ...] = ("student_alone",)
    """Trained beside the distilled student for comparison with the same budget: student_alone, without a teacher; kd, with
    the labels and Hinton's distillation alone, as the recipe has them among its losses or else with their defaults;
    tuned_kd, the same once its temperature and weight have been searched for, as `tune` says or else in a grid of twelve."""
    quantize: Quantize | None = None
    """int8 quantization. Left out: float artifacts only."""
    export: tuple[AnyExport, ...] = ()
    profile: Profile | None = None
    reads: tuple[str, ...] = ()
    """Files, or folders with all files in them, that your own code reads and that no stage may be re-used without, such as
    one that a native library opens. Files that Python opens need not be listed."""
    gates: Gates = Gates()
    lock: Lock | None = None
    """Written by edgekd, only into recipe.lock.yaml."""

    def precision_of(self, item: Export) -> Precision:
        """The precision of an artifact: what it says, or int8 where the recipe quantizes, else float32."""
        return item.precision or ("int8" if self.quantize else "float32")
