"""Networks that int8 destroys, as their owner would quantize them: the verdict, its cause, and what to type."""

from __future__ import annotations

import json
import runpy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from tests.e2e.conftest import Cli
from torch import nn

from edgekd.devices import schema, targets
from edgekd.report import verdict
from edgekd.results.run import RunResult, read_run

pytestmark = pytest.mark.e2e

# Two branches of ranges 5 and 200 in one concatenation: int8 has one scale for both.
RANGES = """\
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, num_classes=10):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU(),
            nn.Conv2d(16, 24, 3, 2, 1), nn.BatchNorm2d(24), nn.ReLU(),
        )
        self.loud = nn.Conv2d(3, 4, 3, 4, 1)
        self.head = nn.Linear(28, num_classes)

    def forward(self, x):
        y = torch.cat([self.body(x), self.loud(x) * 255.0], 1).mean((2, 3))
        return self.head(y * torch.cat([y.new_ones(24), y.new_full((4,), 1 / 255)]))
"""
# Generalized-mean pooling: each layer is fine at its own output, and a root makes small errors of the mean large ones.
ROOT = """\
import torch
import torch.nn.functional as F
from torch import nn


class Net(nn.Module):
    def __init__(self, num_classes=10):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU(),
            nn.Conv2d(16, 32, 3, 2, 1), nn.BatchNorm2d(32), nn.ReLU(),
        )
        self.head = nn.Linear(32, num_classes)

    def forward(self, x):
        y = F.avg_pool2d(self.body(x).clamp(min=1e-6).pow(4.0), 7).flatten(1)
        return self.head(y.pow(0.25))
"""
NETS = {"ranges": RANGES, "root": ROOT}
RECIPE = """\
edgekd: 1
data: {{source: npz:data.npz, image_size: 28, val_fraction: 0.2, mean: [0.28], std: [0.35]}}
student: {{model: {name}.py:Net, weights: {name}.safetensors}}
quantize: {{method: ptq, weight_bits: {bits}}}
export: [onnx]
"""


def train(folder: Path, name: str) -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    net: nn.Module = runpy.run_path(str(folder / f"{name}.py"))["Net"]()
    with np.load(folder / "data.npz") as data:
        x = torch.from_numpy(data["x_train"]).float().div(255).sub(0.28).div(0.35)[:, None].expand(-1, 3, -1, -1)
        y = torch.from_numpy(data["y_train"]).long()
    optimizer = torch.optim.AdamW(net.parameters(), 0.005)
    for _ in range(6):
        for batch in torch.randperm(len(x)).split(50):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x[batch]), y[batch]).backward()
            optimizer.step()
    save_file(net.state_dict(), folder / f"{name}.safetensors")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, small_data: Callable[[Path, int, int], None]) -> Cli:
    folder = tmp_path_factory.mktemp("verdicts")
    small_data(folder / "data.npz", 2000, 1000)
    for name, text in NETS.items():
        (folder / f"{name}.py").write_text(text)
        (folder / f"{name}.yaml").write_text(RECIPE.format(name=name, bits=targets.weight_bits_for([schema.load("host")])))
        train(folder, name)
    return Cli(folder, folder / "cache")


def run(cli: Cli, name: str, *changes: str, code: int | None) -> tuple[RunResult, str]:
    sets = [part for change in changes for part in ("--set", change)]
    done = cli("run", f"{name}.yaml", "--threads", "1", *sets, code=code)
    return read_run(cli.folder / "reports" / name / "latest"), done.stdout


LOOKS = {"labels": (), "no labels": ("data.labels=none",)}


@pytest.mark.parametrize(("name", "look"), [("ranges", "labels"), ("root", "no labels")])
def test_a_network_that_int8_destroys_does_not_pass(project: Cli, name: str, look: str) -> None:
    result, told = run(project, name, *LOOKS[look], code=1)
    assert result.verdict == "fail"
    held = ("accuracy_drop",) if look == "labels" else ("expected_drop", "agreement", "sqnr_db")
    found = {gate.name: gate for gate in result.gates if gate.name in held}
    assert set(found) == set(held)
    assert "fail" in {gate.verdict for gate in found.values()}
    for gate in found.values():
        assert (gate.reference, gate.n) == ("student", 1000)
        assert gate.low is not None
    assert {gate.verdict for gate in result.gates if gate.name.startswith("parity")} == {"pass"}, "the file is the graph"
    assert told.startswith("✕ FAIL")
    assert "Where int8 loses it" in told
    assert "--set quantize.keep_float=auto" in told
    if name == "ranges":
        assert any("body.3" in layer.path for layer, _ in verdict.blamed(result)), "what the loud branch drowns"
    onnx = result.model("onnx")
    assert onnx is not None
    assert onnx.fidelity is not None
    assert (not onnx.fidelity.drops) == (look == "no labels")
    card = (project.folder / "reports" / name / "latest" / "artifacts" / "MODEL_CARD.md").read_text()
    assert "Same top-1 as float" in card


@pytest.mark.parametrize(("name", "look"), [("ranges", "no labels"), ("root", "labels")])
def test_what_the_verdict_advises_cures_it(project: Cli, name: str, look: str) -> None:
    result, told = run(project, name, *LOOKS[look], "quantize.keep_float=auto", code=0)
    assert result.repair is not None, told
    assert 0 < len(result.repair.layers) < result.repair.candidates
    assert (result.repair.metric, result.repair.of) == (("top1", "labels") if look == "labels" else ("agreement", "float"))
    assert result.verdict in ("pass", "undecided")
    assert not [gate for gate in result.gates if gate.blocks]
    top1, onnx = result.student(), result.model("onnx")
    assert top1 is not None
    assert onnx is not None
    if look == "labels":
        assert onnx.figure("top1").value > top1.figure("top1").value - 0.02  # type: ignore[operator]


def test_three_images_without_labels_are_no_pass(project: Cli) -> None:
    """All three agree with float, and nothing is known: exit code 0, and a caution that says so."""
    folder = project.folder / "few"
    folder.mkdir()
    with np.load(project.folder / "data.npz") as data:
        for index in range(12):
            Image.fromarray(data["x_train"][index]).save(folder / f"{index}.png")
    done = project(
        "quantize", "root.py:Net", "--weights", "root.safetensors", "--data", "few", "--size", "28",
        "--normalize", "0.28/0.35",
        "--classes", "10", "--format", "onnx", "--threads", "1", "--set", "data.val_fraction=0.25",
        "--set", "quantize.keep_float=[head]", "--json", code=None,
    )  # fmt: skip
    value = json.loads(done.stdout)
    images = value["run"]["data"]["test"]
    assert images <= 6
    assert value["run"]["verdict"] in ("undecided", "fail")
    assert value["exit_code"] == done.returncode
    doubted = [gate for gate in value["run"]["gates"] if gate["verdict"] == "undecided"]
    assert doubted
    assert {gate["n"] for gate in doubted} == {images}


def test_any_gate_can_be_switched_off(project: Cli) -> None:
    result, told = run(project, "ranges", "gates={accuracy_drop: off, lost_classes: off}", code=0)
    assert result.verdict == "pass"
    assert "2 gates switched off" in told
    assert next(gate for gate in result.gates if gate.name == "accuracy_drop").verdict == "fail", "and it is recorded"
