"""A whole session on a board over SSH."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from tests.devices.lab import Pi
from tests.words import doubts

from edgekd.devices.schema import Device
from edgekd.profiling.session import measure
from edgekd.profiling.variant import Variant
from edgekd.recipe.profile import Profile

QUICK = Profile(devices=("pi4",), blocks=3, block_runs=3, block_ms=10, warmup_runs=1, warmup_ms=0)


def test_all_formats_are_measured_and_one_that_crashes_stops_no_other(
    pi4: Device, pi4_board: Pi, nets: Path, tmp_path: Path
) -> None:
    def crash(what: str, done: int, total: int) -> None:
        if what == "block 2/3 unlucky":
            os.kill(pi4_board.programs("agent.pyz")[3], signal.SIGSEGV)

    files = {"onnx": "int8.onnx", "tflite": "float.tflite", "openvino": "float.xml"}
    variants = [Variant(kind, kind, nets / file) for kind, file in files.items()]
    variants.append(Variant("unlucky", "onnx", nets / "float.onnx"))
    session = measure(variants, QUICK, pi4, tmp_path, crash)
    (failure,) = session.failures
    assert failure.model == "unlucky"
    assert "the runtime died with SIGSEGV while measuring" in failure.reason
    runtimes = {record.model: record.effective.runtime.split()[0] for record in session.profiles}
    assert runtimes == {"onnx": "onnxruntime", "tflite": "ai-edge-litert", "openvino": "openvino"}
    for record in session.profiles:
        assert record.emulated
        assert "emulated" in " ".join(doubts(record.trust.reasons))
        assert record.latency_ms.n >= 9
        assert record.load_ms.cold > 0
