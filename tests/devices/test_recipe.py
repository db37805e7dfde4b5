"""A recipe for this machine, a board and a phone without Python, from the command line to its report."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import yaml
from tests.devices.conftest import PROGRAM, android
from tests.devices.phone import Phone
from tests.e2e.warm import Server

from edgekd.devices.schema import Device
from edgekd.resources import find
from edgekd.results.run import read_run

NET = """\
from torch import nn


def Net(num_classes):
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, num_classes),
    )
"""
RECIPE = """\
edgekd: 1
data: {source: npz:data.npz, image_size: 32}
student: {model: net.py:Net}
baselines: []
distill: {epochs: 1, lr: 0.01, losses: [{kind: task}]}
quantize: {method: ptq, calibration_images: 200}
export: [tflite]
profile: {devices: [host, pi4, phone], blocks: 3, block_runs: 2, block_ms: 1, warmup_runs: 1, warmup_ms: 0}
gates:
  latency_p50_ms:
    - {max: 10000, device: host, level: warn}
    - {max: 10000, device: pi4}
    - {max: 10000, device: phone, formats: [tflite]}
"""
FILES = {"tflite", "tflite_float", "onnx_float"}
SIZES = {"train": 1500, "test": 300}
ON_PHONE = {"tflite", "tflite_float"}
"""What benchmark_model runs."""


def test_a_recipe_for_three_devices_runs_whole(pi4: Device, test_phone: Phone, tmp_path: Path) -> None:
    with np.load(find("assets", "fashion-mnist-mini/images.npz")) as stored:
        few = {f"{part}_{split}": stored[f"{part}_{split}"][:number] for part in "xy" for split, number in SIZES.items()}
        np.savez(tmp_path / "data.npz", classes=stored["classes"], **few)
    (tmp_path / "net.py").write_text(NET)
    (tmp_path / "three.yaml").write_text(RECIPE)
    (tmp_path / "devices").mkdir()
    phone = android(test_phone, agent="benchmark_model", benchmark_model=PROGRAM)
    for item in (pi4, phone):
        text = yaml.safe_dump(item.model_dump(mode="json", exclude_unset=True))
        (tmp_path / "devices" / f"{item.name}.yaml").write_text(text)
    server, environment = Server(), {**os.environ, "EDGEKD_CACHE": str(tmp_path / "cache")}
    code, _, told = server.run(["run", "three.yaml"], tmp_path, environment, tmp_path)
    server.close()
    assert code == 1, f"an emulated device passes no gate of latency\n{told}"
    folder = tmp_path / "reports" / "three" / "latest"
    result = read_run(folder)
    assert {(record.device, record.model) for record in result.profiles} == {
        (device, model) for device in ("host", "pi4", "phone") for model in (ON_PHONE if device == "phone" else FILES)
    }
    for record in result.profiles:
        assert record.emulated is (record.device != "host")
        assert record.outputs, f"{record.model} on {record.device}"
        assert not [found.differs for found in record.outputs if found.differs], record.model
    assert [found.name for found in result.devices] == ["host", "pi4", "phone"]
    verdicts = {gate.device: gate.verdict for gate in result.gates if gate.name == "latency_p50_ms"}
    assert verdicts["pi4"] == verdicts["phone"] == "emulated"
    assert verdicts["host"] in ("pass", "untrusted")
    page = (folder / "report.html").read_text()
    assert "EMULATED" in page
    assert all(f"on {name}" in page for name in ("host", "pi4", "phone"))
