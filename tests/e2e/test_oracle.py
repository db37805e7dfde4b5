"""What edgekd says of two networks is true; `make soak` says it of thirty, with five seeds each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.e2e import warm

pytestmark = pytest.mark.e2e

ORACLE = Path(__file__).parents[1] / "oracle"
SAMPLE = {"shared": "sound", "cat": "destroyed"}
"""One of a kind, with its first seed, and what is true of it by far."""
WRONG = {("destroyed", "pass"), ("sound", "fail")}


@pytest.fixture(scope="module")
def committed() -> dict[str, Any]:
    """The results of the last soak, if they are of this code.

    They count while no file that they name has changed. After a change the tests that read them are skipped, and say why,
    until `make soak` has made them again.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ORACLE))
        import depends
    found: dict[str, Any] = json.loads((ORACLE / "results.json").read_text(encoding="utf-8"))
    changed = depends.changed(found["files"])
    if changed:
        pytest.skip(f"tests/oracle/results.json is of other code, `make soak` makes it again; changed: {', '.join(changed)}")
    return found


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What edgekd says of the sample, without the unseen images, which are no part of edgekd."""
    folder = tmp_path_factory.mktemp("oracle")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ORACLE))
        from tests.oracle import run

        patch.setattr(run, "_server", [warm.server()])
        asked = ["--networks", ",".join(SAMPLE), "--seeds", "1", "--no-truth"]
        assert run.main([*asked, "--processes", "1", "--out", str(folder)]) == 0
    found: list[dict[str, Any]] = json.loads((folder / "results.json").read_text(encoding="utf-8"))["rows"]
    return found


def test_verdicts_of_two_networks_are_true(rows: list[dict[str, Any]]) -> None:
    assert len(rows) == 2 * len(SAMPLE)
    for row in rows:
        assert (SAMPLE[row["network"]], row["verdict"]) not in WRONG, row


def test_they_are_those_of_the_soak(rows: list[dict[str, Any]], committed: dict[str, Any]) -> None:
    known = {(row["network"], row["seed"], row["look"]): row for row in committed["rows"]}
    for row in rows:
        before = known[row["network"], row["seed"], row["look"]]
        assert (before["truth"], before["verdict"]) == (SAMPLE[row["network"]], row["verdict"])


def test_the_committed_results_are_true(committed: dict[str, Any]) -> None:
    assert not [row for row in committed["rows"] if (row["truth"], row["verdict"]) in WRONG]
    assert len(committed["rows"]) == 30 * 5 * 2, "30 networks, 5 seeds, with labels and without"
