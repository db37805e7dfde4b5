"""ONNX Runtime computes in int8 what the file has in int8, with the integers that torch has."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from tests.unit.exporting.nets import Residual, UNet, images, make_source
from torch import Tensor, nn

from edgekd.exporting import inside, optimized
from edgekd.exporting.capture import captured
from edgekd.exporting.exporter import Exported, Options, Source
from edgekd.exporting.formats import onnx as onnx_format
from edgekd.quantization import qat
from edgekd.registry import exporters
from edgekd.results.runtime import RuntimeGraph
from edgekd.runtimes import base


class Clamped(nn.Module):
    """Activation functions whose limits are no ends of an int8 range, and one that rounds to a tie at its ends."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.first, self.activation, self.second = nn.Conv2d(3, 8, 3, 2, 1), activation, nn.Conv2d(3, 8, 3, 2, 1)
        self.head = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        both = torch.cat([self.activation(3 * self.first(x)), 9 * self.second(x)], 1)
        out: Tensor = self.head(both.amax((2, 3)))
        return out


class Hard(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.Hardtanh(), nn.Conv2d(8, 8, 3, 2, 1), nn.Hardtanh())
        self.head = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.body(3 * x).amax((2, 3)))
        return out


class Means(nn.Module):
    """Means over height, over width, and over both without keeping them, as x.mean((2, 3)) is written."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 1, 1), nn.ReLU())
        self.rows, self.columns, self.head = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1), nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.rows(x.mean(2, keepdim=True)) + self.columns(x.mean(-1, keepdim=True))
        out: Tensor = self.head(x.mean((2, 3)))
        return out


NETS = {
    "relu": UNet,
    "relu6": lambda: Clamped(nn.ReLU6()),
    "hardtanh": lambda: Clamped(nn.Hardtanh()),
    "tie": Hard,
    "means": Means,
}


def export(net: nn.Module, folder: Path, activations: str = "uint8") -> tuple[Source, Exported]:
    source = make_source(net)
    options = Options("int8", activations=activations)  # type: ignore[arg-type]  # a literal of the test
    return source, exporters.get("onnx")().export(source, folder / "net.onnx", options)


def plain(source: Source, activations: str) -> onnx.ModelProto:
    """The graph as it is before the passes for ONNX Runtime."""
    with captured(None, "a test"):
        return onnx_format.build(source, Options("int8", activations=activations), "net.onnx")[0]  # type: ignore[arg-type]


def looked(source: Source, path: Path) -> RuntimeGraph:
    return optimized.look(path, "onnx", source.int8(fold_weights=True), source.float_ops, {})


@pytest.mark.parametrize("name", NETS)
def test_onnx_runtime_keeps_it_in_int8_with_the_same_integers(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)  # the network's weights
    source, exported = export(NETS[name](), tmp_path)
    (path,) = exported.paths
    assert looked(source, path).unexpected() == ()
    assert exported.float_tensors == ()
    graph, x = source.int8(fold_weights=True), images(32, seed=9)
    with torch.no_grad():
        exact = graph(x).numpy()
    assert exported.output_scale is not None
    steps = np.abs(base.run_file(path, "onnx", x.numpy()) - exact) / exported.output_scale
    assert np.rint(steps).max() <= 1
    sample = {"input": x[:4].numpy()}
    layers = inside.differences(graph, sample, inside.look(exported, sample))
    assert len(layers) >= 3
    assert max(layer.steps for layer in layers.values()) <= 1
    assert max(layer.share for layer in layers.values()) < 0.02


def test_without_them_a_convolution_and_a_mean_run_in_float(tmp_path: Path) -> None:
    """What a file of today would do; its float tensors are none."""
    torch.manual_seed(0)
    source = make_source(UNet())
    model = plain(source, "uint8")
    onnx.save(model, tmp_path / "plain.onnx")
    left = {found.operator: found for found in looked(source, tmp_path / "plain.onnx").unexpected()}
    assert left.keys() == {"FusedConv", "ReduceMean"}
    assert left["FusedConv"].layers
    assert all(found.count and found.reason for found in left.values())


@pytest.mark.parametrize("activations", ["uint8", "int8"])
def test_a_network_without_such_layers_keeps_its_bytes(activations: str, tmp_path: Path) -> None:
    source, exported = export(Residual(nn.ReLU6), tmp_path, activations)
    model = plain(source, activations)
    assert exported.paths[0].read_bytes() == model.SerializeToString(deterministic=True)


def test_a_layer_kept_in_float_stays_in_float(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = UNet().eval()
    prepared = qat.prepare(net, images(1), keep_float=["e2"])
    prepared.module(images(16, seed=2))
    qat.freeze_observers(prepared.module)
    source = Source(net, images(1), lambda fold: qat.convert(prepared.module, fold_weights=fold), prepared.float_ops)
    exported = exporters.get("onnx")().export(source, tmp_path / "net.onnx", Options("int8"))
    found = looked(source, exported.paths[0])
    assert found.unexpected() == ()
    kept = [part for part in found.floats if part.reason == "kept in float"]
    assert any("Conv" in part.operator for part in kept)
