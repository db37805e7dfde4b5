"""Stages in a process of their own, beside the others: what becomes of that process is said while the others go on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from edgekd.assembly.background import Background
from edgekd.progress import Progress, Task


class Beside:
    """Reports the progress of a stage, and once, at its next step, that the process beside it has failed.

    The stage itself goes on: its result is kept.

    Args:
        progress: Where to report.
        aside: The process.
        name: What it trains.
    """

    def __init__(self, progress: Progress, aside: Background[Any], name: str) -> None:
        self._progress, self._aside, self._name = progress, aside, name
        self._said = False

    @contextmanager
    def task(self, name: str, total: int) -> Iterator[Task]:
        """Open a task."""
        with self._progress.task(name, total) as task:
            yield _Task(task, self)

    def say(self, text: str) -> None:
        """Print one line."""
        self._progress.say(text)

    def look(self) -> None:
        """Say it if the process has failed since."""
        failure = None if self._said else self._aside.failure()
        if failure is not None:
            self._said = True
            self.say(f"  FAILED: {self._name}: {failure.message}; this run stops when the stage that is under way is done")


class _Task:
    def __init__(self, task: Task, beside: Beside) -> None:
        self._task, self._beside = task, beside

    def advance(self, steps: int = 1, note: str = "") -> None:
        self._task.advance(steps, note)
        self._beside.look()
