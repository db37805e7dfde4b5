"""Operators that a format cannot have, said before anything is trained."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from edgekd import cli, runner
from edgekd.errors import ExportError
from edgekd.loading import load
from edgekd.progress import Silent
from edgekd.runner import Options
from edgekd.stages import operators

NET = """
import torch
class Net(torch.nn.Module):
    def __init__(self, num_classes=10, middle=True):
        super().__init__()
        self.conv, self.middle = torch.nn.Conv2d(1, num_classes, 8, 8), middle
    def forward(self, x):
        x = self.conv(x[:, :1]).flatten(2)
        return x.median(-1)[0] if self.middle else x.mean(-1) + torch.fft.rfft(x).abs().mean(-1)
"""


def recipe(npz: Callable[..., str], folder: Path, formats: str, middle: str = "true") -> Path:
    (folder / "net.py").write_text(NET)
    path = folder / "recipe.yaml"
    path.write_text(
        f"edgekd: 1\ndata: {{source: '{npz()}', image_size: 32}}\n"
        f"student: {{model: 'net.py:Net', args: {{middle: {middle}}}}}\n"
        f"distill: {{epochs: 1, losses: [{{kind: task}}]}}\nexport: {formats}\n"
    )
    return path


def test_a_run_ends_before_it_trains_where_no_format_has_an_operator(npz: Callable[..., str], tmp_path: Path) -> None:
    loaded = load(recipe(npz, tmp_path, "[onnx, tflite]"), ())
    with pytest.raises(ExportError, match=r"no file can be written: onnx: median \(net\.py, line 9"):
        runner.run(loaded, Options(tmp_path / "out", Silent()))


def test_one_format_of_two_is_not_the_end(npz: Callable[..., str], tmp_path: Path) -> None:
    loaded = load(recipe(npz, tmp_path, "[onnx, tflite]", "false"), ())
    found = operators.lacking(loaded.recipe)
    assert {lack.format for lack in found} == {"tflite"}
    assert not operators.impossible(loaded.recipe, found)


def test_a_plan_with_layers_lists_them(npz: Callable[..., str], tmp_path: Path) -> None:
    path = str(recipe(npz, tmp_path, "[onnx, tflite]", "false"))
    text = CliRunner().invoke(cli.cli, ["plan", path, "--layers"]).output
    assert "tflite cannot have fft_rfft" in text
    assert "remove tflite from export" in text
    told = json.loads(CliRunner().invoke(cli.cli, ["plan", path, "--layers", "--json"]).output)
    assert [lack["format"] for lack in told["lacking"]] == ["tflite"]
