from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from edgekd.errors import ExportError, UsageError
from edgekd.exporting.capture import captured


def test_everything_goes_into_the_log(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "logs" / "export.log"
    with captured(log, "testing"):
        print("from python")
        os.write(1, b"from c++ to out\n")
        os.write(2, b"from c++ to err\n")
        subprocess.run([sys.executable, "-c", "print('from a child')"], check=True)
        warnings.warn("from a library", stacklevel=1)
    print("after")
    assert capfd.readouterr().out == "after\n"
    text = log.read_text()
    for part in ("from python", "c++ to out", "c++ to err", "from a child"):
        assert part in text


def test_failure_becomes_an_export_error(tmp_path: Path) -> None:
    with pytest.raises(ExportError) as caught, captured(tmp_path / "log", "testing"):
        raise ValueError("first line\nsecond line")
    assert caught.value.message == "testing failed: ValueError: first line"
    assert "second line" in (tmp_path / "log").read_text()
    assert str(tmp_path / "log") in str(caught.value.hint)


def test_own_errors_pass_through() -> None:
    with pytest.raises(UsageError, match="as it is"), captured(None, "testing"):
        raise UsageError("as it is")
