"""The Python of README.md and docs/python.md runs as it stands there, and its table has the fields that there are."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from edgekd.artifacts.profile import Profiled
from edgekd.engine.checking import Checked
from edgekd.engine.plan import Planned
from edgekd.engine.runner import Outcome
from edgekd.results.run import RunResult

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "python.md").read_text("utf-8")
NET = """
from torch import nn

class Net(nn.Sequential):
    def __init__(self, num_classes=4):
        super().__init__(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, num_classes))
"""
RECIPE = """
edgekd: 1
data: {source: "npz:photos.npz", image_size: 16}
teacher: {model: "net.py:Net", weights: net.pt}
student: {model: "net.py:Net"}
distill: {epochs: 1, warmup_epochs: 0, batch_size: 16, losses: [{kind: task}, {kind: kd}]}
baselines: []
export: [onnx]
"""


def test_every_block_runs_one_after_the_other(
    tmp_path: Path, npz: Callable[..., str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    npz("photos.npz")
    Path("net.py").write_text(NET)
    Path("my.yaml").write_text(RECIPE)
    names: dict[str, type[torch.nn.Module]] = {}
    exec(NET, names)
    torch.save(names["Net"]().state_dict(), "net.pt")
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) == 3
    (session,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    assert blocks[0] == session
    space: dict[str, object] = {}
    for block in blocks:
        exec(block, space)
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].endswith(" reports/my/" + printed[0].rpartition("/")[2])
    assert "('onnx_float', " in printed[1]
    assert printed[2].startswith("build/")
    assert "seed" in printed[3]


def test_the_table_of_results_has_fields_that_there_are() -> None:
    kinds = {kind.__name__: kind for kind in (Checked, Planned, Outcome, Profiled, RunResult)}
    results = PAGE.split("## Results")[1].split("\n## ")[0]
    rows = re.findall(r"^\| .+ \| (?:a tuple of )?`(\w+)` \| (.+) \|$", results, re.MULTILINE)
    assert [name for name, _ in rows] == ["Checked", "Planned", "Outcome", "Profiled", "RunResult"]
    for name, fields in rows:
        for field in re.findall(r"`(\w+)`", fields):
            assert hasattr(kinds[name], field) or field in kinds[name].__dataclass_fields__, f"{name}.{field}"
