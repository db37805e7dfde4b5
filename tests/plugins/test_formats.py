"""A runtime with its exporter, and a transport, each in a wheel of its own, through the whole chain by entry point alone."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from tests.conformance.broken import failures
from tests.conftest import make_arrays
from tests.plugins.conftest import Site

from edgekd import read_run

NET = """
from torch import nn


def net(num_classes, width=4):
    return nn.Sequential(
        nn.Conv2d(3, width, 3, 2, 1), nn.ReLU(), nn.Conv2d(width, 2 * width, 3, 1, 1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2 * width, num_classes),
    )
"""
RECIPE = {
    "edgekd": 1,
    "data": {"source": "npz:data.npz", "image_size": 16},
    "student": {"model": "net.py:net"},
    "baselines": [],
    "distill": {"epochs": 1, "batch_size": 16, "warmup_epochs": 0, "losses": [{"kind": "task"}]},
    "quantize": {"method": "qat", "epochs": 1},
    "export": [{"format": "npnet"}, {"format": "onnx"}],
    "profile": {"devices": ["host", "shed"], "warmup_runs": 1, "warmup_ms": 0, "blocks": 3, "block_ms": 5, "block_runs": 2},
    "gates": {},
}


@pytest.fixture(scope="module")
def site(installed: Callable[..., Site]) -> Site:
    return installed("edgekd-npnet", "edgekd-elsewhere")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project: data, networks, a device and a recipe."""
    folder = tmp_path_factory.mktemp("project")
    np.savez(folder / "data.npz", **make_arrays())
    (folder / "net.py").write_text(NET)
    (folder / "devices").mkdir()
    device = {
        "edgekd": 1, "name": "shed", "transport": "elsewhere", "options": {"root": str(folder / "shed")},
        "python": [sys.executable], "retries": 0,
    }  # fmt: skip
    (folder / "devices" / "shed.yaml").write_text(yaml.safe_dump(device))
    (folder / "recipe.yaml").write_text(yaml.safe_dump(RECIPE, sort_keys=False))
    return folder


SUITES = """
import sys

import pytest
from edgekd.devices.schema import Device
from edgekd.testing import RuntimeSuite, TransportSuite


class TestNpnet(RuntimeSuite):
    name = "npnet"


class TestElsewhere(TransportSuite):
    name = "elsewhere"
    wait_s = 4.0

    @pytest.fixture
    def device(self, tmp_path):
        return Device(name="shed", transport="elsewhere", options={"root": str(tmp_path / "shed")})
"""


@pytest.fixture(scope="module")
def run(site: Site, folder: Path) -> Path:
    """The folder of a run of the recipe."""
    site.edgekd("check", "recipe.yaml", cwd=folder)
    site.edgekd("run", "recipe.yaml", cwd=folder)
    return (folder / "reports" / "recipe" / "latest").resolve()


def test_they_are_listed(site: Site, folder: Path) -> None:
    assert "npnet" in site.edgekd("list", "formats", cwd=folder, fresh=True)


def test_the_files_are_the_network_and_are_measured_on_both_devices(run: Path) -> None:
    result = read_run(run)
    npnet = {model.name: model for model in result.models if model.format == "npnet"}
    assert {model.precision for model in npnet.values()} == {"int8", "float32"}
    for model in npnet.values():
        assert model.parity is not None
        assert model.parity.agreement == 1.0
    lsb = next(gate for gate in result.gates if (gate.name, gate.model) == ("parity_lsb_p99", "npnet"))
    assert lsb.verdict == "pass"
    measured = {(profile.model, profile.device) for profile in result.profiles}
    assert measured == {(name, device) for name in (*npnet, "onnx", "onnx_float") for device in ("host", "shed")}
    assert not result.failures
    assert not [*(run.parents[2] / "shed").glob("session-*")], "the transport has cleaned up"


def test_the_report_has_them_also_when_it_is_made_again(site: Site, run: Path) -> None:
    before = {name: (run / name).read_bytes() for name in ("report.html", "report.md")}
    text = before["report.md"].decode()
    assert "npnet int8" in text
    assert "| shed |" in text
    site.edgekd("report", str(run), cwd=run)
    assert {name: (run / name).read_bytes() for name in before} == before


def test_the_load_snippet_works(site: Site, run: Path) -> None:
    done = site.python("load_npnet.py", cwd=run / "artifacts")
    assert done.returncode == 0, done.stdout + done.stderr


def test_they_pass_their_suites(site: Site, tmp_path: Path) -> None:
    assert failures(tmp_path / "suites", SUITES, path=str(site.folder)) == {}


def test_the_suites_find_what_is_broken(site: Site, tmp_path: Path) -> None:
    exporter, device, runtime = (f"edgekd_npnet/{name}.py" for name in ("exporter", "device", "runtime"))
    elsewhere = "edgekd_elsewhere/__init__.py"
    broken = site.broken(
        tmp_path / "site",
        (device, "steps = np.rint(", "steps = np.floor("),
        (runtime, "if not zipfile.is_zipfile(path):", "if False:"),
        (exporter, "np.uint8), **arrays)", "np.uint8), stamp=np.random.rand(), **arrays)"),
        (elsewhere, "else 128 - done.returncode", "else done.returncode"),
        (elsewhere, "hashlib.sha256(data)", "hashlib.sha256(str(path).encode())"),
        (elsewhere, "            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)", "            pass"),
        (elsewhere, "        self.guard.communicate()", "        self.guard.kill()"),
    )
    found = failures(tmp_path / "suites", SUITES, path=str(broken.folder))
    assert {"precision[int8]", "damaged", "bytes"} <= found["TestNpnet"]
    assert {"killed[KILL]", "changed", "locked", "clean[ended]"} <= found["TestElsewhere"]
