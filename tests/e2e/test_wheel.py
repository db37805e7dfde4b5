"""edgekd as a wheel, away from its checkout."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]


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


def edgekd(site: Path, cwd: Path, *args: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(site), "EDGEKD_CACHE": str(cwd / "cache")}
    command = [sys.executable, "-m", "edgekd", *args]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


def test_the_shipped_recipe_runs_from_a_wheel(site: Path, tmp_path: Path) -> None:
    where = subprocess.run(
        [sys.executable, "-c", "import edgekd; print(edgekd.__file__)"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(site)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert where.stdout.startswith(str(site))
    done = edgekd(
        site, tmp_path, "run", "mobilenet", "--set", "distill.epochs=1", "--set", "distill.warmup_epochs=0",
        "--set", "student.model=edgekd:resnet10", "--set", "student.args={width: 16}", "--set", "data.val_fraction=0.8",
        "--set", "quantize=null", "--set", "baselines=[]", "--set", "export=[onnx]", "--set", "profile=null",
        "--set", "gates.accuracy_drop=null", "--set", "gates.size_ratio=null",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "reports" / "mobilenet" / "latest" / "artifacts" / "onnx_float.onnx").stat().st_size > 1_000_000


def test_recipes_and_devices_are_in_the_wheel(site: Path, tmp_path: Path) -> None:
    assert "mobilenet" in edgekd(site, tmp_path, "list", "recipes").stdout
    assert "host" in edgekd(site, tmp_path, "list", "devices").stdout
