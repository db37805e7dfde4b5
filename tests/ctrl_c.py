"""For tests of Ctrl-C."""

from __future__ import annotations

import signal


def heard() -> None:
    """As ``preexec_fn``: let the process hear Ctrl-C, which a job in the background starts out ignoring."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
