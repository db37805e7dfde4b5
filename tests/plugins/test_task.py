"""A task with its own metric, in a wheel: through the whole chain by entry point alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from tests.conformance.broken import failures
from tests.plugins.conftest import Site

from edgekd import read_run

NET = """
from torch import nn


class Net(nn.Module):
    def __init__(self, values, width=8):
        super().__init__()
        self.first, self.second, self.out = nn.Linear(8, width), nn.Linear(width, width), nn.Linear(width, values)

    def forward(self, x):
        return self.out(self.second(self.first(x).relu()).relu())
"""
FILES = ("onnx", "tflite", "openvino", "npnet")
RECIPE = {
    "edgekd": 2,
    "task": "vector-regression",
    "data": {"source": "npz:data.npz"},
    "teacher": {"model": "net.py:Net", "args": {"width": 32}, "train": {"epochs": 3, "batch_size": 16, "lr": 0.01}},
    "student": {"model": "net.py:Net"},
    "baselines": [],
    "distill": {"epochs": 2, "batch_size": 16, "lr": 0.01, "losses": [{"kind": "task"}, {"kind": "mse_logits"}]},
    "quantize": {"method": "qat", "epochs": 1},
    "export": [*FILES],
    "profile": {"devices": ["host"], "warmup_runs": 1, "warmup_ms": 0, "blocks": 3, "block_ms": 1, "block_runs": 2},
    "gates": {
        "metric": {"name": "mae", "max": 2},
        "drop": {"metric": "mae", "max": 0.5},
        "sqnr_db": {"min": 5},
        "parity_lsb_p99": {"max": 2},
    },
}

SUITES = """
from edgekd.task.base import Samples
from edgekd.testing import MetricSuite, TaskSuite


class TestTask(TaskSuite):
    name = "vector-regression"
    samples = Samples({"x": ((8,), "float32")}, target=(3,))
    others = Samples({"image": ((3, 8, 8), "float32")})


class TestMetric(MetricSuite):
    name, targets = "mae", "values"
"""


@pytest.fixture(scope="module")
def site(installed: Callable[..., Site]) -> Site:
    return installed("edgekd-vectors", "edgekd-npnet")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project: data, network and recipe."""
    folder, random = tmp_path_factory.mktemp("project"), np.random.default_rng(0)
    x, weight = random.normal(size=(400, 8)).astype(np.float32), random.normal(size=(8, 3))
    y = np.tanh(x @ weight)
    np.savez(folder / "data.npz", x_train=x[:360], y_train=y[:360], x_test=x[360:], y_test=y[360:])
    (folder / "net.py").write_text(NET)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(RECIPE, sort_keys=False))
    return folder


@pytest.fixture(scope="module")
def run(site: Site, folder: Path) -> Path:
    """The folder of a run of the recipe; its gates pass."""
    site.edgekd("run", "recipe.yaml", cwd=folder)
    return (folder / "reports" / "recipe" / "latest").resolve()


def test_every_file_is_measured_by_the_tasks_metric_and_held_against_torch(run: Path) -> None:
    result = read_run(run)
    models = {model.name: model for model in result.models}
    assert {*FILES} < {*models}
    for name in FILES:
        model, gates = models[name], {gate.name: gate.verdict for gate in result.gates if gate.model == name}
        assert [port.name for port in (*model.inputs, *model.outputs)] == ["x", "values"]
        assert model.figure("mae") is not None
        assert model.figure("top1") is None
        assert model.parity is not None
        assert model.parity.outputs["values"].agreement is None, "values have no classes"
        assert {gates[gate] for gate in ("metric", "drop", "sqnr_db", "parity_lsb_p99")} == {"pass"}
    assert {profile.model for profile in result.profiles} >= {*FILES}
    assert not result.failures
    assert {profile.outputs[0].reference for profile in result.profiles} == {"torch"}
    assert not [one for profile in result.profiles for one in profile.outputs if one.differs]


def test_the_bundle_has_its_samples_and_snippets_that_compare(site: Site, run: Path) -> None:
    folder = run / "artifacts"
    assert json.loads((folder / "manifest.json").read_text("utf-8"))["preprocessing"] is None
    with np.load(folder / "samples.npz") as stored:
        assert (stored["input_x"].shape, stored["targets"].shape) == ((40, 8), (40, 3))
        assert stored["output_onnx"].shape == (40, 3)
    for name in FILES:
        done = site.python(f"load_{name}.py", cwd=folder)
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.startswith("largest difference 0,"), done.stdout


def test_the_report_speaks_of_samples_also_when_it_is_made_again(site: Site, run: Path) -> None:
    before = {name: (run / name).read_bytes() for name in ("report.html", "report.md", "artifacts/MODEL_CARD.md")}
    for text in (before["report.md"].decode(), before["artifacts/MODEL_CARD.md"].decode()):
        assert "MAE" in text
        assert "324 train, 36 validation, 40 test" in text
        assert "test image" not in text
        assert "pixels" not in text
        body = text.partition("## Artifacts")[0].lower()
        assert "top-1" not in body
        assert "the logits" not in body
    site.edgekd("report", str(run), cwd=run)
    assert {name: (run / name).read_bytes() for name in before} == before


def test_they_pass_their_suites(site: Site, tmp_path: Path) -> None:
    assert failures(tmp_path / "suites", SUITES, path=str(site.folder)) == {}


def test_the_suites_find_what_is_broken(site: Site, tmp_path: Path) -> None:
    module = "edgekd_vectors.py"
    broken = site.broken(
        tmp_path / "site",
        (module, "return F.mse_loss(primary, target)", "return -F.mse_loss(primary, target)"),
        (module, '(Port(VECTOR, ("N", *shape), kind="features"),)', '(Port("y", ("N", *shape), kind="features"),)'),
        (module, '"mae", "MAE", "", "lower"', '"mae", "MAE", "", "up"'),
        (module, "np.average(rows[:, 0], weights=weights)", "rows[:, 0].mean()"),
    )
    found = failures(tmp_path / "suites", SUITES, path=str(broken.folder))
    assert {"criterion", "signature"} <= found["TestTask"]
    assert {"facts", "weights"} <= found["TestMetric"]
