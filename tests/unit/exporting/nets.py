"""Small networks with known ranges, for exporting."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from edgekd.devices import schema, targets
from edgekd.exporting import outputs, parity
from edgekd.exporting.exporter import Exported, Options, Source
from edgekd.quantization import qat
from edgekd.recipe.export import Precision
from edgekd.registry import exporters
from edgekd.results.models import OutputParity

BITS = targets.weight_bits_for([schema.load("host")])
"""Bits of a weight that the runtimes on this machine add up without saturating, as a recipe for it has them."""


def images(count: int, size: int = 12, seed: int = 1) -> Tensor:
    """Smooth random images, (count, 3, size, size): neighbours are alike, as in photographs."""
    noise = torch.randn(count, 3, size // 2, size // 2, generator=torch.Generator().manual_seed(seed))
    return nn.functional.interpolate(noise, size=(size, size), mode="bilinear")


def make_source(net: nn.Module, size: int = 12, weight_bits: qat.WeightBits = BITS) -> Source:
    """An int8 source from ranges of a few batches."""
    torch.manual_seed(0)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.normal_(module.running_mean)
    net.eval()
    prepared = qat.prepare(net, images(1, size), weight_bits=weight_bits)
    with torch.no_grad():
        for seed in range(2, 5):
            prepared.module(images(16, size, seed))
    qat.freeze_observers(prepared.module)
    return Source(
        net,
        images(1, size),
        lambda fold_weights: qat.convert(prepared.module, fold_weights=fold_weights),
        prepared.float_ops,
    )


class Residual(nn.Module):
    def __init__(self, activation: Callable[[], nn.Module] = nn.ReLU) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), activation())
        self.branch = nn.Sequential(
            nn.Conv2d(16, 16, 3, padding=1, groups=16, bias=False),
            nn.BatchNorm2d(16),
            activation(),
            nn.Conv2d(16, 16, 1, bias=False),
            nn.BatchNorm2d(16),
        )
        self.activation = activation()
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(), nn.Linear(16, 10))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        out: Tensor = self.head(self.activation(x + self.branch(x)))
        return out


class Tokens(nn.Module):
    """Patches as tokens: a norm, a linear layer on all of them, attention."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 32, 4, 4)
        self.norm = nn.LayerNorm(32)
        self.attention = nn.MultiheadAttention(32, 2, batch_first=True)
        self.head = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.patches(x).flatten(2).transpose(1, 2))
        x = x + self.attention(x, x, x, need_weights=False)[0]
        out: Tensor = self.head(x.mean(1))
        return out


class UNet(nn.Module):
    """Skips into concatenations: a ReLU shares the scale of a layer with negative values."""

    def __init__(self) -> None:
        super().__init__()
        self.e1, self.e2, self.e3 = self._block(3, 8, 1), self._block(8, 16, 2), self._block(16, 16, 2)
        self.up, self.lateral = nn.Upsample(scale_factor=2), nn.Conv2d(16, 16, 1)
        self.d2, self.d1, self.head = self._block(32, 16, 1), self._block(24, 8, 1), nn.Linear(8, 10)

    @staticmethod
    def _block(inputs: int, outputs: int, stride: int) -> nn.Module:
        conv = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        high = self.e1(x)
        low = self.e2(high)
        x = self.d2(torch.cat([self.up(self.lateral(self.e3(low))), low], 1))
        x = self.d1(torch.cat([self.up(x), high], 1))
        out: Tensor = self.head(x.mean((2, 3)))
        return out


class Together(nn.Module):
    """Networks of one image side by side, with an output each: most of an export's time does not depend on the graph."""

    def __init__(self, nets: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.nets = nn.ModuleDict(nets)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {name: net(x) for name, net in self.nets.items()}


def compare(
    source: Source, format: str, folder: Path, precision: Precision = "int8", given: Tensor | None = None
) -> tuple[dict[str, OutputParity], Exported]:
    """Export, and compare each output, of images or what is given, with torch's in the graph that is written."""
    exporter = exporters.get(format)()
    exported = exporter.export(source, folder / f"model{exporter.suffix}", Options(precision=precision, log=folder / "log"))
    inputs = dict.fromkeys(source.inputs, (images(64, seed=9) if given is None else given).numpy())
    if precision == "int8":
        expected = source.computed(precision, inputs)
    else:
        expected = source.expected({name: torch.from_numpy(value) for name, value in inputs.items()})
    found = outputs.run(exported, inputs, expected)
    steps = {port.name: port.step for port in exported.outputs}
    assert all(steps.values()) or precision != "int8"
    return {name: parity.compare(expected[name], found[name], steps[name]) for name in expected}, exported
