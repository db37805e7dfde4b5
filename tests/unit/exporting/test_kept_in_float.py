"""What a layer kept in float gives to others is in the files what it is in torch, whoever reads which part of it."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

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

CONSTANT = torch.tensor([0.5, -3.0, 40.0, 0.013]).reshape(1, 4, 1, 1)
WITH_CONSTANTS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "max": torch.maximum,
    "min": torch.minimum,
    "where": lambda x, constant: torch.where(constant > 0, x, constant),
    "where of small ones": lambda x, constant: torch.where(constant > 0, x, constant / 100),
    "remainder": lambda x, constant: torch.remainder(x, constant.abs()),
    "power": lambda x, constant: torch.pow(x.abs() + 0.1, constant / 100),
}


class Constant(nn.Module):
    """An operator of a value and a constant."""

    constant: Tensor

    def __init__(self, way: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.way = way
        self.register_buffer("constant", CONSTANT)

    def forward(self, x: Tensor) -> Tensor:
        return self.way(x, self.constant)


class Between(nn.Module):
    """Operators kept in float between convolutions in int8: with a constant of very different values each, and norms."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        norms = (nn.GroupNorm(2, 4), nn.LayerNorm([4, 10, 10]))
        self.kept = nn.ModuleList([*map(Constant, WITH_CONSTANTS.values()), *norms])
        self.before = nn.ModuleList(nn.Conv2d(3, 4, 3) for _ in self.kept)
        self.behind = nn.ModuleList(nn.Conv2d(4, 5, 3) for _ in self.kept)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        names = [name.replace(" ", "_") for name in (*WITH_CONSTANTS, "group norm", "layer norm")]
        layers = zip(names, self.before, self.kept, self.behind, strict=True)
        return {name: behind(kept(before(x))) for name, before, kept, behind in layers}


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
    found, expected, _ = computed(Shared(range(6)).eval(), ("shared",), format, tmp_path)
    errors = {name: float(np.sqrt(np.mean((found[name] - exact) ** 2)) / exact.std()) for name, exact in expected.items()}
    assert {name: error for name, error in errors.items() if error > 0.02} == {}


@pytest.mark.parametrize("format", ["onnx", "tflite", "openvino"])
def test_an_operator_kept_in_float_between_integers_stays_so_with_a_constant(format: str, tmp_path: Path) -> None:
    """The converter to TFLite would round the constant with the steps of the value: 2 steps and a third of the values."""
    found, expected, steps = computed(Between().eval(), ("kept",), format, tmp_path)
    off = {name: np.abs(found[name] - exact) / steps[name] for name, exact in expected.items()}
    assert {name: float(found.max()) for name, found in off.items() if found.max() > 1.01} == {}
    assert {name: float((found > 0.5).mean()) for name, found in off.items() if (found > 0.5).mean() > 0.01} == {}


def computed(
    net: nn.Module, kept: tuple[str, ...], format: str, folder: Path
) -> tuple[dict[str, Any], dict[str, Any], dict[str, float | None]]:
    """Return the outputs of an int8 file and of torch's int8 graph, and one step of each."""
    prepared = qat.prepare(net, images(1), weight_bits=BITS, keep_float=kept)
    with torch.no_grad():
        prepared.module(images(32, seed=2))
    qat.freeze_observers(prepared.module)
    source = Source(net, images(1), lambda fold: qat.convert(prepared.module, fold_weights=fold), prepared.float_ops)
    exporter = exporters.get(format)()
    exported = exporter.export(source, folder / f"net{exporter.suffix}", Options("int8", log=folder / "log"))
    inputs = dict.fromkeys(source.inputs, images(8, seed=3).numpy())
    expected = source.computed("int8", inputs)
    found = outputs.run(exported, inputs, expected)
    return found, expected, {port.name: port.step for port in exported.outputs}
