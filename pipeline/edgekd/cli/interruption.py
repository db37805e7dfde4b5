"""Ctrl-C, and a scheduler's time limit: one exit code, whatever a library makes of them."""

from __future__ import annotations

import atexit
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from edgekd.errors import chain

if TYPE_CHECKING:
    from edgekd.progress import Progress, Task

EXIT_CODE = 130

_signals: list[int] = []
_STAGES = "finished stages are kept; the same command resumes, and the interrupted training starts anew"
_HINTS = {
    **dict.fromkeys(("run", "study", "quantize", "export"), _STAGES),
    **dict.fromkeys(("doctor", "devices"), "nothing is left on the device; the same command asks it again"),
}


def listen() -> None:
    """From now on SIGTERM, SIGHUP and SIGINT raise KeyboardInterrupt, the last two if they are not ignored (``nohup``).

    The exit code is kept.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
        signal.signal(signal.SIGHUP, _interrupt)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)
    sys.unraisablehook = _unraisable
    atexit.register(_exit)  # the first to be registered is the last to be called


def heard() -> bool:
    """Return whether there was an interruption."""
    return bool(_signals)


def hint(command: str, error: BaseException) -> str:
    """Return what an interruption leaves: the exception's own words, or those of the command; empty where it is nothing."""
    first = chain(error)[-1]  # click makes an exception of its own of it
    return (str(first) if isinstance(first, KeyboardInterrupt) else "") or _HINTS.get(command, "")


class Heard:
    """Reports as another progress does, and raises KeyboardInterrupt again at the next step of a task.

    What is raised in a finalizer or in the callback of a weak reference is dropped by Python, and the work goes on.
    """

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    @contextmanager
    def task(self, name: str, total: int) -> Iterator[Task]:
        """Open a task."""
        with self._progress.task(name, total) as task:
            yield _Task(task)

    def say(self, text: str) -> None:
        """Print one line."""
        self._progress.say(text)


class _Task:
    def __init__(self, task: Task) -> None:
        self._task = task

    def advance(self, steps: int = 1, note: str = "") -> None:
        if _signals:
            raise KeyboardInterrupt
        self._task.advance(steps, note)


@contextmanager
def kept() -> Iterator[None]:
    """Raise KeyboardInterrupt again where a library has made another error of it."""
    try:
        yield
    except Exception as error:
        if _signals:
            raise KeyboardInterrupt from error
        raise


def _interrupt(number: int, _frame: object) -> None:
    _signals.append(number)
    raise KeyboardInterrupt


def _unraisable(dropped: sys.UnraisableHookArgs) -> None:
    """Print an error that Python cannot raise. An interruption is not printed: it is raised again at the next step."""
    if not (_signals and dropped.exc_type is KeyboardInterrupt):
        sys.__unraisablehook__(dropped)


def _exit() -> None:
    """Python would end by the signal if the interrupt has passed through code that C had called, though it was caught."""
    if _signals:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(EXIT_CODE)
