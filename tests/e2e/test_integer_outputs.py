"""An output of integers that a network computes from its own scores: int8 is held against float on it, too."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import yaml

import edgekd
from edgekd.report.verdict import verdict

NETS = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, num_classes, large):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())
        self.head, self.other, self.large = nn.Linear(32, num_classes), nn.Linear(32, 4), large
    def forward(self, x):
        z = self.body(x)
        scores = self.other(z)
        # One int8 scale holds for all that is concatenated.
        scores = torch.cat([scores, 0 * scores[:, :1] + self.large], 1)[:, :4]
        return {"logits": self.head(z), "second": scores.argmax(1), "flags": scores > 0.1}
"""


@pytest.mark.parametrize(("large", "lost"), [(1.0, False), (1e4, True)])
def test_an_integer_that_int8_has_lost_is_no_pass(tmp_path: Path, large: float, lost: bool) -> None:
    (tmp_path / "nets.py").write_text(NETS)
    random = np.random.default_rng(0)
    x, y = random.integers(0, 255, (240, 12, 12, 3), np.uint8), np.arange(240) % 4
    x[np.arange(240), :, y * 3, :] = 255
    np.savez(tmp_path / "d.npz", x_train=x[:160], y_train=y[:160], x_test=x[160:], y_test=y[160:])
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"edgekd: 2\ndata: {{source: 'npz:{tmp_path}/d.npz', image_size: 12}}\n"
        f"student: {{model: 'nets.py:Net', args: {{large: {large}}}, outputs: all}}\n"
        "distill: {epochs: 2, batch_size: 32, lr: 0.02, losses: [{kind: task}]}\n"
        "quantize: {method: ptq}\nexport: [onnx]\n"
    )
    result = edgekd.run(recipe, out=tmp_path / "reports", quiet=True).result
    assert result is not None
    (gate,) = [gate for gate in result.gates if gate.name == "worst_agreement"]
    assert (gate.model, gate.n, gate.reference) == ("onnx", 80, "distilled")
    assert gate.measured is not None
    assert (gate.verdict, gate.blocks) == (("fail", True) if lost else ("pass", False)), gate
    lines = [line for line in verdict(result).failures if "is another value in int8 than in float" in line]
    assert bool(lines) is lost
    if not lost:
        return
    # What it says to type works.
    (typed,) = {re.search(r"--set ([\"'])(.*?)\1", line)[2] for line in lines}  # type: ignore[index]
    key, _, value = typed.partition("=")
    again = edgekd.run(recipe, overrides={key: yaml.safe_load(value)}, out=tmp_path / "reports", quiet=True).result
    assert again is not None
    assert [gate.verdict for gate in again.gates if gate.name == "worst_agreement"] == ["pass"], typed
