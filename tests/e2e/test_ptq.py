"""A run without int8 training: calibrated, corrected, rounded, exported and proven as a trained one is."""

from __future__ import annotations

import json
import runpy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tests.e2e.conftest import Cli

from edgekd.results.run import read_run

pytestmark = pytest.mark.e2e

NET = """\
from torch import nn


def block(a, b, groups, stride):
    return nn.Sequential(nn.Conv2d(a, b, 3, stride, 1, groups=groups, bias=False), nn.BatchNorm2d(b), nn.ReLU6())


def Net(num_classes):
    return nn.Sequential(
        block(3, 16, 1, 2), block(16, 16, 16, 2), nn.Conv2d(16, 32, 1), nn.ReLU6(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, num_classes),
    )
"""

RECIPE = """\
edgekd: 1
data: {source: npz:data.npz, image_size: 16, val_fraction: 0.2}
student: {model: net.py:Net}
distill: {epochs: 2, lr: 0.02, losses: [{kind: task}]}
quantize: {method: ptq, calibration_images: 1000, equalize: true, adaround: {steps: 20}}
export: [onnx, tflite, openvino]
"""


def test_a_run_with_calibration_alone(tmp_path: Path, small_data: Callable[[Path, int, int], None]) -> None:
    small_data(tmp_path / "data.npz", 800, 300)
    (tmp_path / "net.py").write_text(NET)
    (tmp_path / "ptq.yaml").write_text(RECIPE)
    cli = Cli(tmp_path, tmp_path / "cache")
    done = cli("run", "ptq.yaml", "--set", "gates.accuracy_drop.max=0.05")
    assert "ranges by minmax from 640 training images (all there are)" in done.stderr
    assert "2 pairs of layers equalized" in done.stderr
    assert "biases of 4 layers corrected" in done.stderr

    result = read_run(tmp_path / "reports" / "ptq" / "latest")
    assert result.verdict == "pass"
    int8, student = result.model("ptq"), result.model("distilled")
    assert int8 is not None
    assert student is not None
    assert {metrics.split for metrics in int8.metrics} == {"val", "test"}
    assert int8.precision.startswith("int8")
    assert (int8.params, int8.macs) == (student.params, student.macs)
    for name in ("onnx", "tflite", "openvino"):
        model = result.model(name)
        assert model is not None
        assert model.source == "ptq"
        assert model.parity is not None
        assert model.parity.reference == "ptq"
        assert model.parity.agreement >= 0.995
        assert model.float_tensors == ()
    assert "qat" not in {curve.model for curve in result.curves}

    folder = tmp_path / "reports" / "ptq" / "latest"
    for page in ("report.md", "report.html", "artifacts/MODEL_CARD.md"):
        text = (folder / page).read_text(encoding="utf-8")
        assert "PTQ int8 (torch)" in text, page
        assert "post-training quantization" in text, page
        assert "quantization-aware" not in text, page
        assert "QAT int8" not in text, page

    steps = json.loads(cli("plan", "ptq.yaml", "--set", "quantize.observer=mse", "--json").stdout)
    planned = {step["stage"]: (step["status"], step["reason"]) for step in steps}
    assert planned["distill"][0] == "cached"
    assert planned["quantize"] == ("run", "quantize.observer minmax → mse")
    replayed = json.loads(cli("plan", str(folder / "recipe.lock.yaml"), "--json").stdout)
    assert {step["status"] for step in replayed if step["stage"] != "package"} == {"cached"}


