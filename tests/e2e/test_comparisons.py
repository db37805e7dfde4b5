"""Three sessions of the study of comparisons; `make soak` makes a hundred."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.e2e

STUDY = Path(__file__).parents[1] / "protocol"
SESSIONS = 3


@pytest.fixture(scope="module")
def summary() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(STUDY))
        import summary
    return summary


def test_three_sessions_are_judged_as_those_of_the_soak(summary: Any, tmp_path: Path) -> None:
    """A chance of 1 % each: that two of three call the same file another, or that no one sees 10 %, does not happen."""
    command = [sys.executable, str(STUDY / "run.py"), "--sessions", str(SESSIONS), "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (tmp_path / "results.json").is_file(), done.stderr
    rows = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))["rows"]
    same, slower = (summary.counts(rows, way) for way in ("same", "slower"))
    assert sum(same.values()) == SESSIONS
    assert same["slower"] + same["faster"] <= 1
    assert slower["slower"] >= 1
    assert slower["faster"] <= 1
    assert f"| 10 % more to compute, in one session | slower, 80% at least | {SESSIONS} |" in done.stdout


def test_the_committed_results_meet_their_goals(summary: Any) -> None:
    """They count while no file that they name has changed; after a change this is skipped until `make soak` has run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(STUDY.parent / "oracle"))
        import depends
    found = json.loads((STUDY / "results.json").read_text(encoding="utf-8"))
    changed = depends.changed(found["files"], summary.PATTERNS)
    if changed:
        names = ", ".join(changed)
        pytest.skip(f"tests/protocol/results.json is of other code, `make soak` makes it again; changed: {names}")
    assert len(found["rows"]) == 100
    assert summary.missed(found["rows"]) == []
