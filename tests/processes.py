"""Processes that need not import torch: each is forked from one that has, in place of multiprocessing's "spawn".

All else is as with "spawn": what they get is pickled, and they have their parent's environment and streams of that moment.
"""

from __future__ import annotations

import multiprocessing.context
import os
from collections.abc import Callable
from multiprocessing import forkserver, reduction
from pathlib import Path
from typing import Any

import pytest


class _Stream:
    """A file descriptor that is one in the other process, too."""

    def __init__(self, number: int) -> None:
        self._number = number

    def __reduce__(self) -> tuple[Callable[..., int], tuple[Any]]:
        return _received, (reduction.DupFd(self._number),)  # type: ignore[attr-defined]


def _received(sent: Any) -> int:
    number: int = sent.detach()
    return number


class WarmProcess(multiprocessing.context.ForkServerProcess):
    """A process with the environment and the streams that its parent has when it starts it."""

    def start(self) -> None:
        _start()
        self._environment = dict(os.environ)
        self._streams: tuple[Any, ...] = (_Stream(1), _Stream(2))
        super().start()

    def run(self) -> None:
        os.environ.clear()
        os.environ.update(self._environment)
        for number, stream in enumerate(self._streams, 1):
            os.dup2(stream, number)
            os.close(stream)
        super().run()


class Warm(multiprocessing.context.ForkServerContext):
    """Stands where the context "spawn" stood."""

    Process = WarmProcess  # type: ignore[assignment]


def _start() -> None:
    """Start the process that the others are forked from, if it does not run yet; its path is that of these tests."""
    forkserver.set_forkserver_preload(["tests.processes_loaded"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[1]), prepend=os.pathsep)
        forkserver.ensure_running()
