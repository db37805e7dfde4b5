"""What edgekd says of six networks is true; `make soak` says it of thirty, with five seeds each."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.e2e

ORACLE = Path(__file__).parents[1] / "oracle"
SAMPLE = {"plain": "sound", "shared": "sound", "average_pool": "sound", "cat": "destroyed", "outlier": "destroyed",
          "masked": "destroyed"}  # fmt: skip
"""One of a kind, with its first seed, and what is true of it by far."""
WRONG = {("destroyed", "pass"), ("sound", "fail")}


@pytest.fixture(scope="module")
def committed() -> dict[str, Any]:
    return json.loads((ORACLE / "results.json").read_text(encoding="utf-8"))


def test_verdicts_of_six_networks_are_true(tmp_path: Path, committed: dict[str, Any]) -> None:
    """Without the images that the truth is told by, which are no part of edgekd: the truth is that of the soak."""
    command = [sys.executable, str(ORACLE / "run.py"), "--networks", ",".join(SAMPLE), "--seeds", "1", "--no-truth",
               "--out", str(tmp_path)]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))["rows"]
    assert len(rows) == 2 * len(SAMPLE)
    known = {(row["network"], row["seed"], row["look"]): row for row in committed["rows"]}
    for row in rows:
        before = known[row["network"], row["seed"], row["look"]]
        assert before["truth"] == SAMPLE[row["network"]]
        assert (before["truth"], row["verdict"]) not in WRONG, row
        assert row["verdict"] == before["verdict"], "as in the committed results; `make soak` makes them again"


def test_the_committed_results_are_true_and_of_this_code(committed: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ORACLE))
    import depends

    assert not [row for row in committed["rows"] if (row["truth"], row["verdict"]) in WRONG]
    assert len(committed["rows"]) == 30 * 5 * 2, "30 networks, 5 seeds, with labels and without"
    files = depends.digests()
    changed = sorted(path for path in {*files, *committed["files"]} if files.get(path) != committed["files"].get(path))
    assert not changed, "these have changed since: `make soak` makes the results again"
