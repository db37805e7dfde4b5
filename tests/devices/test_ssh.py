"""The transport over a real OpenSSH server: what works."""

from __future__ import annotations

from pathlib import Path

from edgekd.devices.schema import Device
from edgekd.profiling.measured import Variant
from edgekd.profiling.session import measure
from edgekd.recipe import Profile

QUICK = Profile(devices=("pi4",), blocks=3, block_runs=3, block_ms=10, warmup_runs=1, warmup_ms=0)


def test_all_formats_are_measured(pi4: Device, nets: Path, tmp_path: Path) -> None:
    files = {"onnx": "int8.onnx", "tflite": "float.tflite", "openvino": "float.xml"}
    session = measure([Variant(kind, kind, nets / file) for kind, file in files.items()], QUICK, pi4, tmp_path)
    assert session.failures == ()
    runtimes = {record.model: record.effective.runtime.split()[0] for record in session.profiles}
    assert runtimes == {"onnx": "onnxruntime", "tflite": "ai-edge-litert", "openvino": "openvino"}
    for record in session.profiles:
        assert record.emulated
        assert "emulated" in " ".join(record.trust.reasons)
        assert record.latency_ms.n >= 9
        assert record.load_ms.cold > 0
