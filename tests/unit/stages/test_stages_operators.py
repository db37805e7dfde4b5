"""Operators that a format cannot have, said before anything is trained."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from edgekd import cli
from edgekd.assembly import operators
from edgekd.engine import runner
from edgekd.engine.runner import Options
from edgekd.errors import ExportError, LayerError, QuantizeError
from edgekd.loading import load
from edgekd.progress import Silent


class Said(Silent):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


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


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (
            "quantize: {method: ptq, keep_float: [convs]}",
            "keep_float: the graph has no layer 'convs'\n  → did you mean conv?",
        ),
        (
            "teacher: {model: 'net.py:Net', train: {epochs: 1}}\n"
            "distill: {epochs: 1, losses: [{kind: fitnet, layers: {convs: conv}}]}",
            "distill.losses[0] (fitnet): the student has no layer 'convs' that gives a feature map\n  → did you mean conv?",
        ),
    ],
    ids=["keep_float", "losses"],
)
def test_layers_that_are_not_there_are_told_by_plan_and_before_anything_is_trained(
    npz: Callable[..., str], tmp_path: Path, keys: str, said: str
) -> None:
    path = recipe(npz, tmp_path, "[onnx]")
    text = path.read_text()
    path.write_text(("\n".join(text.splitlines()[:3]) if "distill" in keys else text) + f"\n{keys}\n")
    with pytest.raises((QuantizeError, LayerError), match=re.escape(said)):
        CliRunner().invoke(cli.cli, ["plan", str(path)], catch_exceptions=False)
    progress = Said()
    with pytest.raises((QuantizeError, LayerError), match=re.escape(said)):
        runner.run(load(path), Options(tmp_path / "out", progress))
    assert not [line for line in progress.lines if line.startswith("[1/")]


def test_a_plan_with_layers_lists_them(npz: Callable[..., str], tmp_path: Path) -> None:
    path = str(recipe(npz, tmp_path, "[onnx, tflite]", "false"))
    text = CliRunner().invoke(cli.cli, ["plan", path, "--layers"]).output
    assert "tflite cannot have fft_rfft" in text
    assert "remove tflite from export" in text
    told = json.loads(CliRunner().invoke(cli.cli, ["plan", path, "--layers", "--json"]).output)
    assert [lack["format"] for lack in told["lacking"]] == ["tflite"]
