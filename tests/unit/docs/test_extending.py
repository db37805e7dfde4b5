"""docs/extending.md: its example is a package that works, and its table is that of the registries."""

from __future__ import annotations

import importlib
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
EXAMPLE = ROOT / "docs" / "examples" / "edgekd-huber"
PAGE = ROOT / "docs" / "extending.md"


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder with the example as pip installs it: its module, and the entry points of its pyproject.toml."""
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text("utf-8"))["project"]
    info = tmp_path / "site" / f"edgekd_huber-{project['version']}.dist-info"
    info.mkdir(parents=True)
    groups = [[f"[{group}]", *map(" = ".join, points.items())] for group, points in project["entry-points"].items()]
    (info / "entry_points.txt").write_text("\n".join(line for group in groups for line in group))
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    shutil.copy(EXAMPLE / "edgekd_huber.py", tmp_path / "site")
    return tmp_path / "site"


def python(site: Path, *words: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])
    command, where = [sys.executable, *words], {**os.environ, "PYTHONPATH": path}
    return subprocess.run(command, cwd=site, env=where, capture_output=True, text=True, check=False)


def test_the_example_is_a_loss_like_any_other(site: Path) -> None:
    assert len((EXAMPLE / "edgekd_huber.py").read_text("utf-8").splitlines()) <= 30
    terms = "distill.losses=[{kind: task}, {kind: huber, delta: 2}]"
    checked = python(site, "-m", "edgekd", "check", "mobilenet", "--set", terms)
    assert checked.returncode == 0, checked.stderr
    wrong = python(site, "-m", "edgekd", "check", "mobilenet", "--set", terms.replace("2", "-2"))
    assert wrong.returncode == 2
    assert "delta" in wrong.stderr
    assert "huber" in python(site, "-m", "edgekd", "list", "losses").stdout


def test_the_example_computes_what_it_says(site: Path) -> None:
    script = (
        "import torch; from edgekd.registry import losses; from edgekd.distill.outputs import Outputs\n"
        "loss = losses.get('huber')(delta=1.0)\n"
        "student, teacher = Outputs(torch.zeros(1, 2)), Outputs(torch.tensor([[0.5, 3.0]]))\n"
        "print(loss(student, teacher, None, None).item())"
    )
    done = python(site, "-c", script)
    assert float(done.stdout) == pytest.approx((0.5 * 0.5**2 + (3.0 - 0.5)) / 2), done.stderr


def test_the_example_passes_the_suite_of_losses(site: Path) -> None:
    shutil.copy(EXAMPLE / "test_edgekd_huber.py", site)
    done = python(site, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:anyio", "test_edgekd_huber.py")
    assert done.returncode == 0, done.stdout[-3000:]


def test_the_table_is_that_of_the_registries() -> None:
    rows = re.findall(r"^\| .+ \| `(edgekd\.\w+)` \| `([\w.]+)` \| `([\w/]+)` \|$", PAGE.read_text("utf-8"), re.MULTILINE)
    source = "\n".join(path.read_text("utf-8") for path in (ROOT / "pipeline" / "edgekd").rglob("*.py"))
    assert {group for group, _, _ in rows} == set(re.findall(r'= Registry\([^)]*"(edgekd\.\w+)"\s*\)', source))
    for _, protocol, folder in rows:
        module, _, name = protocol.rpartition(".")
        assert hasattr(importlib.import_module(module), name)
        assert (ROOT / "pipeline" / "edgekd" / folder).is_dir()
