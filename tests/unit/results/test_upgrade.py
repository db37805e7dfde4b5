"""Records of earlier schemas are read: real files of edgekd 0.1, kept in tests/old."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from tests.words import notes

from edgekd.cli import cli
from edgekd.errors import UsageError
from edgekd.report import facts
from edgekd.results import upgrade
from edgekd.results.codec import from_json
from edgekd.results.findings import UNFIT, Missing
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


def test_texts_of_a_measurement_become_facts() -> None:
    """What the report makes anew of records is left out; what was not measured is placed at its file and device."""
    trust = {"verdict": "untrusted", "reasons": ["it drifted"], "drift": 0.2, "spread": 0.1}
    profile = {
        "model": "onnx", "device": "pi4", "trust": trust, "attempts": [{"reasons": ["it was hot"], "cooled_s": 3.0}],
        "outputs": [{"reference": "host", "n": 8, "max_error": 1.0, "cosine": 0.9, "differs": "p99 is 5 LSB"}],
        "accuracy": {"n": 10, "top1": 0.8, "host_top1": 0.9},
    }  # fmt: skip
    lacking = [
        "energy: no power meter is read",
        "onnx on pi4: not applicable: benchmark_model runs .tflite files only",
        "single operations of onnx on pi4: no times",
    ]
    value = {
        "schema": 1, "recipe": {}, "models": [{"name": "onnx", "role": "artifact", "precision": "as it is"}], "curves": [],
        "gates": [], "profiles": [profile], "not_measured": lacking,
        "findings": ["The outputs of onnx on pi4 differ from those of the same file on the host: p99.", "Kept."],
    }  # fmt: skip
    found = upgrade.run(value, "run.json")
    assert [one["figures"]["text"] for one in found["findings"]] == ["Kept."]
    (made,) = found["profiles"]
    said = {"code": "text", "severity": "note", "where": ""}
    assert made["trust"]["reasons"] == [said | {"figures": {"text": "it drifted"}}]
    assert made["attempts"][0]["reasons"] == [said | {"figures": {"text": "it was hot"}}]
    assert made["outputs"][0]["differs"] == [said | {"figures": {"text": "p99 is 5 LSB"}}]
    assert made["accuracy"] == {"metric": "top1", "n": 10, "value": 0.8, "host": 0.9}
    figures = [from_json(Missing, one) for one in found["not_measured"]]
    assert notes(figures) == lacking
    assert [one.what for one in figures] == ["", "", "single operations"]
    assert {(one.model, one.device) for one in figures[1:]} == {("onnx", "pi4")}
    assert figures[1].reason.code == UNFIT


def test_a_limit_that_was_text_alone() -> None:
    """Gates of the earliest files: no parts of the limit, and no word of whether they end the run."""
    gate = {"name": "top1", "model": "onnx", "limit": ">= 0.9", "measured": 0.8, "verdict": "fail"}
    value = {"schema": 1, "recipe": {}, "models": [], "curves": [], "gates": [gate]}
    assert upgrade.run(value, "run.json")["gates"] == [
        {"name": "top1", "model": "onnx", "measured": 0.8, "verdict": "fail", "limit": {"op": ">=", "value": 0.9},
         "blocks": True},
    ]  # fmt: skip


@pytest.mark.parametrize(("version", "hint"), [(3, "newer"), (0, "again")])
def test_other_versions_are_refused(version: object, hint: str) -> None:
    for read in (upgrade.run, upgrade.study, upgrade.manifest):
        with pytest.raises(UsageError) as caught:
            read({"schema": version}, "F.json")
        assert hint in str(caught.value)
        assert f"F.json has schema {version}; this edgekd reads 1 to 2" in str(caught.value)
