"""Stage: one step of a run. The table of all stages is in :mod:`edgekd.stages`; each is one file there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, Protocol

from edgekd.assembly.context import OUTPUT, Context
from edgekd.recipe import Recipe
from edgekd.results import codec

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


class Work(Enum):
    """The work of a stage, with the versions that decide its result."""

    FILES = "files"
    """Reads, writes or measures files: neither threads nor processes change its result."""
    TORCH = "torch"
    """Computes with torch: the number of threads changes the bits."""
    TRAINING = "training"
    """Trains a network, which is its result: the number of processes changes its batches as well."""
    TRIALS = "trials"
    """Trains networks to compare them: the same, but no network is left."""


class Stage(Protocol):
    """One kind of step. It has no state: what it needs it is given, what it finds it returns.

    Attributes:
        name: The kind, such as ``export``; it stands in every key.
        version: Raised when the code gives another result, or another form of it, for the same inputs.
        reused: Whether a finished one is taken from the cache; a measurement never is.
        optional: Whether a run goes on without it where it fails, with what is left.
    """

    name: str
    version: int
    reused: bool
    optional: bool

    def packages(self, name: str) -> tuple[str, ...]:
        """Return the distributions whose versions decide the result of the stage called ``name``."""

    def nodes(self, recipe: Recipe) -> Iterator[Node]:
        """Yield the stages of this kind that a recipe has, each with what it reads."""

    def work(self, recipe: Recipe) -> Work:
        """Return what it does under a recipe."""

    def config(self, recipe: Recipe, name: str) -> dict[str, Any]:
        """Return the JSON that decides the result: no paths, no times. Needs no torch."""

    def run(self, context: Context) -> DataclassInstance | None:
        """Do the work: arrays, weights and model files go into ``context.out``.

        Returns:
            What it found, as a frozen dataclass of :mod:`edgekd.assembly.outputs`. None in a process of ``torchrun`` that
            only takes part in a training: the first process returns it.
        """


@dataclass(frozen=True)
class Node:
    """A stage of a recipe: its name in the run, its kind, the names of the stages that it reads, and the recipe it sees."""

    name: str
    stage: Stage
    inputs: tuple[str, ...]
    recipe: Recipe


def perform(stage: Stage, context: Context) -> None:
    """Run a stage and leave what it found in its folder."""
    found = stage.run(context)
    if found is not None:
        codec.write(found, context.out / OUTPUT)


def in_order(nodes: Iterable[Node]) -> list[Node]:
    """Return stages so that each is after what it reads, and as late as the first that reads it; else in the given order."""
    known = {node.name: node for node in nodes}
    found: dict[str, Node] = {}

    def visit(node: Node) -> None:
        for name in node.inputs:
            visit(known[name])
        found.setdefault(node.name, node)

    for node in known.values():
        visit(node)
    return list(found.values())
