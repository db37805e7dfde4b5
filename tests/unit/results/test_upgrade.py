"""Records of earlier schemas are read: real files of edgekd 0.1, kept in tests/old."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from edgekd.cli import cli
from edgekd.errors import UsageError
from edgekd.report import facts
from edgekd.results import upgrade
from edgekd.results.gates import Limit
from edgekd.results.run import read_run
from edgekd.results.study import read_study

OLD = Path(__file__).parents[2] / "old"
RUNS = sorted(path.parent.name for path in OLD.glob("*/run.json"))


@pytest.mark.parametrize("name", RUNS)
def test_the_report_of_an_old_run(name: str, tmp_path: Path) -> None:
    folder = shutil.copytree(OLD / name, tmp_path / name)
    done = CliRunner().invoke(cli, ["report", str(folder)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert "<h1" in (folder / "report.html").read_text(encoding="utf-8")


def test_the_report_of_an_old_study(tmp_path: Path) -> None:
    folder = shutil.copytree(OLD / "study", tmp_path / "study")
    done = CliRunner().invoke(cli, ["report", str(folder)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert "Student alone   1–3      2         78.05 ± 1.20" in done.output
    assert (folder / "report.html").is_file()
    (folder / "study.json").write_text('{"schema": 2}')
    with pytest.raises(UsageError, match=r"study\.json is not a study\.json: "):
        read_study(folder / "study.json")


def test_facts_of_an_old_run() -> None:
    """What was text is facts now, with the same words."""
    result = read_run(OLD / "run")
    assert result.schema == upgrade.SCHEMA
    onnx, twin = result.model("onnx"), result.model("onnx_float")
    assert onnx is not None
    assert twin is not None
    assert (onnx.precision, onnx.weight_bits) == ("int8", 8)
    assert facts.precision(onnx) == "int8 (8-bit weights)"
    assert (twin.precision, twin.twin_of) == ("float32", "onnx")
    drop = next(gate for gate in result.gates if gate.name == "accuracy_drop")
    assert (drop.limit, drop.blocks) == (Limit("<=", 0.02), False)


def test_a_limit_that_was_text_alone() -> None:
    """Gates of the earliest files: no parts of the limit, and no word of whether they end the run."""
    gate = {"name": "top1", "model": "onnx", "limit": ">= 0.9", "measured": 0.8, "verdict": "fail"}
    value = {"schema": 1, "recipe": {}, "models": [], "curves": [], "gates": [gate]}
    assert upgrade.run(value, "run.json")["gates"] == [
        {"name": "top1", "model": "onnx", "measured": 0.8, "verdict": "fail", "limit": {"op": ">=", "value": 0.9},
         "blocks": True},
    ]  # fmt: skip


@pytest.mark.parametrize(("version", "hint"), [(3, "newer"), ("x", "again"), (0, "again")])
def test_other_versions_are_refused(version: object, hint: str) -> None:
    for read in (upgrade.run, upgrade.study, upgrade.manifest):
        with pytest.raises(UsageError) as caught:
            read({"schema": version}, "F.json")
        assert hint in str(caught.value)
        assert f"F.json has schema {version}; this edgekd reads 1 to 2" in str(caught.value)
