"""An interruption ends a run, whatever becomes of the exception."""

from __future__ import annotations

import subprocess
import sys

import pytest

from edgekd import cli
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


@pytest.mark.parametrize(
    ("words", "raised", "hint"),
    [
        ("run", KeyboardInterrupt(), "finished stages are kept"),
        ("doctor", KeyboardInterrupt(), "nothing is left on the device"),
        ("profile", KeyboardInterrupt("no device was finished"), "no device was finished"),
        ("list", KeyboardInterrupt(), ""),
    ],
)
def test_the_hint_fits_the_command(
    words: str, raised: KeyboardInterrupt, hint: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def invoke(context: object) -> None:
        raise raised

    monkeypatch.setattr(cli.cli, "invoke", invoke)
    monkeypatch.setattr(interruption, "listen", lambda: None)
    monkeypatch.setattr(interruption, "_signals", [2])
    with pytest.raises(SystemExit) as ended:
        cli.main([words])
    assert ended.value.code == interruption.EXIT_CODE
    told = capsys.readouterr().err
    assert told.strip().startswith(f"error: interrupted\n  → {hint}" if hint else "error: interrupted")
    assert ("→" in told) == bool(hint)


CODE = """
import os, signal, weakref
from edgekd.cli import interruption


class Thing: ...


def gone(_):
    {what}


interruption.listen()
thing = Thing()
kept = weakref.ref(thing, gone)
del thing
print("on", interruption.heard(), flush=True)
"""


@pytest.mark.parametrize(
    ("what", "told", "printed"),
    [("os.kill(os.getpid(), signal.SIGINT)", "on True", ""), ("1 / 0", "on False", "ZeroDivisionError: division by zero")],
)
def test_what_python_drops_is_printed_unless_it_is_the_interruption(what: str, told: str, printed: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE.format(what=what)], capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout.strip() == told
    assert (printed in done.stderr) if printed else not done.stderr
    assert done.returncode == (0 if printed else interruption.EXIT_CODE)
