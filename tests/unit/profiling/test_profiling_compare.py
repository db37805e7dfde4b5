"""Comparisons: what the intervals hold, what is refused. How often they are right is measured by tests/protocol/."""

import json
from dataclasses import replace

import numpy as np
import pytest

from edgekd.profiling import compare
from edgekd.profiling.participants import REFERENCE
from edgekd.report.sections.comparison import sentence
from edgekd.results.codec import from_json, to_json
from edgekd.results.profile import BlockState, Comparison, Effective, Latency, LoadTime, Memory, ProfileRecord, Trust

RECORD = ProfileRecord(
    model="onnx", device="pi4", emulated=False,
    effective=Effective("onnxruntime 1.32.0", 1, {"int8": 9}),
    load_ms=LoadTime(1.0, 1.0), first_ms=1.0, warmup_ms=300.0,
    latency_ms=Latency(1.0, 1.0, 1.0, 1.0, 1.0, 100, (1.0, 1.0)), memory=Memory(60.0, 50.0, 10.0),
    trust=Trust("trusted", (), 0.0, 0.0, 0.0, 0.0), blocks=(1.0,),
    reference="192x192", reference_ms=1.0, governor="ondemand", inputs="abc", states=(BlockState(50.0, 1800.0),),
)  # fmt: skip
OTHER = replace(RECORD, model="onnx_old")


def raw(path, **paces):
    """Raw samples: each model with its pace, 20 rounds that drift together by 1 % a round and scatter by 2 %."""
    rng = np.random.default_rng(0)
    with path.open("w") as log:
        for turn in range(20):
            for model, pace in paces.items():
                times = pace * (1 + 0.01 * turn) * (1 + 0.02 * rng.random(9))
                log.write(json.dumps({"model": model, "attempt": 1, "round": turn, "samples_ms": times.tolist()}) + "\n")
    return path


def test_the_sign_interval_holds_the_median_as_often_as_it_says():
    rng = np.random.default_rng(0)
    draws = rng.standard_cauchy(size=(2000, 21))  # heavy tails: what another process leaves behind
    inside = [low <= 0 <= high for low, high in (compare.sign_interval(list(draw), level=0.95) for draw in draws)]
    assert 0.95 <= np.mean(inside) <= 0.985


def test_fewer_than_eight_values_have_no_interval():
    with pytest.raises(ValueError, match="7 values have no 99% interval"):
        compare.sign_interval([1.0] * 7)


@pytest.mark.parametrize(
    ("pace", "verdict"), [(1.1, "slower"), (1.0, "no difference shown"), (1.005, "no difference shown"), (0.9, "faster")]
)
def test_rounds_of_one_session_are_compared_in_pairs(tmp_path, pace, verdict):
    found = compare.in_one_session(RECORD, OTHER, raw(tmp_path / "pi4.jsonl", onnx=pace, onnx_old=1.0))
    assert (found.verdict, found.model, found.before) == (verdict, "onnx", "onnx_old")
    assert found.low < pace < found.high
    assert found.high - found.low < 0.06
    assert from_json(Comparison, json.loads(json.dumps(to_json(found)))) == found


def test_the_last_attempt_is_compared(tmp_path):
    path = raw(tmp_path / "a.jsonl", onnx=5.0)
    path.write_text(
        path.read_text() + raw(tmp_path / "b.jsonl", onnx=1.0).read_text().replace('"attempt": 1', '"attempt": 2')
    )
    found = compare.paces(path, "onnx")
    assert len(found) == 20
    assert max(found) < 2.1


def test_too_few_rounds_are_refused(tmp_path):
    path = raw(tmp_path / "pi4.jsonl", onnx=1.0)
    found = compare.in_one_session(RECORD, OTHER, path)
    assert (found.verdict, found.ratio) == ("refused", None)
    assert list(map(sentence, found.reasons)) == ["0 rounds were measured together; at least 8 are needed"]


@pytest.mark.parametrize(
    ("pace", "reference", "verdict"),
    [
        (1.0, 1.0, "no difference shown"),
        (1.1, 1.1, "no difference shown"),  # the whole machine was slower
        (1.4, 1.1, "slower"),
        (1.15, 1.0, "no difference shown"),  # sessions differ by as much
        (1.3, 1.3, "refused"),
    ],
)
def test_two_sessions_are_scaled_by_the_reference(tmp_path, pace, reference, verdict):
    now = raw(tmp_path / "now.jsonl", **{"onnx": pace, REFERENCE: reference})
    then = raw(tmp_path / "then.jsonl", **{"onnx": 1.0, REFERENCE: 1.0})
    found = compare.over_sessions(RECORD, RECORD, now, then)
    assert found.verdict == verdict
    assert found.scaled is (verdict != "refused")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"governor": "performance"}, "governor: ondemand now, performance then"),
        ({"cores": (2, 3)}, "cores: none now, 2, 3 then"),
        ({"inputs": "random"}, "inputs: abc now, random then"),
        ({"device": "pi5"}, "device: pi4 now, pi5 then"),
        ({"effective": replace(RECORD.effective, threads=4)}, "threads: 1 now, 4 then"),
        (
            {"effective": replace(RECORD.effective, runtime="onnxruntime 1.31.0")},
            "onnxruntime 1.32.0 now, onnxruntime 1.31.0",
        ),
        ({"states": (BlockState(80.0, 1800.0, throttled=True),)}, "the device was throttled then"),
        ({"states": (BlockState(50.0, 600.0),)}, "clock: 1800 MHz now, 600 MHz then"),
    ],
)
def test_another_state_is_refused_with_the_reason(tmp_path, change, reason):
    path = raw(tmp_path / "pi4.jsonl", **{"onnx": 1.0, REFERENCE: 1.0})
    found = compare.over_sessions(RECORD, replace(RECORD, **change), path, path)
    assert found.verdict == "refused"
    assert reason in "; ".join(map(sentence, found.reasons))
    assert from_json(Comparison, json.loads(json.dumps(to_json(found)))) == found


def test_an_emulated_device_is_refused(tmp_path):
    path = raw(tmp_path / "pi4.jsonl", onnx=1.0, onnx_old=1.0)
    found = compare.in_one_session(replace(RECORD, emulated=True), OTHER, path)
    assert list(map(sentence, found.reasons)) == ["the device is emulated: its times are not the hardware's"]


def test_a_run_that_did_not_record_its_governor_is_compared(tmp_path):
    path = raw(tmp_path / "pi4.jsonl", **{"onnx": 1.0, REFERENCE: 1.0})
    assert (
        compare.over_sessions(RECORD, replace(RECORD, governor="", inputs=""), path, path).verdict == "no difference shown"
    )
