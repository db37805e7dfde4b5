"""What goes wrong while a recipe runs: the words, the exit code, and that nothing finished is lost."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests import ctrl_c
from tests.e2e.conftest import Cli

pytestmark = pytest.mark.e2e

RECIPE = """\
edgekd: 1
data: {source: npz:data.npz, image_size: 32}
student: {model: torchvision:mobilenet_v2, args: {width_mult: 0.35}}
distill: {epochs: 1, warmup_epochs: 0, losses: [{kind: task}]}
"""

TINY = """\
from torch import nn

def net():
    return nn.Sequential(nn.Conv2d(3, 4, 3, 4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10))
"""

GOLDEN = Path(__file__).parents[1] / "golden" / "run"


@pytest.fixture
def cli(tmp_path: Path, small_data: Callable[[Path, int, int], None]) -> Cli:
    small_data(tmp_path / "data.npz", 200, 50)
    (tmp_path / "r.yaml").write_text(RECIPE)
    return Cli(tmp_path, tmp_path / "cache")


class Exploding:
    def __reduce__(self) -> tuple[object, ...]:
        return (open, ("exploded", "w"))


def write_pickle(folder: Path) -> None:
    import torch

    torch.save({"weights": Exploding()}, folder / "weights.pt")


def write_other_model(folder: Path) -> None:
    import torch

    torch.save(torch.nn.Linear(3, 4).state_dict(), folder / "weights.pt")


def truncate(folder: Path) -> None:
    (folder / "weights.pt").write_bytes(b"PK\x03\x04 not all of it")


def nothing(folder: Path) -> None:
    pass


def truncate_data(folder: Path) -> None:
    data = (folder / "data.npz").read_bytes()
    (folder / "data.npz").write_bytes(data[: len(data) // 2])


def mislabel(folder: Path) -> None:
    with np.load(folder / "data.npz") as file:
        arrays = {name: file[name] for name in file.files}
    arrays["y_test"] = arrays["y_test"].astype(np.int64)
    arrays["y_test"][3] = 12
    np.savez(folder / "data.npz", **arrays)


def empty_data(folder: Path) -> None:
    empty = np.zeros((0, 28, 28), np.uint8)
    np.savez(folder / "data.npz", x_train=empty, x_test=empty, y_train=empty[:, 0, 0], y_test=empty[:, 0, 0])


def pickled_data(folder: Path) -> None:
    with (folder / "data.npz").open("wb") as file:
        pickle.dump(Exploding(), file)


def net(text: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / "net.py").write_text(text)

    return write


CASES: dict[str, tuple[Callable[[Path], None], tuple[str, ...], int]] = {
    "checkpoint_with_code": (write_pickle, ("student.weights=weights.pt",), 3),
    "checkpoint_of_another_model": (write_other_model, ("student.weights=weights.pt",), 3),
    "checkpoint_truncated": (truncate, ("student.weights=weights.pt",), 3),
    "checkpoint_missing": (nothing, ("student.weights=weights.pt",), 3),
    "data_missing": (lambda folder: (folder / "data.npz").unlink(), (), 3),
    "data_truncated": (truncate_data, (), 3),
    "data_mislabelled": (mislabel, (), 3),
    "data_empty": (empty_data, (), 3),
    "data_with_code": (pickled_data, (), 3),
    "data_not_installed": (nothing, ("data.source=imagefolder:nowhere",), 3),
    "model_unknown": (nothing, ("student.model=torchvision:mobilnet_v2",), 3),
    "model_arguments": (nothing, ("student.args={widht: 2}",), 3),
    "model_of_other_classes": (nothing, ("student.args={num_classes: 5}",), 3),
    "model_file_missing": (nothing, ("student.model=net.py:Net", "student.args={}"), 3),
    "model_file_broken": (net("import nowhere_to_be_found\n"), ("student.model=net.py:Net", "student.args={}"), 3),
    "model_callable_missing": (net("def Nett(): ...\n"), ("student.model=net.py:Net", "student.args={}"), 3),
    "image_too_small": (nothing, ("student.model=torchvision:densenet121", "student.args={}", "data.image_size=16"), 3),
    "layer_unknown": (
        nothing,
        ("teacher={model: edgekd:resnet10, args: {width: 8}, train: {epochs: 1, warmup_epochs: 0}}", "baselines=[]",
         "distill.losses=[{kind: fitnet, layers: {features.99: layer1}}]"),
        3,
    ),
    "rewrite_of_nothing": (nothing, ("student.rewrite.gelu=relu",), 3),
    "loss_not_finite": (nothing, ("distill.optimizer=sgd", "distill.lr=1e30"), 3),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_the_message(case: str, cli: Cli) -> None:
    prepare, overrides, code = CASES[case]
    prepare(cli.folder)
    done = cli("run", "r.yaml", *(part for value in overrides for part in ("--set", value)), code=code)
    said = done.stderr[done.stderr.index("error: ") :].replace(str(cli.folder) + "/", "")
    golden = GOLDEN / f"{case}.txt"
    if os.environ.get("EDGEKD_UPDATE_GOLDEN"):
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(said)
    assert said == golden.read_text()
    assert not (cli.folder / "exploded").exists(), "code from a file was run"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 1 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("mounting a small file system needs root")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk(cli: Cli, small_disk: Path) -> None:
    done = Cli(cli.folder, small_disk / "cache")("run", "r.yaml", code=3)
    assert "error: the disk is full while writing" in done.stderr
    assert "free some space and run the same command: finished stages are kept" in done.stderr


def test_a_disk_that_is_full_at_the_report(cli: Cli, small_disk: Path) -> None:
    """No verdict is left without its report, and it can be made once there is room."""
    (cli.folder / "net.py").write_text(TINY)
    short = "{devices: [host], blocks: 3, block_ms: 10, block_runs: 3, warmup_ms: 10, warmup_runs: 3}"
    values = ("student={model: 'net.py:net'}", "export=[{format: onnx, precision: float32}]", f"profile={short}")
    command = ["run", "r.yaml", *(part for value in values for part in ("--set", value))]
    cli(*command)
    (whole,) = (cli.folder / "reports/r").glob("0001-*")
    needed = sum(-(-path.stat().st_size // 4096) * 4096 for path in whole.rglob("*") if path.is_file())
    free = needed - (whole / "report.html").stat().st_size // 2
    (small_disk / "filler").write_bytes(bytes(2**20 - free))
    done = cli(*command, "--out", str(small_disk), code=3)
    assert "error: the disk is full while writing" in done.stderr
    (folder,) = (small_disk / "r").iterdir()
    left = {path.name for path in folder.iterdir()}
    assert "unreported-run.json" in left
    assert not left & {"run.json", "report.html"}
    (small_disk / "filler").unlink()
    cli("report", str(folder))
    assert {path.name for path in folder.iterdir()} >= {"run.json", "report.html", "report.md"}
    assert not (folder / "unreported-run.json").exists()


def test_a_folder_that_cannot_be_written(cli: Cli) -> None:
    (cli.folder / "file").write_text("")
    done = cli("run", "r.yaml", "--out", "file/reports", code=3)
    assert "cannot be written: Not a directory" in done.stderr
    assert "choose another place with --out" in done.stderr


@pytest.fixture
def tiny(cli: Cli) -> Cli:
    """The recipe with a network that trains in no time."""
    (cli.folder / "net.py").write_text(TINY)
    (cli.folder / "r.yaml").write_text(RECIPE.replace("torchvision:mobilenet_v2, args: {width_mult: 0.35}", "net.py:net"))
    return cli


def test_ctrl_c_keeps_what_is_finished(tiny: Cli) -> None:
    cli, settings = tiny, ["--set", "quantize={epochs: 5000}", "--set", "export=[onnx]", "--set", "baselines=[]"]
    command = [sys.executable, "-m", "edgekd", "run", "r.yaml", *settings]
    process = subprocess.Popen(
        ctrl_c.heard(command), cwd=cli.folder, env=cli.environment(), stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line)
        if "quantize" in line:
            break
    time.sleep(3)
    process.send_signal(signal.SIGINT)
    rest = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert "interrupted\n  → finished stages are kept; the same command resumes" in rest
    assert "Traceback" not in rest
    plan = cli("plan", "r.yaml", *settings).stdout
    assert plan.splitlines()[0].split()[:2] == ["distill", "cached"]


def test_a_time_limit_ends_the_other_training_processes_too(tiny: Cli) -> None:
    """The scheduler's signal goes to the main process alone; the others would train on to the end, for nobody."""
    cli = tiny
    for name in ("signal", "types", "selectors"):  # nor do they import these
        (cli.folder / f"{name}.py").write_text(f"raise SystemExit('{name}.py of the working folder was run')\n")
    script = str(Path(sys.executable).with_name("edgekd"))  # `python -m` itself would import them
    command = [script, "run", "r.yaml", "--processes", "2", "--set", "distill.epochs=5000"]
    process = subprocess.Popen(command, cwd=cli.folder, env=cli.environment(), stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if ": started" in line and "alone" in line:
            break
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    time.sleep(1)
    process.send_signal(signal.SIGTERM)
    rest = process.communicate(timeout=30)[1]
    assert process.returncode == 130
    assert "interrupted\n  → finished stages are kept; the same command resumes" in rest
    assert len(children) >= 2
    deadline = time.monotonic() + 10
    while (left := [child for child in children if Path(f"/proc/{child}").exists()]) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not left


def test_ctrl_c_keeps_the_rows_of_a_study(tiny: Cli) -> None:
    cli, methods = tiny, "{soft: [{kind: task, label_smoothing: 0.1}], long: {distill: {epochs: 5000}}}"
    (cli.folder / "s.yaml").write_text(f"study: 1\nseeds: 2\nrecipe: r.yaml\nbaselines: []\nmethods: {methods}\n")
    command = [sys.executable, "-m", "edgekd", "study", "s.yaml"]
    process = subprocess.Popen(
        ctrl_c.heard(command), cwd=cli.folder, env=cli.environment(), stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    for line in process.stderr:
        if "long" in line:
            break
    time.sleep(3)
    process.send_signal(signal.SIGINT)
    rest = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert "the same command resumes" in rest
    assert "Traceback" not in rest
    assert "2 trainings to do, 2 in the cache" in cli("plan", "s.yaml").stdout


DETERMINANT = """\
import torch
from torch import nn


class Volume(nn.Module):
    def forward(self, x):
        return torch.linalg.det(x)


def Net(num_classes):
    return nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(4), Volume(), nn.Linear(8, num_classes))
"""


def test_a_format_that_lacks_an_operator_leaves_the_others(cli: Cli) -> None:
    """ONNX has a determinant, TFLite and OpenVINO have none."""
    import torch

    (cli.folder / "net.py").write_text(DETERMINANT)
    names: dict[str, Any] = {}
    exec(DETERMINANT, names)
    torch.save(names["Net"](10).state_dict(), cli.folder / "net.pt")
    command = ("export", "net.py:Net", "--weights", "net.pt", "--size", "32", "--classes", "10", "--json", "--format")
    done = cli(*command, "onnx,tflite,openvino", code=3)
    found = json.loads(done.stdout)
    assert found["exit_code"] == 3
    reasons = {failure["stage"]: failure["reason"] for failure in found["failures"]}
    assert set(reasons) == {"export.tflite_float", "export.openvino_float"}
    assert "linalg_det in 3 (net.py, line 7: return torch.linalg.det(x))" in reasons["export.tflite_float"]
    assert "\x1b" not in done.stdout
    files = {path.name for path in (cli.folder / found["folder"]).rglob("*") if path.is_file()}
    assert {"onnx_float.onnx", "load_onnx_float.py", "manifest.json", "samples.npz", "report.html", "run.json"} <= files
    assert "same command" not in done.stderr, "it would fail in the same way"
    again = cli(*command, "onnx,tflite,openvino", code=3)
    assert [line.split()[1:3] for line in again.stderr.splitlines() if "cached" in line] == [
        ["student:", "cached"], ["export.onnx_float:", "cached"], ["evaluate:", "cached"],
    ]  # fmt: skip
    assert json.loads(cli(*command, "onnx").stdout)["failures"] == []


def test_a_damaged_cache_entry_is_made_again(cli: Cli) -> None:
    cli("run", "r.yaml")
    (weights,) = cli.cache.glob("stages/*/*/last.safetensors")
    weights.write_bytes(b"damaged")
    assert f"{weights} is damaged" in cli("plan", "r.yaml").stdout
    assert "is damaged" in cli("run", "r.yaml").stderr
    assert "cached" in cli("plan", "r.yaml").stdout


def test_usage(cli: Cli) -> None:
    assert "error: No such command 'rnu'" in cli("rnu", code=2, fresh=True).stderr
    assert "error: Missing argument 'RECIPE'" in cli("run", code=2, fresh=True).stderr
    assert '"exit_code": 2' in cli("check", "r.yaml", "--set", "sead=1", "--json", code=2, fresh=True).stdout
