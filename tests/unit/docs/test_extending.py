"""docs/extending.md: its examples are packages that work, and its table is that of the registries."""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from tests.e2e import warm

ROOT = Path(__file__).parents[3]
EXAMPLES = ROOT / "docs" / "examples"
EXAMPLE = EXAMPLES / "edgekd-huber"
NAMES = sorted(path.name for path in EXAMPLES.iterdir())
PAGE = ROOT / "docs" / "extending.md"


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder with the examples as pip installs them: their modules, and the entry points of each pyproject.toml."""
    for name in NAMES:
        module = name.replace("-", "_")
        project = tomllib.loads((EXAMPLES / name / "pyproject.toml").read_text("utf-8"))["project"]
        assert project["name"] == name
        info = tmp_path / "site" / f"{module}-{project['version']}.dist-info"
        info.mkdir(parents=True)
        groups = [[f"[{group}]", *map(" = ".join, points.items())] for group, points in project["entry-points"].items()]
        (info / "entry_points.txt").write_text("\n".join(line for group in groups for line in group))
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {project['version']}\n")
        shutil.copy(EXAMPLES / name / f"{module}.py", tmp_path / "site")
    return tmp_path / "site"


def python(site: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *words]
    return subprocess.run(command, cwd=site, env=environment(site), capture_output=True, text=True, check=False)


def edgekd(site: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run ``edgekd`` in a process that has imported torch already."""
    return warm.ran(words, site, environment(site))


def environment(site: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])}


def test_the_example_is_a_loss_like_any_other(site: Path) -> None:
    assert len((EXAMPLE / "edgekd_huber.py").read_text("utf-8").splitlines()) <= 30
    terms = "distill.losses=[{kind: task}, {kind: huber, delta: 2}]"
    checked = edgekd(site, "check", "mobilenet", "--set", terms)
    assert checked.returncode == 0, checked.stderr
    wrong = edgekd(site, "check", "mobilenet", "--set", terms.replace("2", "-2"))
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


@pytest.mark.parametrize("name", NAMES)
def test_each_example_passes_its_suite(site: Path, name: str) -> None:
    test = f"test_{name.replace('-', '_')}.py"
    shutil.copy(EXAMPLES / name / test, site)
    done = warm.ran(["-q", "-p", "no:cacheprovider", "-p", "no:anyio", test], site, environment(site), "pytest")
    assert done.returncode == 0, done.stdout[-3000:]
    assert "passed" in done.stdout
    assert "skipped" not in done.stdout


@pytest.fixture
def table(site: Path) -> Path:
    """The page's recipe and network beside a table, in the folder of the examples."""
    text = PAGE.read_text("utf-8")
    for name, language in (("tabular.yaml", "yaml"), ("net.py", "python")):
        (block,) = re.findall(rf"`{re.escape(name)}`:\n\n```{language}\n(.*?)```", text, re.DOTALL)
        (site / name).write_text(block)
    random = np.random.default_rng(0)
    x, weight = random.normal(size=(400, 8)), random.normal(size=(8, 1)) / 4
    header = ",".join([*"abcdefgh", "target"])
    np.savetxt(site / "table.csv", np.hstack([x, np.tanh(x @ weight)]), delimiter=",", header=header)
    return site


def test_the_pages_recipe_is_checked_with_its_source_task_and_metric(table: Path) -> None:
    checked = edgekd(table, "check", "tabular.yaml")
    assert checked.returncode == 0, checked.stderr
    wrong = edgekd(table, "check", "tabular.yaml", "--set", "gates.metric.name=top1")
    assert wrong.returncode == 2
    assert "rmse" in wrong.stderr
    (table / "table.csv").unlink()
    missing = edgekd(table, "check", "tabular.yaml")
    assert missing.returncode == 2
    assert "table.csv does not exist" in missing.stderr


def test_the_pages_recipe_trains_and_exports(table: Path) -> None:
    """With fewer epochs; and a changed table trains again."""
    short = ["--set", "teacher.train.epochs=4", "--set", "distill.epochs=3", "--threads", "1"]
    done = edgekd(table, "run", "tabular.yaml", *short)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "RMSE" in done.stdout
    with (table / "table.csv").open("a") as file:
        file.write("0,0,0,0,0,0,0,0,0\n")
    plan = json.loads(edgekd(table, "plan", "tabular.yaml", *short, "--json").stdout)
    assert {stage["status"] for stage in plan if stage["stage"] in ("teacher", "distill")} == {"run"}


def test_the_table_is_that_of_the_registries() -> None:
    rows = re.findall(r"^\| .+ \| `(edgekd\.\w+)` \| `([\w.]+)` \| `([\w/]+)` \|$", PAGE.read_text("utf-8"), re.MULTILINE)
    source = "\n".join(path.read_text("utf-8") for path in (ROOT / "pipeline" / "edgekd").rglob("*.py"))
    assert {group for group, _, _ in rows} == set(re.findall(r'= Registry\([^)]*"(edgekd\.\w+)"\s*\)', source))
    for _, protocol, folder in rows:
        module, _, name = protocol.rpartition(".")
        assert hasattr(importlib.import_module(module), name)
        assert (ROOT / "pipeline" / "edgekd" / folder).is_dir()
