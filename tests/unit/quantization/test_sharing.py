"""Layers that are used several times, and weights that are tied: one weight in the graph, and one in every file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.unit.exporting.nets import BITS, images
from torch import Tensor, fx, nn

from edgekd.exporting.exporter import Options, Source
from edgekd.quantization import ptq, qat
from edgekd.quantization.fold import fold
from edgekd.quantization.normalise import normalise
from edgekd.quantization.weighted_layers import layers
from edgekd.recipe.quantize import AdaRound, Ptq
from edgekd.registry import exporters
from edgekd.runtimes import base
from edgekd.taps.taps import Tapped

aten = torch.ops.aten
CHANNELS = 24


class Shared(nn.Module):
    """A convolution used three times, each time with what ``behind`` makes of it, and a tied pair of layers."""

    def __init__(self, behind: Callable[[int], nn.Module], *, plus: bool = False) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, CHANNELS, 3, 2, 1)
        self.step = nn.Conv2d(CHANNELS, CHANNELS, 3, 1, 1)
        self.behind = nn.ModuleList(behind(index) for index in range(3))
        self.a, self.b = nn.Linear(CHANNELS, CHANNELS), nn.Linear(CHANNELS, CHANNELS)
        self.b.weight = self.a.weight
        self.head = nn.Linear(CHANNELS, 10)
        self.plus = plus
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.uniform_(module.running_mean, -0.5, 0.5)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.stem(x))
        for behind in self.behind:
            z = behind(self.step(y))
            y = torch.relu(z + y if self.plus else z)
        y = y.mean((2, 3))
        out: Tensor = self.head(torch.relu(self.a(y)) + 4 * torch.relu(self.b(0.1 * y)))
        return out


def network(kind: str) -> nn.Module:
    torch.manual_seed(0)
    one = nn.BatchNorm2d(CHANNELS)
    behind = {"one norm": lambda _: one, "three norms": lambda _: nn.BatchNorm2d(CHANNELS)}
    return Shared(behind.get(kind, lambda _: nn.Identity()), plus=kind == "sum").eval()


def weights(module: fx.GraphModule) -> list[str]:
    return sorted(name for name, _ in module.named_parameters() if name.endswith("weight"))


@pytest.mark.parametrize("kind", ["plain", "one norm", "sum"])
def test_one_weight_where_the_same_is_folded_into_each_use(kind: str) -> None:
    net, x = network(kind), images(4)
    graph = normalise(net, x[:1])
    names = weights(graph)
    assert len(names) == 4, names
    assert "step.weight" in names
    torch.testing.assert_close(graph(x), net(x))
    prepared = qat.prepare_graph(graph)
    assert prepared.copies == ()
    found = [layer for layer in layers(prepared.module) if layer.node.target is aten.conv2d.default]
    assert len({id(layer.weight) for layer in found}) == 2
    assert len({id(layer.fake_quantize) for layer in found}) == 2
    assert [layer.shared for layer in found] == [False, True, True, True]


def test_separate_weights_where_norms_differ_and_it_is_said() -> None:
    net, x = network("three norms"), images(4)
    prepared = qat.prepare(net, x[:1])
    assert len(weights(prepared.module)) == 6
    assert prepared.copies == (
        "step.weight is one weight in the network and 3 in int8: different batch norms, scales or sums behind its uses are "
        "folded into it",
    )


def test_a_layer_that_is_kept_for_a_feature_is_no_copy() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10)
    ).eval()
    nn.init.constant_(net[1].weight, 2.0)  # type: ignore[arg-type]
    assert qat.prepare(Tapped(net, ["0"]).eval(), images(1)).copies == ()


def test_layers_that_are_equal_by_chance_are_not_shared() -> None:
    layers_ = [nn.Conv2d(8, 8, 1) for _ in range(2)]
    layers_[1].load_state_dict(layers_[0].state_dict())
    net = nn.Sequential(nn.Conv2d(3, 8, 1), layers_[0], nn.BatchNorm2d(8), nn.ReLU(), layers_[1], nn.BatchNorm2d(8)).eval()
    assert len(weights(fold(net, images(1)))) == 3


def test_training_moves_one_weight() -> None:
    net, x = network("one norm"), images(8)
    module = qat.prepare(net, x[:1]).module
    optimizer = torch.optim.SGD(module.parameters(), 0.1)
    for _ in range(2):
        module(x).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    qat.freeze_observers(module)
    again = qat.prepare(net, x[:1]).module
    qat.load_state(again, qat.state(module))
    assert torch.equal(again(x), module(x))
    assert len(weights(module)) == 4


@pytest.fixture(scope="module")
def calibrated() -> tuple[nn.Module, qat.Prepared]:
    net = network("one norm")
    prepared = qat.prepare(net, images(1), weight_bits=BITS)
    ptq.quantize(prepared.module, images(32), Ptq(method="ptq"))
    return net, prepared


@pytest.mark.parametrize("format", ["onnx", "tflite", "openvino"])
def test_one_set_of_integers_in_each_file(calibrated: tuple[nn.Module, qat.Prepared], tmp_path: Path, format: str) -> None:
    net, prepared = calibrated
    exporter: Any = exporters.get(format)()
    source = Source(net, images(1), lambda fold_weights: qat.convert(prepared.module, fold_weights=fold_weights))
    path = exporter.export(source, tmp_path / f"m{exporter.suffix}", Options(log=tmp_path / "log")).paths[0]
    data = path.with_suffix(".bin") if format == "openvino" else path
    one = sum(value.numel() for name, value in net.named_parameters() if name.endswith("weight"))
    assert data.stat().st_size < one + CHANNELS * CHANNELS * 9 + 2**12  # not two copies; names and scales take some room
    if format != "onnx":
        assert data.stat().st_size < one + 13 * 2**10
    x = images(8, seed=3)
    found = base.run_file(path, format, x.numpy())
    expected = qat.convert(prepared.module, fold_weights=True)(x).detach().numpy()
    assert np.abs(found - expected).max() <= 1.01 * qat.output_scale(prepared.module)[0]


def test_biases_and_rounding_of_shared_layers_are_fitted_together() -> None:
    net, x = network("one norm"), images(32)
    errors = []
    for settings in (
        Ptq(method="ptq", bias_correction=False),
        Ptq(method="ptq"),
        Ptq(method="ptq", adaround=AdaRound(steps=60)),
    ):
        prepared = qat.prepare(net, x[:1], weight_bits=7)
        done = ptq.quantize(prepared.module, x, settings)
        with torch.no_grad():
            errors.append(float((prepared.module(x) - net(x)).square().mean()))
        if settings.bias_correction:
            assert [row.shift is not None for row in done.layers] == [True] * 7
        if settings.adaround:
            assert len({row.learned_error for row in done.layers[1:4]}) == 1
            assert all(row.learned_error <= row.nearest_error for row in done.layers)  # type: ignore[operator]
    assert errors[1] < errors[0]
    assert errors[2] < errors[0]


def test_equalization_leaves_shared_layers_as_they_are() -> None:
    net, x = network("plain"), images(16)
    prepared = qat.prepare(net, x[:1])
    ptq.quantize(prepared.module, x, Ptq(method="ptq", equalize=True))
    qat.set_fake_quant(prepared.module, False)
    torch.testing.assert_close(prepared.module(x), net(x), rtol=0, atol=0.02)
