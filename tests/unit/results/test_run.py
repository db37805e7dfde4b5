from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from edgekd import writes
from edgekd.errors import UsageError
from edgekd.results.codec import from_json, to_json
from edgekd.results.fidelity import Figure
from edgekd.results.findings import Finding, Missing, said
from edgekd.results.gates import GateRecord, Limit
from edgekd.results.models import Estimate, FilePort, MetricFacts, Metrics, ModelRecord, OutputParity, Parity, TaskFacts
from edgekd.results.profile import Effective, Latency, LoadTime, Memory, ProfileRecord, Trust
from edgekd.results.run import Curve, DataRecord, RunResult, StageRecord, read_run, reported, write_run
from edgekd.results.runtime import Delegate, FloatOperation
from edgekd.results.upgrade import SCHEMA

TOOK = Delegate("XNNPACK", 8, 9, 2), Delegate("GPU", whole=False)
USED = Effective("onnxruntime", 1, {"int8": 9}, TOOK, {"HINT": "f32"}, 4)
RESULT = RunResult(
    schema=SCHEMA,
    edgekd="0.1.0",
    name="mobilenet",
    run="0001-abcdef12",
    created="2025-01-01T00:00:00+00:00",
    command="edgekd run 'a b/recipe.lock.yaml'",
    verdict="fail",
    recipe={"edgekd": 1, "teacher": None, "distill": {"losses": [{"kind": "kd"}]}},
    data=DataRecord("fashion-mnist-mini", "ff", ("T-shirt/top", "Ankle boot"), 9000, 1000, 2000, 32, 3, (0.2861,), (0.35,)),
    stages=(StageRecord("distill", "ran", "aa", 1.5), StageRecord("quantize", "cached", "bb", 0.0)),
    models=(
        ModelRecord(
            name="onnx", role="artifact", format="onnx", precision="int8", path="artifacts/onnx.onnx", bytes=12,
            metrics=(
                Metrics("test", 2000, {"top1": Estimate(0.875, 0.86, 0.89), "loss": Estimate(0.4)}),
                Metrics("val", 1000, {"top1": Estimate(0.0)}),
            ),
            parity=Parity("qat", 2000, {"logits": OutputParity(0.01, None, 0.998, 0, 0.1, 1.0, 2.0)}),
            float_ops=(FloatOperation("head", "mean", "mean_1", "has no int8 kernel", asked=True),), float_tensors=(),
            inputs=(FilePort("input", (1, 3, 32, 32), "int8", "NCHW", 0.02, 0),),
        ),
        ModelRecord(name="teacher", role="teacher", format="torch", precision="float32"),
    ),
    curves=(
        Curve(
            "distilled", {"kd": (1.0, 0.5), "fitnet": (2.0, 1.0)}, {"top1": (0.5, 0.6)}, {"top1": (0.4, 0.7)}, (0.1, 0.0),
            1, 3.5, ("a ← b",),
        ),
    ),
    profiles=(
        ProfileRecord(
            "onnx", "host", False, USED, LoadTime(9.0, 5.0), 4.0, 300.0,
            Latency(2.0, 3.0, 4.0, 1.0, 2.5, 100, (1.9, 2.1)), Memory(80.0, 60.0, 20.0),
            Trust("untrusted", (Finding("drift", "warning", figures={"change": 0.2}),), 0.2, 0.1, 0.0, 1.5), (2.0, 2.1, 2.4),
        ),
    ),
    gates=(
        GateRecord("top1", "onnx", Limit(">=", 0.9), 0.875, "fail", blocks=True),
        GateRecord("latency_p50_ms", "onnx", Limit("<=", 9.0), device="pi4", blocks=True),
    ),
    environment={"cpu": "x", "packages": {"torch": "2.13.0"}},
    task=TaskFacts("image-classification", (MetricFacts("top1", "top-1", "%", "higher"),)),
    findings=(said("int8 is not faster"),),
    snippets={"onnx": "import onnxruntime\n"},
    not_measured=(Missing(Finding("no_power_meter")),),
)  # fmt: skip


def test_round_trip(tmp_path: Path) -> None:
    write_run(RESULT, tmp_path / "run.json")
    assert read_run(tmp_path) == RESULT
    assert read_run(tmp_path / "run.json") == RESULT


def test_types_survive(tmp_path: Path) -> None:
    """Equality holds for 1 and 1.0, and for nothing else that JSON loses."""

    def kinds(value: Any) -> Any:
        if dataclasses.is_dataclass(value):
            return type(value), [kinds(getattr(value, field.name)) for field in dataclasses.fields(value)]
        return type(value), [kinds(part) for part in value] if isinstance(value, tuple) else None

    write_run(RESULT, tmp_path / "run.json")
    assert kinds(read_run(tmp_path)) == kinds(RESULT)


