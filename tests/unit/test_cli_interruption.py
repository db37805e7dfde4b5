"""An interruption ends a run, whatever becomes of the exception."""

from __future__ import annotations

import pytest

from edgekd.cli import interruption
from edgekd.progress import Silent


class Said(Silent):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


def test_an_interruption_that_was_dropped_is_raised_at_the_next_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in the callback of a weak reference, where Python drops what is raised: the training would go on to its end."""
    monkeypatch.setattr(interruption, "_signals", [])
    said = Said()
    progress = interruption.Heard(said)
    progress.say("a line")
    assert said.lines == ["a line"]
    with progress.task("training", 3) as task:
        task.advance()
        with pytest.raises(KeyboardInterrupt):
            interruption._interrupt(2, None)
        assert interruption.heard()
        with pytest.raises(KeyboardInterrupt):
            task.advance()
