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
from edgekd.results.models import ModelRecord
from edgekd.results.profile import Effective
from edgekd.results.run import read_run
from edgekd.results.runtime import Delegate, FloatOperation
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
    used = {"runtime": "r", "threads": 1, "precision": "int8", "delegate": "none"}
    profile = {
        "model": "onnx", "device": "pi4", "trust": trust, "effective": used,
        "attempts": [{"reasons": ["it was hot"], "cooled_s": 3.0}],
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
        "comparisons": [{"model": "onnx", "before": "a", "device": "pi4", "way": "one session", "verdict": "refused",
                         "reasons": ["it was hot"]}],
        "findings": ["The outputs of onnx on pi4 differ from those of the same file on the host: p99.", "Kept."],
    }  # fmt: skip
    found = upgrade.run(value, "run.json")
    assert [one["figures"]["text"] for one in found["findings"]] == ["Kept."]
    (made,) = found["profiles"]
    said = {"code": "text", "severity": "note", "where": ""}
    assert made["trust"]["reasons"] == [said | {"figures": {"text": "it drifted"}}]
    assert found["comparisons"][0]["reasons"] == [said | {"figures": {"text": "it was hot"}}]
    assert made["attempts"][0]["reasons"] == [said | {"figures": {"text": "it was hot"}}]
    assert made["outputs"][0]["differs"] == [said | {"figures": {"text": "p99 is 5 LSB"}}]
    assert made["accuracy"] == {"metric": "top1", "n": 10, "value": 0.8, "host": 0.9}
    figures = [from_json(Missing, one) for one in found["not_measured"]]
    assert notes(figures) == lacking
    assert [one.what for one in figures] == ["", "", "single operations"]
    assert {(one.model, one.device) for one in figures[1:]} == {("onnx", "pi4")}
    assert figures[1].reason.code == UNFIT


EFFECTIVE = {
    ("int8", "CPUExecutionProvider 9 of 9 operations"): Effective(
        "r", 1, {"int8": 0}, (Delegate("CPUExecutionProvider", 9, 9),)
    ),
    ("int8 12, float32 2 of 14 operations", "XNNPACK 12 of 14 operations in 1 part"): Effective(
        "r", 1, {"int8": 12, "float32": 2}, (Delegate("XNNPACK", 12, 14, 1),)
    ),
    ("float32", "A 1 of 3 operations, B 2 of 3 operations"): Effective(
        "r", 1, {"float32": 0}, (Delegate("A", 1, 3), Delegate("B", 2, 3))
    ),
    ("int8", "none"): Effective("r", 1, {"int8": 0}, ()),
    ("unknown", "none told"): Effective("r", 1),
    ("unknown", "GPU, part of the operations; XNNPACK, for an unknown number of operations"): Effective(
        "r", 1, {}, (Delegate("GPU", whole=False), Delegate("XNNPACK"))
    ),
    ("unknown", "XNNPACK 9 of 10 operations; GPU 1 of 10 operations"): Effective(
        "r", 1, {}, (Delegate("XNNPACK", 9, 10), Delegate("GPU", 1, 10))
    ),
    ("float32", "CPU plugin, precision hint f32"): Effective(
        "r", 1, {"float32": 0}, settings={"INFERENCE_PRECISION_HINT": "f32"}
    ),
    ("float32", "CPU plugin, precision hint f32, LP_TRANSFORMS_MODE off"): Effective(
        "r", 1, {"float32": 0}, settings={"INFERENCE_PRECISION_HINT": "f32", "LP_TRANSFORMS_MODE": "off"}
    ),
}
"""By what edgekd 0.1 wrote of the precision and the delegate."""


@pytest.mark.parametrize(("precision", "delegate"), EFFECTIVE)
def test_what_a_runtime_used_was_text(precision: str, delegate: str) -> None:
    used = {"runtime": "r", "threads": 1, "precision": precision, "delegate": delegate}
    profile = {"model": "onnx", "device": "host", "trust": {"verdict": "trusted"}, "effective": used}
    value = {"schema": 1, "recipe": {}, "models": [], "curves": [], "gates": [], "profiles": [profile]}
    (made,) = upgrade.run(value, "run.json")["profiles"]
    assert from_json(Effective, made["effective"]) == EFFECTIVE[precision, delegate]


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("body topk (%topk): no int8 rule for topk", FloatOperation("body", "topk", "topk", "no int8 rule for topk")),
        ("forward() mul (%mul_2): kept in float", FloatOperation("", "mul", "mul_2", "kept in float", asked=True)),
        ("a text of its own", FloatOperation("", "", "", "a text of its own")),
    ],
)
def test_what_is_left_in_float_was_text(text: str, made: FloatOperation) -> None:
    graph = {"runtime": "r", "operators": 9, "delegate": "XNNPACK 8 of 9 operations in 2 parts"}
    model = {
        "name": "tflite",
        "role": "artifact",
        "format": "tflite",
        "precision": "int8",
        "float_ops": [text],
        "runtime_graph": graph,
    }
    value = {"schema": 1, "recipe": {}, "models": [model], "curves": [], "gates": []}
    (found,) = upgrade.run(value, "run.json")["models"]
    record = from_json(ModelRecord, found)
    assert record.float_ops == (made,)
    assert str(made) == text
    assert record.runtime_graph is not None
    assert record.runtime_graph.delegates == (Delegate("XNNPACK", 8, 9, 2),)


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