def test_what_was_not_measured_is_absent_and_a_zero_is_there(tmp_path: Path) -> None:
    value = json.loads(write_run(RESULT, tmp_path / "run.json").read_text(encoding="utf-8"))
    teacher, artifact = value["models"][1], value["models"][0]
    assert "bytes" not in teacher
    assert "parity" not in teacher
    assert "measured" not in value["gates"][1]
    assert artifact["metrics"][1]["values"] == {"top1": {"value": 0.0}}
    assert artifact["float_tensors"] == []
    assert artifact["inputs"][0]["zero_point"] == 0
    assert value["recipe"]["teacher"] is None  # the recipe is kept as it was written


def test_text_is_readable_in_the_file(tmp_path: Path) -> None:
    assert '"a ← b"' in write_run(RESULT, tmp_path / "run.json").read_text(encoding="utf-8")


def test_not_a_number_is_not_written(tmp_path: Path) -> None:
    """NaN is no JSON: other tools could not read the file."""
    with pytest.raises(ValueError, match="JSON"):
        write_run(dataclasses.replace(RESULT, environment={"load": float("nan")}), tmp_path / "run.json")


def test_a_field_of_a_later_version_is_passed_over() -> None:
    value = to_json(RESULT.stages[0]) | {"watts": 3}
    assert from_json(StageRecord, value) == RESULT.stages[0]


def test_look_ups() -> None:
    onnx = RESULT.model("onnx")
    assert onnx is not None
    assert onnx.figure("top1") == Figure(0.875, 2000, 0.86, 0.89)
    assert onnx.figure("top1", split="val") == Figure(0.0, 1000)
    assert onnx.figure("top5") is None
    assert RESULT.model("tflite") is None
    assert RESULT.models[1].measured() is None


def error_of(path: Path) -> str:
    with pytest.raises(UsageError) as caught:
        read_run(path)
    return str(caught.value)


def test_no_run_there(tmp_path: Path) -> None:
    hint = "\n  → give a run folder, such as reports/mobilenet/latest"
    assert error_of(tmp_path) == f"{tmp_path}/run.json does not exist{hint}"
    assert error_of(tmp_path / "no") == f"{tmp_path}/no does not exist{hint}"


def test_another_schema(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"schema": 99}')
    newer = "install a newer edgekd"
    assert error_of(tmp_path) == f"{tmp_path}/run.json has schema 99; this edgekd reads 1 to 2\n  → {newer}"


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"{}", b'{"schema": 1}', b"\xff\xfe", b'{"schema": 1, "stages": "abc"}',
     b'{"schema": 1, "data": {"source": "x"}}', b'{"schema": 1, "models": [{"parity": []}]}'],
)  # fmt: skip
def test_what_is_no_run(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "run.json").write_bytes(content)
    text = error_of(tmp_path)
    assert text.startswith(f"{tmp_path}/run.json is not a run.json: ")
    assert text.endswith("\n  → run the recipe again")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("[]", "its JSON is no object"),
        ('{"schema": true}', "has the schema true, which is no whole number"),
        ('{"schema": "2"}', 'has the schema "2", which is no whole number'),
        ('{"schema": 0}', "has schema 0; this edgekd reads 1 to 2"),
    ],
)
def test_a_schema_that_is_none(tmp_path: Path, content: str, told: str) -> None:
    (tmp_path / "run.json").write_text(content)
    assert told in error_of(tmp_path)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"verdict": "maybe"}, 'verdict is "maybe", and has to be pass, '),
        ({"models": {}}, "models is an object, and has to be a list"),
        ({"models": [3]}, "models[0] is 3, and has to be an object"),
        ({"name": 3}, "name is 3, and has to be text"),
        ({"models": [{"name": "x"}]}, "'models[0]."),
    ],
)
def test_a_wrong_value_is_told_with_its_place(tmp_path: Path, change: dict[str, object], told: str) -> None:
    path = write_run(RESULT, tmp_path / "run.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    assert f"is not a run.json: {told}" in error_of(path)


def test_a_byte_order_mark_is_read_over(tmp_path: Path) -> None:
    path = write_run(RESULT, tmp_path / "run.json")
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert read_run(path) == RESULT


def test_a_result_has_its_name_when_its_reports_are_written(tmp_path: Path) -> None:
    """So a verdict never stands alone; and the reports can be made later."""
    with pytest.raises(OSError, match="full"), reported(RESULT, tmp_path):
        raise OSError("full")
    assert [path.name for path in tmp_path.iterdir()] == ["unreported-run.json"]
    with pytest.raises(UsageError) as caught:
        read_run(tmp_path)
    assert "its report could not be written" in caught.value.message
    assert f"edgekd report {tmp_path}" in str(caught.value.hint)
    with writes.completing(tmp_path / "run.json") as file:
        assert read_run(file) == RESULT
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]
    assert read_run(tmp_path) == RESULT
