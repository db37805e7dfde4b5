"""A model that is trained already: `edgekd quantize` and `edgekd export`, and what they say when something is wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from tests.e2e.conftest import Cli
from tests.words import lacking
from torch import nn

from edgekd.models.torchvision import import_torchvision
from edgekd.report.findings import sentence
from edgekd.results.run import RunResult, read_run

pytestmark = pytest.mark.e2e

GOLDEN = Path(__file__).parents[1] / "golden" / "run"

NET = """\
from torch import nn


def block(a, b, stride):
    return nn.Sequential(nn.Conv2d(a, b, 3, stride, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU(inplace=True))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(block(3, 16, 2), block(16, 32, 2), block(32, 32, 1))
        self.head = nn.Linear(32, 3)

    def forward(self, x):
        return self.head(self.features(x).mean((2, 3)))
"""

CLASSES = {"bag": 8, "shirt": 0, "sneaker": 7}
MEAN, STD = 0.3, 0.35  # of the user's own training


def train(model: nn.Module, images: np.ndarray, labels: np.ndarray) -> None:
    """As a user would, far from edgekd: a few steps of Adam on images between 0 and 1, normalized in their own way."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    x = (torch.from_numpy(images.astype(np.float32))[:, None].expand(-1, 3, -1, -1) / 255 - MEAN) / STD
    y = torch.from_numpy(labels)
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(300):
        index = torch.randint(len(y), (64,))
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[index]), y[index]).backward()
        optimizer.step()
    model.eval()


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, mini: dict[str, np.ndarray]) -> Cli:
    """net.py with trained weights in both forms, and images in class folders."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "net.py").write_text(NET)
    images, labels = [], []
    for number, (name, label) in enumerate(CLASSES.items()):
        (folder / "images" / name).mkdir(parents=True)
        for index, pixels in enumerate(mini["x_train"][mini["y_train"] == label][:100]):
            Image.fromarray(pixels).save(folder / "images" / name / f"{index}.png")
            images.append(pixels)
            labels.append(number)
    namespace: dict[str, Callable[[], nn.Module]] = {}
    exec(NET, namespace)
    model = namespace["Net"]()
    train(model, np.stack(images), np.array(labels))
    torch.save({"epoch": 3, "state_dict": model.state_dict()}, folder / "best.pt")
    save_file(model.state_dict(), folder / "best.safetensors")
    return Cli(folder, folder / "cache")


def result_of(cli: Cli, name: str = "Net") -> RunResult:
    return read_run(cli.folder / "build" / name / "latest")


def assert_sound(result: RunResult) -> None:
    """Every gate passes, but for those whose interval is too wide on so few images, and nothing makes the exit code 1."""
    doubted = {gate.name for gate in result.gates if gate.verdict != "pass"}
    assert doubted <= {"accuracy_drop", "lost_classes", "expected_drop", "agreement", "sqnr_db"}
    assert {gate.verdict for gate in result.gates} <= {"pass", "undecided"}
    assert result.verdict == ("undecided" if doubted else "pass")
    assert not any(gate.blocks for gate in result.gates)


def test_quantize(project: Cli) -> None:
    project(
        "quantize", "net.py:Net", "--weights", "best.pt", "--data", "images", "--size", "28", "--normalize", f"{MEAN}/{STD}",
        "--threads", "1",
    )  # fmt: skip
    result = result_of(project)
    assert_sound(result)
    student = result.model("student")
    assert student is not None
    assert student.figure("top1").value > 0.95, "the weights are good only with the normalization that was given"
    for name in ("onnx", "tflite", "openvino"):
        model = result.model(name)
        assert model is not None
        assert model.precision.startswith("int8")
        assert model.float_ops == ()
        assert model.parity.agreement == 1.0
        assert model.parity.outputs["logits"].max_lsb <= 2
        assert model.figure("top1").value > 0.95
        assert model.metrics[0].n == 60, "a fifth of the images, which no range came from"
    assert result.data.train + result.data.val == 240
    snippet = subprocess.run(
        [sys.executable, "load_tflite.py"], cwd=project.folder / "build" / "Net" / "latest" / "artifacts",
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert snippet == f"top-1 {result.model('tflite').figure('top1').value:.4f}\n"


def test_export_needs_no_images(project: Cli) -> None:
    formats = ("--format", "onnx", "--format", "tflite,openvino")
    project("export", "net.py:Net", "--weights", "best.safetensors", "--size", "28", *formats, "--threads", "1")
    result = result_of(project)
    assert_sound(result)
    assert [model.name for model in result.models] == ["student", "onnx_float", "tflite_float", "openvino_float"]
    for model in result.models[1:]:
        assert model.parity.outputs["logits"].max_abs_error < 1e-4
        assert model.measured() is None, "random images have no labels"
    assert any(line.startswith("accuracy: ") for line in lacking(result))
    snippet = subprocess.run(
        [sys.executable, "load_onnx_float.py"], cwd=project.folder / "build" / "Net" / "latest" / "artifacts",
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert snippet == "top-1 1.0000\n"


def test_export_in_other_precisions(project: Cli) -> None:
    project(
        "export", "net.py:Net", "--weights", "best.pt", "--data", "images", "--size", "28", "--normalize", f"{MEAN}/{STD}",
        "--format", "tflite", "--precision", "fp16,dynamic,int16x8", "--threads", "1",
    )  # fmt: skip
    result = result_of(project)
    assert_sound(result)
    names = ["tflite_float16", "tflite_dynamic", "tflite_int16x8"]
    assert [model.name for model in result.models] == ["student", *names]
    assert [result.model(name).precision for name in names] == ["float16", "dynamic", "int16x8"]
    assert [result.model(name).parity.reference for name in names] == [f"student, {n}-bit weights" for n in (16, 8, 8)]
    assert all(result.model(name).figure("top1").value > 0.95 for name in names)
    assert "tflite_int16x8 (int16x8) in TensorFlow Lite" in result.snippets["tflite_int16x8"]


def test_quantize_on_images_without_labels_and_a_torchvision_model(project: Cli) -> None:
    """The number of classes is that of the checkpoint's head."""
    torch.manual_seed(0)
    network = import_torchvision().models.squeezenet1_1(num_classes=6)
    torch.save(network.state_dict(), project.folder / "squeeze.pth")
    project(
        "quantize", "torchvision:squeezenet1_1", "--weights", "squeeze.pth", "--data", "images:images", "--size", "64",
        "--normalize", "data", "--formats", "onnx", "--threads", "1",
    )  # fmt: skip
    result = result_of(project, "squeezenet1_1")
    assert len(result.data.classes) == 6
    assert_sound(result)
    (doubt,) = result.doubts
    assert sentence(doubt).startswith("the network sees images normalized with their own mean")
    assert f"Caution: {sentence(doubt)}" in (project.folder / "build" / "squeezenet1_1" / "latest" / "report.md").read_text()
    assert result.model("onnx").parity.outputs["logits"].max_lsb < 3


