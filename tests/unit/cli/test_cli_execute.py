"""What the commands that run a recipe say before it runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from edgekd.cli.execute import execute
from edgekd.engine import runner
from edgekd.loading import load
from edgekd.loading.loaded import Loaded
from edgekd.progress import Silent
from edgekd.recipe import Lock


class Said(Silent):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


class RanError(Exception):
    """In the place of a run."""


@pytest.mark.parametrize(
    ("locked", "asked", "said"), [(1, 2, "threads: 2, and the lock has 1"), (2, 2, ""), (1, None, ""), (None, 2, "")]
)
def test_other_threads_than_the_locks_are_said(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    locked: int | None,
    asked: int | None,
    said: str,
) -> None:
    """They change the last bits of every sum."""
    loaded = load(Path("mobilenet"))
    if locked:
        recipe = loaded.recipe.model_copy(update={"threads": locked})
        loaded = replace(loaded, recipe=recipe, lock=Lock(recipe=str(loaded.path)))

    def run(given: Loaded, options: runner.Options) -> runner.Outcome:
        assert options.threads == (asked or locked)
        raise RanError

    progress = Said()
    monkeypatch.setattr(runner, "run", run)
    monkeypatch.setattr("edgekd.progress.for_stream", lambda: progress)
    with pytest.raises(RanError):
        execute(loaded, tmp_path, threads=asked)
    assert [line.partition(":")[0] for line in progress.lines] == (["threads"] if said else [])
    assert all(line.startswith(said) for line in progress.lines)
