"""``edgekd profile --set``: how long is measured."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.unit.test_profile_files import conv

from edgekd.artifacts.protocol import protocol
from edgekd.errors import EdgekdError, ExitCode


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
