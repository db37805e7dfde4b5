"""A side figure that fails is absent and listed; the run goes on."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from tests.words import notes
from torch import nn

from edgekd.assembly import figures
from edgekd.assembly.context import Context
from edgekd.errors import QuantizeError, StorageError
from edgekd.progress import Lines
from edgekd.recipe import Recipe
from edgekd.report.findings import sentence
from edgekd.report.missing import while_running
from edgekd.results import codec
from edgekd.results.findings import Finding


@pytest.fixture
def said() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def context(tmp_path: Path, said: io.StringIO) -> Context:
    recipe = Recipe.model_validate(
        {
            "edgekd": 1,
            "data": {"source": "fashion-mnist-mini"},
            "student": {"model": "edgekd:resnet10"},
            "distill": {"epochs": 1, "losses": [{"kind": "task"}]},
        }
    )
    return Context(recipe, "evaluate", tmp_path, {}, tmp_path / "log", Lines(said))


def fails(error: Exception) -> Any:
    def compute() -> int:
        raise error

    return compute


def test_absent_with_its_reason(context: Context, said: io.StringIO) -> None:
    assert figures.measured(context, "parameters", lambda: 3) == 3
    assert figures.measured(context, "MACs of student", fails(AssertionError("Expected gradient\nfunction"))) is None
    for _ in range(2):
        assert figures.measured(context, "layers", fails(QuantizeError("the graph has no layer", "hint"))) is None
    lines = ["MACs of student: AssertionError: Expected gradient", "layers: the graph has no layer"]
    assert notes(codec.read(figures.NotMeasured, context.out / figures.FILE).found) == lines
    assert "not measured: MACs of student" in said.getvalue()
    assert "Traceback" in context.log.read_text()
    later = Context(context.recipe, "package", context.out, {"evaluate": context.out}, context.log, Lines(said))
    assert notes(figures.absent(later)) == lines


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), StorageError("full", "free some")])
def test_a_full_disk_ends_the_run(context: Context, error: Exception) -> None:
    with pytest.raises(StorageError):
        figures.measured(context, "layers", fails(error))


def test_outputs_that_are_dropped_are_listed(context: Context) -> None:
    network = nn.Linear(1, 1)
    figures.note_dropped_outputs(context, "student", network)
    assert not (context.out / figures.FILE).exists()
    network.other_outputs = {"aux": (1, 10)}  # type: ignore[assignment]
    figures.note_dropped_outputs(context, "student", network)
    (line,) = notes(codec.read(figures.NotMeasured, context.out / figures.FILE).found)
    assert line == "other outputs of the student: aux (1×10) is dropped, and in no file"


def test_outputs_of_training_mode_are_listed(context: Context) -> None:
    network = nn.Linear(1, 1)
    network.training_outputs = ("aux (1×10)",)  # type: ignore[assignment]
    figures.note_dropped_outputs(context, "student", network)
    (found,) = codec.read(figures.NotMeasured, context.out / figures.FILE).found
    words = "no loss reads aux (1×10), and no file has it"
    assert notes([found]) == [f"other outputs of the student in training mode: {words}"]
    assert while_running(found.reason) == words
    assert while_running(Finding("no such", figures={"a": 1})) == sentence(Finding("no such", figures={"a": 1}))
