"""For tests of Ctrl-C."""

from __future__ import annotations

import sys
from collections.abc import Sequence

_HEAR = "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execv(sys.argv[1], sys.argv[1:])"


def heard(command: Sequence[str]) -> list[str]:
    """The same command, in the same process, hearing Ctrl-C: what a job in the background starts would ignore it."""
    return [sys.executable, "-c", _HEAR, *command]
