from dataclasses import replace

import pytest
from tests.unit.report.test_report_speed import DRIFTED, profile

from edgekd.report import best
from edgekd.results.gates import GateRecord, Limit
from edgekd.results.models import ModelRecord

MODELS = [ModelRecord(name, "artifact", name, "int8", bytes=size) for name, size in (("onnx", 2**20), ("tflite", 2**19))]
GATES = [GateRecord("accuracy_drop", name, Limit("<=", 0.01), 0.0, "pass") for name in ("onnx", "tflite")]


def told(*profiles, gates=GATES):
    return best.sentences(profiles, MODELS, gates, lambda model: f"{model.format} {model.precision}")


def peak(record, mib):
    return replace(record, memory=replace(record.memory, peak=mib))


FAST, SLOW = profile("onnx", 2.0, (1.9, 2.1)), profile("tflite", 3.0, (2.9, 3.1))


def test_the_fastest_that_passes_is_named():
    assert told(SLOW, FAST) == ("On host onnx int8 is the fastest artifact that passes the gates (p50 2 ms [1.9, 2.1]).",)


def test_an_artifact_that_fails_a_gate_of_the_device_is_not_the_best_there():
    fails = [*GATES, GateRecord("latency_p50_ms", "onnx", Limit("<=", 1), 2.0, "fail", "host", blocks=True)]
    only = "On host tflite int8 is the only artifact that passes the gates with a trusted time (p50 3 ms [2.9, 3.1])."
    assert told(FAST, SLOW, gates=fails) == (only,)
    elsewhere = [*GATES, GateRecord("latency_p50_ms", "onnx", Limit("<=", 1), 2.0, "fail", "pi4", blocks=True)]
    assert told(FAST, SLOW, gates=elsewhere)[0].startswith("On host onnx int8 is the fastest")
    none = [*GATES, *(GateRecord("top1", name, Limit(">=", 1), 0.9, "fail", blocks=True) for name in ("onnx", "tflite"))]
    assert told(FAST, SLOW, gates=none) == ("On host no artifact passes the gates, so none is called best.",)


@pytest.mark.parametrize(
    ("memory", "decided"),
    [
        (30.0, "; tflite int8 has the smallest peak memory (30 MiB against 60)"),
        (59.0, "; tflite int8 has the smallest file (0.5 MiB against 1)"),
        (None, "; tflite int8 has the smallest file (0.5 MiB against 1)"),
    ],
)
def test_overlapping_intervals_show_no_difference_and_memory_or_size_decides(memory, decided):
    close = peak(profile("tflite", 2.1, (2.05, 2.2)), memory)
    assert told(FAST, close) == (
        "On host no difference in p50 is shown between the fastest artifacts that pass the gates: onnx int8 (p50 2 ms "
        f"[1.9, 2.1]), tflite int8 (p50 2.1 ms [2.05, 2.2]){decided}.",
    )


def test_untrusted_times_are_not_ranked():
    doubted = replace(FAST, trust=DRIFTED)
    (sentence,) = told(doubted, SLOW)
    assert sentence.endswith("(p50 3 ms [2.9, 3.1]); not ranked, for untrusted times: onnx int8.")
    assert told(doubted) == ("On host no artifact is called best: no time of one that passes the gates is trusted.",)


def test_nothing_is_said_of_an_emulated_device():
    assert told(replace(FAST, emulated=True), replace(SLOW, device="pi4")) == (
        "On pi4 tflite int8 is the only artifact that passes the gates with a trusted time (p50 3 ms [2.9, 3.1]).",
    )
