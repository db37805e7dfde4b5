"""``edgekd profile``: how long is measured, and one session at a time on a board."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.unit.artifacts.packing import with_lock
from tests.unit.artifacts.test_profile_files import conv

from edgekd.artifacts import pack
from edgekd.artifacts.profile import Settings
from edgekd.artifacts.protocol import protocol
from edgekd.errors import EdgekdError, ExitCode
from edgekd.profiling.on_device import keeper


def test_how_long_is_measured_can_be_set_and_is_in_the_record(tmp_path: Path) -> None:
    keys = ("blocks=3", "block_runs=2", "block_ms=1", "warmup_ms=0", "profile.warmup_runs=1")
    words = ["profile", str(conv(tmp_path)), "--json", *(word for key in keys for word in ("--set", key))]
    done = subprocess.run(
        [sys.executable, "-m", "edgekd", *words], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)["result"]
    assert [result["recipe"]["profile"][key] for key in ("blocks", "block_runs", "warmup_ms", "warmup_runs")] == [3, 2, 0, 1]
    assert len(result["profiles"][0]["blocks"]) == 3
    assert "--set blocks=3" in result["command"]


@pytest.mark.parametrize(
    ("text", "told"),
    [("block=3", "did you mean blocks"), ("blocks=2", "3 or more"), ("threads=2", "type --threads"), ("blocks", "no value")],
)
def test_what_cannot_be_set_is_said(text: str, told: str) -> None:
    with pytest.raises(EdgekdError, match=told) as caught:
        protocol([text])
    assert caught.value.exit_code == ExitCode.USAGE


def test_a_pack_does_not_measure_while_another_session_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = with_lock(tmp_path / "lock")
    monkeypatch.setattr(pack, "packed", lambda: program)
    monkeypatch.setattr(keeper, "LOCK", tmp_path / "lock")
    folder = pack.pack([conv(tmp_path)], Settings(), tmp_path / "pack")
    handle, _ = keeper.lock("anna@desk (process 7)")
    done = subprocess.run([sys.executable, folder / "profile.py"], capture_output=True, text=True, check=False, cwd=tmp_path)
    os.close(handle)
    assert done.returncode == ExitCode.DEVICE_FAILED
    assert "nothing was measured: this board is in use by anna@desk (process 7)" in done.stderr
    assert not (tmp_path / "edgekd-result.json").exists()
