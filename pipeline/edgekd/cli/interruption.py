"""Ctrl-C, and a scheduler's time limit: one exit code, whatever a library makes of them."""

from __future__ import annotations

import atexit
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

EXIT_CODE = 130

_signals: list[int] = []


def listen() -> None:
    """From now on SIGTERM, SIGHUP and SIGINT raise KeyboardInterrupt, the last two if they are not ignored (``nohup``).

    The exit code is kept.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
        signal.signal(signal.SIGHUP, _interrupt)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)
    atexit.register(_exit)  # the first to be registered is the last to be called


def heard() -> bool:
    """Whether there was an interruption."""
    return bool(_signals)


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


def _exit() -> None:
    """Python would end by the signal if the interrupt has passed through code that C had called, though it was caught."""
    if _signals:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(EXIT_CODE)
