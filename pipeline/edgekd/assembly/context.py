"""The context of a stage: its recipe, inputs, output folder, log and progress."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from edgekd import cache
from edgekd.assembly.recent import Recent
from edgekd.errors import StageError
from edgekd.progress import Progress
from edgekd.reads import Read
from edgekd.reads.watch import Recorder
from edgekd.recipe import Recipe
from edgekd.results import codec
from edgekd.results.findings import Finding, listed

if TYPE_CHECKING:
    from torch import fx

T = TypeVar("T")
OUTPUT = "output.json"
"""What a stage found, in its folder."""
GRAPHS = 2
"""Graphs in memory: the float one and the one that becomes int8."""


def recent_graphs() -> Recent[fx.GraphModule]:
    """Return the room for the graphs of a run."""
    return Recent(GRAPHS)


@dataclass(frozen=True)
class Context:
    """Everything a stage may look at.

    Attributes:
        recipe: The resolved recipe.
        name: The stage's name, such as ``distill`` or ``export.onnx``.
        out: An empty folder for the outputs; it becomes the cache entry when the stage ends well.
        inputs: Folders of finished stages, by name.
        log: File for what libraries print.
        progress: Where to report.
        processes: Accelerators (or CPU processes) to train on.
        threads: Threads torch may use.
        folder: The recipe's, where a cache entry's reads are looked for first.
        files: What the key's files were hashed to; the stage is made of these bytes or of none.
        graphs: Graphs of the student that stages before it have traced.
        words: Writes a finding for a reader; the report's, which a stage does not import.
    """

    recipe: Recipe
    name: str
    out: Path
    inputs: Mapping[str, Path]
    log: Path
    progress: Progress
    processes: int = 1
    threads: int = 1
    folder: Path = field(default_factory=Path.cwd)
    files: Mapping[str, str] = field(default_factory=dict)
    words: Callable[[Finding], str] = listed
    graphs: Recent[fx.GraphModule] = field(default_factory=recent_graphs)

    def say(self, *found: Finding) -> None:
        """Report findings at once, a line each."""
        for one in found:
            self.progress.say(f"  {self.words(one)}")

    def reads(self, recorder: Recorder) -> tuple[Read, ...]:
        """Return what this stage, and those that it reads, have read of the user's besides what the keys have.

        Raises:
            StageError: It was not made of what its key says.
        """
        if path := recorder.changed():
            raise changed(self.name, path)
        before = [read for folder in self.inputs.values() for read in cache.reads_of(folder)]
        return recorder.reads(self.folder, before, (*cache.folders(), self.out, self.log.absolute().parents[1]))

    def output(self, kind: type[T], stage: str) -> T:
        """Return what a finished stage found.

        Args:
            kind: The stage's output, of :mod:`edgekd.assembly.outputs`.
            stage: Its name.
        """
        return read_output(kind, self.inputs[stage])


def read_output(kind: type[T], folder: Path) -> T:
    """Return what the finished stage in ``folder`` found."""
    return codec.read(kind, folder / OUTPUT)


def changed(stage: str, path: str) -> StageError:
    """The error for a stage whose key says of a file what is no longer so."""
    return StageError(
        f"{stage}: {path} changed during this run, so the version of its result is unknown",
        "run the same command again: the stages before it are kept",
    )


def processes(asked: int) -> int:
    """Return the number of processes that train together: ``--processes``, or as many as ``torchrun`` has started."""
    return int(os.environ["WORLD_SIZE"]) if "TORCHELASTIC_RUN_ID" in os.environ else asked