def test_qat_of_a_trained_model(project: Cli) -> None:
    project(
        "quantize", "net.py:Net", "--weights", "best.pt", "--data", "images", "--size", "28", "--normalize", f"{MEAN}/{STD}",
        "--epochs", "1", "--formats", "onnx", "--threads", "1",
    )  # fmt: skip
    result = result_of(project)
    assert_sound(result)
    assert result.model("onnx").figure("top1").value > 0.95
    assert [curve.model for curve in result.curves] == ["qat"]


def test_the_recipe_behind_it_runs_the_same(project: Cli) -> None:
    command = ("export", "net.py:Net", "--weights", "best.safetensors", "--size", "28")
    text = project(*command, "--recipe-only").stdout
    (project.folder / "Net.yaml").write_text(text)
    plan = json.loads(project("plan", "Net.yaml", "--json", "--threads", "1").stdout)
    assert [step["stage"] for step in plan] == ["student", "export.onnx_float", "evaluate", "package"]
    project(*command, "--threads", "1")
    planned = json.loads(project("plan", "Net.yaml", "--json", "--threads", "1").stdout)
    assert [step["status"] for step in planned] == [*["cached"] * 3, "run"]


# --- what goes wrong --------------------------------------------------------------------------------------------------

BRANCHING = NET.replace(
    "        return self.head", "        if x.mean() > 0:\n            x = x * 2\n        return self.head"
)
FIXED_BATCH = NET.replace("self.features(x).mean((2, 3))", "self.features(x.reshape(2, 3, 28, 28)).mean((2, 3))")
OTHER_FOR_ONE = NET.replace("self.features(x).mean((2, 3))", "self.features(x).mean((2, 3)) * (2 if len(x) == 1 else 1)")
FLAT = NET.replace("self.features(x).mean((2, 3))", "x[:, 0, 0, :32]")
ONE = NET.replace("nn.Linear(32, 3)", "nn.Linear(32, 1)")