def test_learned_scales_and_the_float_student_as_teacher(
    tmp_path: Path, small_data: Callable[[Path, int, int], None]
) -> None:
    small_data(tmp_path / "data.npz", 800, 300)
    (tmp_path / "net.py").write_text(NET)
    (tmp_path / "qat.yaml").write_text(RECIPE)
    cli = Cli(tmp_path, tmp_path / "cache")
    quantize = "quantize={epochs: 1, learn_scales: true, self_distill: true}"
    cli("run", "qat.yaml", "--set", quantize, "--set", "export=[onnx]", "--set", "gates.accuracy_drop.max=0.05")
    result = read_run(tmp_path / "reports" / "qat" / "latest")
    assert result.verdict == "pass"
    model = result.model("onnx")
    assert model is not None
    assert model.parity is not None
    assert model.parity.reference == "qat"
    (curve,) = [curve for curve in result.curves if curve.model == "qat"]
    assert set(curve.terms) == {"kd"}
    card = (tmp_path / "reports" / "qat" / "latest" / "artifacts" / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "with the float student as its teacher" in card


LOUD = """\
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU())
        self.body = nn.Sequential(nn.Conv2d(16, 24, 3, 2, 1), nn.ReLU())
        self.mix = nn.Sequential(nn.Conv2d(27, 32, 1), nn.ReLU())
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, num_classes))
        self.mix[0].weight.data[:, 24:] = 0

    def forward(self, x, loud=3000.0):
        y = self.body(self.stem(x))
        return self.head(self.mix(torch.cat([y, loud * x[:, :, ::4, ::4]], 1)))
"""

REPAIR = """\
edgekd: 1
data: {source: npz:data.npz, image_size: 28, val_fraction: 0.2}
student: {model: net.py:Net, weights: trained.safetensors}
distill: {epochs: 1, lr: 1.0e-7, weight_decay: 0, losses: [{kind: task}]}
baselines: []
quantize: {method: ptq, keep_float: auto}
export: [onnx, tflite]
profile: {blocks: 3, block_ms: 5, block_runs: 5, warmup_ms: 5}
gates: {accuracy_drop: {max: 0.05}}
"""


def train(folder: Path) -> None:
    """Leave trained weights of ``net.py``, with the loud channels off while it learns."""
    torch.manual_seed(0)
    net = runpy.run_path(str(folder / "net.py"))["Net"](10)
    with np.load(folder / "data.npz") as data:
        x = torch.from_numpy(data["x_train"]).float().div(255).sub(0.28).div(0.35)[:, None].expand(-1, 3, -1, -1)
        y = torch.from_numpy(data["y_train"]).long()
    optimizer = torch.optim.Adam(net.parameters(), 0.005)
    for _ in range(8):
        for batch in torch.randperm(len(x)).split(50):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(net(x[batch], 0.0), y[batch]).backward()
            optimizer.step()
    save_file(net.state_dict(), folder / "trained.safetensors")


def test_a_run_that_gives_layers_back_to_float(tmp_path: Path, small_data: Callable[[Path, int, int], None]) -> None:
    """Three channels of a concatenation are a thousand times as large as the rest, which int8 rounds to nothing."""
    small_data(tmp_path / "data.npz", 1600, 300)
    (tmp_path / "net.py").write_text(LOUD)
    train(tmp_path)
    (tmp_path / "r.yaml").write_text(REPAIR)
    cli = Cli(tmp_path, tmp_path / "cache")
    done = cli("run", "r.yaml")
    result = read_run(tmp_path / "reports" / "r" / "latest")
    repair = result.repair
    assert repair is not None, done.stderr
    assert repair.before < repair.limit <= repair.after
    assert repair.limit == pytest.approx(repair.reference - 0.05)
    assert 0 < len(repair.layers) < repair.candidates
    assert {(cost.model, cost.device) for cost in repair.costs} == {("onnx", "host"), ("tflite", "host")}
    for cost in repair.costs:
        model = result.model(cost.model)
        assert model is not None
        assert model.parity is not None
        assert model.bytes == cost.bytes
        assert model.float_ops
        assert model.parity.agreement == 1.0
        assert cost.p50
        assert cost.p50_int8
        assert model.metrics[0].values["top1"].value >= repair.limit - 0.08, (
            "what was decided on validation holds on the test split"
        )
    assert not list((tmp_path / "reports" / "r" / "latest" / "artifacts").glob("*all_int8*")), "measured, not shipped"
    assert result.verdict == "pass"
