"""What is watched, in tests: each begins as a new process would."""

from __future__ import annotations

import pytest

from edgekd.reads import watch


def begin_afresh(patch: pytest.MonkeyPatch) -> None:
    """Forget what other tests have imported and opened in this process."""
    for name in ("_first", "_before", "_led", "_typed"):
        patch.setattr(watch, name, {})
    for name in ("_opened", "_own", "_plugins"):
        patch.setattr(watch, name, set())
