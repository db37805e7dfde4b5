"""Converters print much, some of it from C++. It goes into a log and is shown only when they fail."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path

from edgekd.errors import EdgekdError, ExportError, cause_of


@contextlib.contextmanager
def captured(log: Path | None, doing: str) -> Iterator[None]:
    """Send everything printed inside, warnings included, to the end of ``log``.

    Standard output and error are redirected for the whole process: run nothing beside it that prints.

    Args:
        log: File to append to; None discards.
        doing: What the block does, for the message, such as ``writing model.onnx``.

    Raises:
        ExportError: The block raised anything but an ``EdgekdError``; the traceback is in the log.

    Example:
        >>> with captured(None, "greeting"):
        ...     print("hello")
    """
    if log is not None:
        log.parent.mkdir(parents=True, exist_ok=True)
    target = Path(os.devnull) if log is None else log
    with target.open("a", encoding="utf-8", buffering=1) as stream:
        try:
            with (
                _redirected(stream.fileno()),
                contextlib.redirect_stdout(stream),
                contextlib.redirect_stderr(stream),
                warnings.catch_warnings(),
            ):
                # Whatever the process makes of warnings: those of the converters belong into their log.
                warnings.simplefilter("default")
                yield
        except EdgekdError:
            raise
        except Exception as error:  # converters raise anything
            traceback.print_exc(file=stream)
            raise ExportError(f"{doing} failed: {summary(error)}", _where(log)) from error


@contextlib.contextmanager
def _redirected(target: int) -> Iterator[None]:
    saved = []
    for stream, number in ((sys.stdout, 1), (sys.stderr, 2)):
        with contextlib.suppress(ValueError, OSError):  # a closed or replaced stream has nothing to flush
            stream.flush()
        try:
            saved.append((number, os.dup(number)))
        except OSError:  # a process without that stream, such as a daemon
            continue
        os.dup2(target, number)
    try:
        yield
    finally:
        for number, original in saved:
            os.dup2(original, number)
            os.close(original)


def summary(error: Exception) -> str:
    """Name an error by its class and its cause."""
    name, cause = type(error).__name__, cause_of(error)
    return name if cause == name else f"{name}: {cause}"


def _where(log: Path | None) -> str:
    return f"all that the converter printed is in {log}" if log is not None else "give a log file to see its output"
