"""What a layer kept in float gives to others is in the files what it is in torch, whoever reads which part of it."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.unit.exporting.nets import BITS, images
from torch import Tensor, nn
from torch.nn import functional as F  # as everyone calls it

from edgekd.exporting import outputs
from edgekd.exporting.exporter import Options, Source
from edgekd.quantization import qat
from edgekd.registry import exporters

STEPS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
    "double": lambda x: x * 2,
    "max pool": lambda x: F.max_pool2d(x, 3, 1, 1),
    "average pool": lambda x: F.avg_pool2d(x, 2),
    "pad": lambda x: F.pad(x, (1, 1, 1, 1)),
    "nearest": lambda x: F.interpolate(x, scale_factor=2),
    "roll": lambda x: torch.roll(x, 1, 2),
    "turn": lambda x: x.transpose(2, 3),
    "flip": lambda x: torch.flip(x, [2]),  # this and what follows have no int8 rule
    "abs": torch.abs,
    "pad with 0.2": lambda x: F.pad(x, (1, 0, 0, 1), value=0.2),
}
PARTS: dict[str, Callable[[Tensor], Tensor]] = {
    "first": lambda x: x[:, :2],
    "second": lambda x: x.chunk(2, 1)[1],
    "rows": lambda x: x[:, :2, 1:],
    "shuffled": lambda x: x[:, [3, 1]],
}


class Shared(nn.Module):
    """Layers whose channels differ a thousandfold, each read by three: a part of it, up to two steps, and a convolution."""

    def __init__(self, seeds: range) -> None:
        super().__init__()
        draw = random.Random(seeds.start)
        torch.manual_seed(seeds.start)
        self.shared = nn.ModuleList(nn.Conv2d(3, 4, 3, 1, 1) for _ in seeds)
        self.ends = nn.ModuleList(nn.Conv2d(2, 3, 3, 1, 1) for _ in range(3 * len(seeds)))
        self.readers = [
            (draw.choice([*PARTS]), draw.sample([*STEPS], draw.randint(0, 2)), draw.random() < 0.6) for _ in self.ends
        ]
        with torch.no_grad():
            for layer in self.shared:
                layer.weight[:2] *= 1000  # type: ignore[index, operator]  # a ModuleList forgets the type

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        found = {}
        for index, (part, steps, ends) in enumerate(self.readers):
            value = PARTS[part](self.shared[index // 3](x))
            for step in steps:
                value = STEPS[step](value)
            name = "_".join([str(index), part, *steps]).replace(" ", "_").replace(".", "")
            found[name] = self.ends[index](value) if ends else value
        return found


@pytest.mark.parametrize("format", ["onnx", "tflite", "openvino"])
def test_who_reads_a_layer_kept_in_float_reads_what_torch_does(format: str, tmp_path: Path) -> None:
    net = Shared(range(4)).eval()
    prepared = qat.prepare(net, images(1), weight_bits=BITS, keep_float=["shared"])
    with torch.no_grad():
        prepared.module(images(32, seed=2))
    qat.freeze_observers(prepared.module)
    source = Source(net, images(1), lambda fold: qat.convert(prepared.module, fold_weights=fold), prepared.float_ops)
    exporter = exporters.get(format)()
    exported = exporter.export(source, tmp_path / f"net{exporter.suffix}", Options("int8", log=tmp_path / "log"))
    inputs = dict.fromkeys(source.inputs, images(8, seed=3).numpy())
    expected = source.computed("int8", inputs)
    found = outputs.run(exported, inputs, expected)
    errors = {name: float(np.sqrt(np.mean((found[name] - exact) ** 2)) / exact.std()) for name, exact in expected.items()}
    assert {name: error for name, error in errors.items() if error > 0.02} == {}
