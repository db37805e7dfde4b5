"""A runtime, its exporter and a transport of other packages, from a recipe to the report, by entry points alone."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.conftest import make_arrays
from tests.words import lacking

import edgekd
from edgekd.assembly import networks
from edgekd.engine import runner
from edgekd.errors import ExitCode, UsageError
from edgekd.loading import load
from edgekd.profiling import on_device
from edgekd.progress import Silent
from edgekd.registry import exporters
from edgekd.registry import transports as transport_registry
from edgekd.runtimes import base

PLUGIN = Path(__file__).parents[2] / "plugins" / "edgekd-layers"
LENT = "from edgekd.profiling.transports.host import Host\n\n\nclass Lent(Host):\n    keys = ('python',)\n"
NET = """\
from torch import nn


def Net(num_classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(768, 8), nn.ReLU(), nn.Linear(8, num_classes))
"""
RECIPE = """\
edgekd: 1
data: {source: npz:data.npz, image_size: 16}
student: {model: net.py:Net, weights: net.safetensors}
export: [layers, onnx]
profile: {devices: [lent], warmup_runs: 1, warmup_ms: 0, blocks: 3, block_ms: 1, block_runs: 1}
gates: {latency_p50_ms: {max: 1000, device: lent, formats: [layers], level: warn}}
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of sys.path with both packages as pip installs them."""
    site = tmp_path / "site"
    shutil.copytree(PLUGIN / "edgekd_layers", site / "edgekd_layers")
    points = tomllib.loads((PLUGIN / "pyproject.toml").read_text("utf-8"))["project"]["entry-points"]
    (site / "edgekd_borrowed.py").write_text(LENT)
    for name, groups in (
        ("edgekd-layers", points),
        ("edgekd-borrowed", {"edgekd.transports": {"lent": "edgekd_borrowed:Lent"}}),
    ):
        info = site / f"{name.replace('-', '_')}-1.0.dist-info"
        info.mkdir()
        lines = [line for group, found in groups.items() for line in (f"[{group}]", *map(" = ".join, found.items()))]
        (info / "entry_points.txt").write_text("\n".join(lines))
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    monkeypatch.syspath_prepend(str(site))
    for registry in (base.runtimes, exporters, transport_registry):
        registry.names()
        monkeypatch.setattr(registry, "_entries", dict(registry._entries))
    return site


def test_it_goes_from_the_recipe_to_the_report(site: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", **make_arrays(channels=3))
    (tmp_path / "net.py").write_text(NET)
    names: dict[str, object] = {}
    exec(NET, names)
    torch.manual_seed(0)
    networks.save(names["Net"](4).state_dict(), tmp_path / "net.safetensors")  # type: ignore[operator]
    (tmp_path / "devices").mkdir()
    (tmp_path / "devices" / "lent.yaml").write_text(f"transport: lent\npython: [{sys.executable}]\nretries: 0\n")
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    outcome = runner.run(load(tmp_path / "recipe.yaml"), runner.Options(tmp_path / "reports", Silent()))
    result = outcome.result
    assert outcome.exit_code == ExitCode.OK, [stage for stage in result.stages if stage.reason]
    model = result.model("layers_float")
    assert model is not None
    assert model.parity is not None
    assert model.parity.agreement == 1.0
    assert {profile.model for profile in result.profiles} == {"layers_float", "onnx_float"}
    profile = next(profile for profile in result.profiles if profile.model == "layers_float")
    assert profile.device == "lent"
    assert set(profile.effective.operations) == {"float32"}
    (gate,) = [gate for gate in result.gates if gate.name.startswith("latency")]
    assert gate.verdict in ("pass", "untrusted")
    page = (outcome.folder / "report.html").read_text("utf-8")
    assert "Layers float32" in page
    artifacts = outcome.folder / "artifacts"
    snippet = (artifacts / "load_layers_float.py").read_text("utf-8")
    done = subprocess.run(
        [sys.executable, artifacts / "load_layers_float.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"It prints the top-1 accuracy on .*: ([\d.]+)\.", snippet)[1] in done.stdout  # type: ignore[index]
    assert base.format_of(artifacts / "layers_float.layers") == "layers"


def test_what_it_does_not_have_is_said(site: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not a file of layers"):
        (tmp_path / "a.layers").write_text("nothing")
        base.of("layers").check(tmp_path / "a.layers")


def test_a_runtime_that_no_device_has_is_in_nobodys_way(site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its file is not measured, with the reason; the others are."""
    own = type(base.of("layers"))
    monkeypatch.setattr(own, "on_device", None)
    trivial = site / "edgekd_layers" / "trivial.layers"
    onnx = Path(on_device.__file__).parent / "models" / "trivial.onnx"
    keys = {"warmup_runs": 1, "warmup_ms": 0, "blocks": 3, "block_ms": 1, "block_runs": 1}
    done = edgekd.profile(trivial, onnx, out=tmp_path / "out", overrides=keys, quiet=True)
    (profile,) = done.result.profiles
    measured = done.result.model(profile.model)
    assert measured is not None
    assert measured.format == "onnx"
    assert done.exit_code == ExitCode.OK
    assert any("has no program for devices" in line for line in lacking(done.result))
    alone = edgekd.profile(trivial, out=tmp_path / "out", overrides=keys, quiet=True)
    assert alone.failures[0].endswith("measure onnx, openvino, tflite")