QUANTIZE = ("quantize", "net.py:Net", "--weights", "best.pt", "--data", "images", "--size", "28", "--formats", "onnx")
EXPORT = ("export", "net.py:Net", "--weights", "best.pt", "--size", "28")


def of_another_model(folder: Path) -> None:
    torch.save(torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3)).state_dict(), folder / "best.pt")


def net(text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / "net.py").write_text(text) and None  # type: ignore[return-value]


def one_output(folder: Path) -> None:
    (folder / "net.py").write_text(ONE)
    state = torch.load(folder / "best.pt", weights_only=True)["state_dict"]
    torch.save(state | {"head.weight": torch.zeros(1, 32), "head.bias": torch.zeros(1)}, folder / "best.pt")


def constant_images(folder: Path) -> None:
    for path in (folder / "images").rglob("*.png"):
        Image.new("L", (28, 28), 7).save(path)


def one_class(folder: Path) -> None:
    for name in ("bag", "shirt"):
        (folder / "images" / name).rename(folder / name)


def no_images(folder: Path) -> None:
    (folder / "images").rename(folder / "elsewhere")
    (folder / "images").mkdir()


def unchanged(folder: Path) -> None:
    pass


CASES: dict[str, tuple[Callable[[Path], object], tuple[str, ...], int]] = {
    "trained_weights_missing": (unchanged, (*QUANTIZE, "--weights", "bst.pt"), 2),
    "trained_weights_of_another_model": (of_another_model, QUANTIZE, 3),
    "trained_model_without_source": (unchanged, ("export", "resnet18", "--weights", "best.pt"), 2),
    "trained_data_missing": (unchanged, (*QUANTIZE, "--data", "imgaes"), 2),
    "trained_data_empty": (no_images, QUANTIZE, 3),
    "trained_data_of_one_class": (one_class, QUANTIZE, 3),
    "trained_data_constant": (constant_images, QUANTIZE, 3),
    "trained_data_random": (unchanged, (*QUANTIZE, "--data", "random"), 2),
    "trained_one_output": (one_output, EXPORT, 3),
    "trained_flat_input": (net(FLAT.replace("nn.Linear(32, 3)", "nn.Linear(31, 3)")), EXPORT, 3),
    "trained_branching": (net(BRANCHING), QUANTIZE, 3),
    "trained_fixed_batch": (net(FIXED_BATCH), EXPORT, 3),
    "trained_other_for_one": (net(OTHER_FOR_ONE), EXPORT, 3),
    "trained_format_unknown": (unchanged, (*EXPORT, "--format", "onx"), 2),
    "trained_normalization": (unchanged, (*EXPORT, "--normalize", "imagnet"), 2),
    "trained_set_unknown": (unchanged, (*EXPORT, "--set", "quantise.method=ptq"), 2),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_the_message(case: str, project: Cli, tmp_path: Path) -> None:
    prepare, command, code = CASES[case]
    copy = tmp_path / "project"
    subprocess.run(["cp", "-r", project.folder, copy], check=True)
    prepare(copy)
    done = Cli(copy, project.cache)(*command, "--threads", "1", code=code)
    said = done.stderr[max(done.stderr.find("error: "), 0) :].replace(f"{copy}/", "")
    if "FAILED: " in said:  # a format that fails is a line, and a row of the report
        said = "".join(f"{line}\n" for line in said.splitlines() if "FAILED: " in line)
    golden = GOLDEN / f"{case}.txt"
    if os.environ.get("EDGEKD_UPDATE_GOLDEN"):
        golden.write_text(said)
    assert said == golden.read_text()
