"""edgekd as a wheel, away from its checkout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
TRAIN, TEST = 400, 200
FORMATS = ("onnx", "tflite", "openvino")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with nothing but edgekd, installed from its wheel; the libraries come from this environment."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", str(folder), str(ROOT)], check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    target = folder / "site"
    subprocess.run([*pip, "install", "--no-deps", "--target", str(target), str(wheel)], check=True, capture_output=True)
    return target


def python(site: Path, cwd: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(site), "EDGEKD_CACHE": str(cwd / "cache")}
    return subprocess.run([sys.executable, *words], cwd=cwd, env=environment, capture_output=True, text=True, check=False)


def test_the_shipped_recipe_runs_from_a_wheel(site: Path, tmp_path: Path) -> None:
    """As `make soak` runs it with four students: this one is small, and it has fewer of the shipped images.

    Its drop of accuracy may be undecided on so few images, and most of its OpenVINO file is text: the goal is missed.
    """
    assert python(site, tmp_path, "-c", "import edgekd; print(edgekd.__file__)").stdout.startswith(str(site))
    done = python(
        site, tmp_path, str(ROOT / "tests" / "recipes" / "run.py"), "--students", "resnet10_small",
        "--train", str(TRAIN), "--test", str(TEST), "--out", str(tmp_path),
    )  # fmt: skip
    assert (tmp_path / "results.json").is_file(), done.stderr
    (row,) = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))["rows"]
    assert row["n"] == dict.fromkeys(("float", *FORMATS), TEST)
    assert row["float_ops"] == {name: [] for name in FORMATS}
    assert min(row["top1"].values()) > 0.3, "chance is 0.1"
    verdicts = {(name, file): verdict for name, file, _, _, verdict in row["gates"]}
    assert {name for name, _ in verdicts} >= {"accuracy_drop", "parity_top1", "parity_lsb_p99", "size_ratio"}
    small = {("size_ratio", "openvino"), *(("accuracy_drop", name) for name in FORMATS)}
    assert {gate: verdict for gate, verdict in verdicts.items() if verdict != "pass" and gate not in small} == {}
    assert verdicts["size_ratio", "openvino"] == "fail"
    assert done.returncode == 1, "a missed goal is an exit code"
    assert "size_ratio of openvino fail" in done.stdout


def test_recipes_and_devices_are_in_the_wheel(site: Path, tmp_path: Path) -> None:
    assert "mobilenet" in python(site, tmp_path, "-m", "edgekd", "list", "recipes").stdout
    assert "host" in python(site, tmp_path, "-m", "edgekd", "list", "devices").stdout
    checked = python(site, tmp_path, "-m", "edgekd", "check", "mobilenet")
    assert checked.returncode == 0, checked.stderr
