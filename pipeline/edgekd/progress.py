"""Progress of long work: a bar on a terminal, a line from time to time elsewhere.

Everything goes to standard error, so that ``--json`` on standard output stays clean.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Protocol, TextIO

LEAST_SHARE = 10
"""Percent of a task from which on the time left is told: the first steps, such as loading, are unlike the others."""


class Task(Protocol):
    """One piece of work that is under way."""

    def advance(self, steps: int = 1, note: str = "") -> None:
        """Say that ``steps`` more are done; ``note`` replaces the text at the end of the line.

        Fewer than none where the work has grown: the share that is done is less than it was.
        """


class Progress(Protocol):
    """Receives the reports of stages."""

    def task(self, name: str, total: int) -> AbstractContextManager[Task]:
        """Open a task of ``total`` steps as a context manager."""

    def say(self, text: str) -> None:
        """Print one line."""


@contextmanager
def unless_brief(progress: Progress, name: str, total: int, after: float) -> Iterator[Task]:
    """Open a task that is not told where all of it is done in ``after`` seconds; the rest of a longer one is."""
    with ExitStack() as stack:
        yield _Late(stack, progress, name, total, after)


class _Late:
    def __init__(self, stack: ExitStack, progress: Progress, name: str, total: int, after: float) -> None:
        self._stack, self._progress, self._name, self._left = stack, progress, name, total
        self._due = time.monotonic() + after
        self._task: Task | None = None

    def advance(self, steps: int = 1, note: str = "") -> None:
        if self._task is not None:
            self._task.advance(steps, note)
            return
        self._left -= steps
        if self._left > 0 and time.monotonic() >= self._due:
            # The rest alone, so that the time left is right.
            self._task = self._stack.enter_context(self._progress.task(self._name, self._left))


class Silent:
    """Says nothing; for ``--json`` and tests."""

    @contextmanager
    def task(self, name: str, total: int) -> Iterator[Task]:
        """Open a task that nobody sees."""
        yield _NoTask()

    def say(self, text: str) -> None:
        """Drop the line."""


class _NoTask:
    def advance(self, steps: int = 1, note: str = "") -> None:
        pass


class Lines:
    """For logs: a line when a task starts, at most one every ``every`` seconds while it runs, one when it ends."""

    def __init__(self, stream: TextIO | None = None, every: float = 20.0) -> None:
        self._stream = stream or sys.stderr
        self._every = every

    def __reduce__(self) -> tuple[type[Lines], tuple[None, float]]:
        return Lines, (None, self._every)  # a stream stays in its process; a training process has its own stderr

    @contextmanager
    def task(self, name: str, total: int) -> Iterator[Task]:
        """Open a task."""
        task = _LineTask(self, name, total, self._every)
        self.say(f"  {name}: started")
        yield task
        self.say(f"  {name}: done in {_duration(time.monotonic() - task.started)}{task.note and f', {task.note}'}")

    def say(self, text: str) -> None:
        """Print one line."""
        print(text, file=self._stream, flush=True)


class _LineTask:
    def __init__(self, lines: Lines, name: str, total: int, every: float) -> None:
        self._lines, self._name, self._total, self._every = lines, name, total, every
        self._done = 0
        self.note = ""
        self.started = self._spoken = time.monotonic()

    def advance(self, steps: int = 1, note: str = "") -> None:
        self._done += steps
        self.note = note or self.note
        now = time.monotonic()
        if now - self._spoken >= self._every and 0 < self._done < self._total:
            self._spoken = now
            left = (now - self.started) / self._done * (self._total - self._done)
            share = 100 * self._done // self._total
            told = f", {_duration(left)} left" if share >= LEAST_SHARE else ""
            self._lines.say(f"  {self._name}: {share} %{told}{self.note and f', {self.note}'}")


class Bars:
    """For terminals: a rich bar for each task under way."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress
        from rich.progress import Task as RichTask
        from rich.text import Text

        class Left(TimeRemainingColumn):
            """The time left, once enough is done to tell."""

            def render(self, task: RichTask) -> Text:
                return super().render(task) if task.percentage >= LEAST_SHARE else Text("--:--", "progress.remaining")

        self._console = Console(stderr=True)
        self._columns = (
            TextColumn("  {task.description}"),
            BarColumn(bar_width=30),
            TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("left"),
            Left(compact=True),
            TextColumn("spent"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"),
        )
        self._rich = RichProgress

    def __reduce__(self) -> tuple[type[Bars], tuple[()]]:
        return Bars, ()  # a training process has its own terminal

    @contextmanager
    def task(self, name: str, total: int) -> Iterator[Task]:
        """Open a bar; it stays on the screen when it is full."""
        with self._rich(*self._columns, console=self._console) as bars:
            number = bars.add_task(name, total=total, note="")

            class Bar:
                def advance(self, steps: int = 1, note: str = "") -> None:
                    bars.update(number, advance=steps)  # bars.advance would count steps back in the speed
                    if note:
                        bars.update(number, note=note)

            yield Bar()

    def say(self, text: str) -> None:
        """Print one line."""
        self._console.print(text, markup=False, highlight=False)


def for_stream(stream: TextIO = sys.stderr) -> Progress:
    """Bars on a terminal, lines elsewhere."""
    return Bars() if stream.isatty() else Lines(stream)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
