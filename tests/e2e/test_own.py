"""The user's own network and the user's own images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.e2e.conftest import Cli

from edgekd.results.run import read_run

pytestmark = pytest.mark.e2e

NET = """\
from blocks import block
from torch import nn


class Net(nn.Module):
    def __init__(self, num_classes, width=16):
        super().__init__()
        self.features = nn.Sequential(block(3, width), block(width, 2 * width), block(2 * width, 4 * width))
        self.head = nn.Linear(4 * width, num_classes)

    def forward(self, x):
        return self.head(self.features(x).mean((2, 3)))
"""

BLOCKS = """\
from torch import nn


def block(a, b):
    return nn.Sequential(nn.Conv2d(a, b, 3, 2, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU())
"""

RECIPE = """\
edgekd: 1
threads: 1
data: {source: "imagefolder:images", image_size: 32}
student: {model: "net.py:Net", args: {width: 8}}
distill: {epochs: 4, batch_size: 16, lr: 0.02, losses: [{kind: task}]}
quantize: {epochs: 2}
export: [tflite]
"""


def test_own_net_and_an_image_folder(tmp_path: Path, mini: dict[str, np.ndarray]) -> None:
    chosen = {0: "shirt", 7: "sneaker", 8: "bag"}
    for split, count in (("train", 60), ("test", 40)):
        for label, name in chosen.items():
            folder = tmp_path / "project" / "images" / split / name
            folder.mkdir(parents=True)
            for index, pixels in enumerate(mini[f"x_{split}"][mini[f"y_{split}"] == label][:count]):
                Image.fromarray(pixels).save(folder / f"{index}.png")
    project = tmp_path / "project"
    (project / "net.py").write_text(NET)
    (project / "blocks.py").write_text(BLOCKS)
    (project / "own.yaml").write_text(RECIPE)
    cli = Cli(tmp_path, tmp_path / "cache")
    cli("run", "project/own.yaml", "--set", "gates.top1.min=0.8")
    result = read_run(tmp_path / "reports" / "own" / "latest")
    assert result.data.classes == ("bag", "shirt", "sneaker")
    assert result.verdict == "pass"
    model = result.model("tflite")
    assert model is not None
    assert model.float_tensors == ()
