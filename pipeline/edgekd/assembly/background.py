"""One piece of work in a process of its own, beside the main one.

Small networks do not fill two cores from one process: two trainings side by side finish sooner than one after the other.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import ModuleType
from typing import Any, Generic, TypeVar

from edgekd.errors import EdgekdError, ErrorRecord, StageError

T = TypeVar("T")
ENDING_S = 10.0
"""Seconds that a process gets to end after it has given its result."""
_SAFE = "PYTHONSAFEPATH"
_AGAIN = "run the same command again: finished stages are kept"


class Background(Generic[T]):
    """A call that runs in a fresh process; both the function and its arguments must be picklable.

    Use as a context manager: leaving it ends the process, finished or not, so that Ctrl-C leaves nothing behind.
    """

    def __init__(self, function: Callable[..., T], *args: Any) -> None:
        context = multiprocessing.get_context("spawn")  # a fork would copy the threads' locks of what is loaded
        self._answer, sender = context.Pipe(duplex=False)
        self._process = context.Process(target=_work, args=(sender, function, args), daemon=False)
        with isolated_children():
            self._process.start()
        self._got: tuple[EdgekdError | None, Any] | None = None
        sender.close()

    def __enter__(self) -> Background[T]:
        return self

    def __exit__(self, *_: object) -> None:
        if self._got is not None:  # it has told its result and is ending: what Python does then is not to be cut short
            self._process.join(ENDING_S)
        if self._process.is_alive():
            self._process.terminate()
        self._process.join()

    def result(self) -> T:
        """Wait for the end and return what the function returned.

        Raises:
            EdgekdError: What the function raised, or a StageError if the process died.
        """
        error, value = self._received()
        if error is not None:
            raise error
        result: T = value
        return result

    def failure(self) -> EdgekdError | None:
        """Return the error that :meth:`result` would raise, if it is known already. Does not wait."""
        return self._received()[0] if self._got or self._answer.poll() else None

    def _received(self) -> tuple[EdgekdError | None, Any]:
        if self._got is None:
            try:
                failed, value = self._answer.recv()
                self._got = (failed.error() if failed is not None else None), value
            except EOFError:
                self._process.join()
                code = self._process.exitcode
                error = StageError(f"a background process died with exit code {code}", _AGAIN)
                self._got = killed("the process that trains beside the others") if code == -signal.SIGKILL else error, None
        return self._got


def killed(process: str) -> StageError:
    """The error for a process that something else has ended with SIGKILL."""
    return StageError(
        f"{process} was killed (SIGKILL), as systems do when the memory is full",
        f"free some memory, or train in smaller batches; {_AGAIN}",
    )


@contextmanager
def isolated_children() -> Iterator[None]:
    """Start processes that import nothing but edgekd.

    They do not run the user's script again, which may have called edgekd without ``if __name__ == "__main__"``: nothing that
    they get is of it. Nor do they import a ``signal.py`` of the working folder instead of Python's own.
    """
    main, safe = sys.modules["__main__"], os.environ.get(_SAFE)
    sys.modules["__main__"] = ModuleType("__main__")
    os.environ[_SAFE] = "1"
    try:
        yield
    finally:
        sys.modules["__main__"] = main
        if safe is None:
            del os.environ[_SAFE]


def _follow_parent() -> None:
    """End with a parent that was killed and could not say so."""
    parent = multiprocessing.parent_process()
    assert parent is not None  # runs in a child process only
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)


def _work(sender: Any, function: Callable[..., T], args: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears Ctrl-C and ends this process
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that half-made files are removed on the way out
    threading.Thread(target=_follow_parent, daemon=True).start()
    with suppress(BrokenPipeError):
        try:
            sender.send((None, function(*args)))
        except EdgekdError as error:
            sender.send((ErrorRecord.of(error), None))
