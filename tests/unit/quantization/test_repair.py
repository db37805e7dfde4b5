"""The fewest layers in float that meet a limit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from tests.unit.exporting.nets import BITS, images
from tests.unit.quantization.test_sensitivity import Chain, calibrated
from torch import Tensor, nn

from edgekd.errors import QuantizeError
from edgekd.exporting.exporter import Options, Source
from edgekd.quantization import qat, sensitivity
from edgekd.quantization.repair import adopt, repair
from edgekd.quantization.sensitivity import Sensitivity
from edgekd.quantization.weighted_layers import fake_quantizer
from edgekd.registry import exporters
from edgekd.runtimes import base
from edgekd.runtimes.onnxruntime import imported


def row(name: str, db: float, size: int = 10, keep: tuple[str, ...] = ()) -> Sensitivity:
    return Sensitivity(name, name, "conv2d", db, db, db, "weight", keep or (f"%{name}",), size)


RANKED = [row(name, db) for db, name in enumerate("abcdefgh")]


@pytest.mark.parametrize("needed", range(9))
def test_repair_finds_the_fewest_layers(needed: int) -> None:
    asked: list[frozenset[str]] = []

    def top1(keep: frozenset[str]) -> float:
        asked.append(keep)
        return 0.9 if len(keep) >= needed else 0.5 + 0.01 * len(keep)

    found = repair(RANKED, top1, lambda found: found >= 0.9)
    assert found.keep_float == tuple(f"%{name}" for name in "abcdefgh"[:needed])
    assert (found.result, found.float_bytes) == (0.9, 10 * needed)
    assert len(asked) == len(set(asked)) <= 8, "each try costs a calibration and an evaluation"
    assert [tried.layers for tried in found.tried] == [len(keep) for keep in asked]


def test_repair_counts_a_shared_node_once() -> None:
    ranked = [row("a", 1, 30, ("%a", "%b")), row("b", 2, 20, ("%b", "%c")), row("c", 3, 5), row("d", 4, 1)]
    found = repair(ranked, lambda keep: len(keep) / 10, lambda found: found >= 0.3)
    assert found.keep_float == ("%a", "%b", "%c")
    assert found.float_bytes == 55


def test_repair_that_cannot_be() -> None:
    with pytest.raises(QuantizeError) as error:
        repair(RANKED, lambda keep: 0.7, lambda found: found >= 0.9, most=4)
    assert str(error.value) == (
        "the limit is not met with the 4 most sensitive layers in float\n"
        "  → raise the limit, allow more layers in float, or use quantize: {method: qat}"
    )


def test_repair_of_a_real_network() -> None:
    net = Chain("channels").eval()
    x = images(64, seed=6)
    with torch.no_grad():
        labels = net(x).argmax(1)

    def top1(keep: frozenset[str]) -> float:
        with torch.no_grad():
            graph = qat.convert(calibrated(net, keep_float=keep).module, fold_weights=True)
            return float((graph(x).argmax(1) == labels).float().mean())

    assert top1(frozenset()) < 0.9
    ranked = sensitivity.measure(calibrated(net).module, [images(16, seed=8)])
    found = repair(ranked, top1, lambda found: found >= 0.9)
    assert found.keep_float == ranked[0].keep_float
    assert found.result >= 0.9
    assert found.tried[0].layers == 0


class Loud(nn.Module):
    """A concatenation of a quiet convolution and of an image a hundred times as large."""

    def __init__(self) -> None:
        super().__init__()
        self.quiet = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU())
        self.mix = nn.Conv2d(11, 10, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.mix(torch.cat([self.quiet(x), 100 * x], 1)).mean((2, 3))


@pytest.mark.parametrize("format", ["onnx", "tflite", "openvino"])
@pytest.mark.parametrize(("net", "keep"), [("chain", ["depthwise", "pointwise"]), ("loud", ["%cat"]), ("loud", ["mix"])])
def test_what_is_in_float_is_in_float_in_the_file(net: str, keep: list[str], format: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = (Chain("channels") if net == "chain" else Loud()).eval()
    prepared = calibrated(model, keep_float=keep, weight_bits=BITS)
    source = Source(model, images(1), lambda fold: qat.convert(prepared.module, fold_weights=fold), prepared.float_ops)
    exporter = exporters.get(format)()
    path = tmp_path / f"net{exporter.suffix}"
    exported = exporter.export(source, path, Options("int8", "float32", tmp_path / "log"))
    assert exported.float_ops == prepared.float_ops
    if format == "onnx":
        weights = {tensor.data_type for tensor in onnx.load(path).graph.initializer if len(tensor.dims) == 4}
        assert onnx.TensorProto.FLOAT in weights or keep == ["%cat"]
    if format == "tflite":
        assert exported.float_tensors
    x = images(8, seed=5)
    with torch.no_grad():
        expected = qat.convert(prepared.module, fold_weights=True)(x).numpy()
    found = base.run_file(path, format, x.numpy())
    assert np.abs(found - expected).max() <= 1.01 * qat.output_scale(prepared.module)[0]


@pytest.mark.parametrize("head", [nn.Conv2d(8, 10, 3), nn.Sequential(nn.Conv2d(8, 10, 3), nn.ReLU())], ids=["bare", "relu"])
def test_onnx_runtime_does_not_round_what_is_in_float(head: nn.Module, tmp_path: Path) -> None:
    """By itself it takes a float layer between integers for one that was forgotten (its WeightBiasQuantization)."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), head, nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    prepared = calibrated(model, keep_float=["2"])
    source = Source(model, images(1), lambda fold: qat.convert(prepared.module, fold_weights=fold), prepared.float_ops)
    exporters.get("onnx")().export(source, tmp_path / "net.onnx", Options("int8", "float32", tmp_path / "log"))
    runtime = imported()
    options = runtime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 3
    runtime.InferenceSession(str(tmp_path / "net.onnx"), options, providers=["CPUExecutionProvider"])
    weights = {
        tuple(tensor.dims[:2]): tensor.data_type
        for tensor in onnx.load(tmp_path / "optimized.onnx").graph.initializer
        if len(tensor.dims) == 4
    }
    assert sorted(weights.values()) == [onnx.TensorProto.FLOAT, onnx.TensorProto.INT8]


def test_what_feeds_a_concatenation_in_float_is_in_float() -> None:
    float_ops = qat.prepare(Loud().eval(), images(1), keep_float=["%cat"]).float_ops
    assert [left.reason for left in float_ops if left.node == "cat"] == ["kept in float"]
    reason = "feeds forward() cat (%cat), which is kept in float"
    assert sorted(left.operator for left in float_ops if left.reason == reason) == ["conv2d", "mul", "relu"]
    assert all(left.asked for left in float_ops)


def test_a_repaired_graph_adopts_weights_and_ranges() -> None:
    """In what stays int8 nothing moves: the float layer is all that is different."""
    net = Chain("channels").eval()
    quantized = calibrated(net).module
    with torch.no_grad():
        for parameter in quantized.parameters():
            parameter.mul_(1.25)  # trained on
    again = qat.prepare(net, images(1), keep_float=["depthwise"]).module
    adopt(again, quantized)
    theirs, ours = dict(quantized.named_parameters()), dict(again.named_parameters())
    assert theirs.keys() == ours.keys()
    assert all(torch.equal(theirs[name], ours[name]) for name in ours)
    assert qat.output_scale(again) == qat.output_scale(quantized)
    x = images(4, seed=5)
    qat.set_fake_quant(quantized, False)
    qat.set_observers(quantized, False)
    qat.set_fake_quant(again, False)
    qat.set_observers(again, False)
    torch.testing.assert_close(again(x), quantized(x))
    qat.set_fake_quant(again, True)
    qat.convert(again, fold_weights=True)  # every range is known


class Head(nn.Module):
    """A layer whose result ``hand_on`` gives to the outputs."""

    def __init__(self, hand_on: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head, self.hand_on = nn.Linear(8, 4), hand_on

    def forward(self, x: Tensor) -> Any:
        return self.hand_on(self.head(self.body(x)))


@pytest.mark.parametrize(
    "hand_on",
    [
        lambda y: y,
        lambda y: y[:, :3],
        lambda y: y[:, 3],
        lambda y: y.reshape(-1, 2, 2),
        lambda y: y.reshape(-1, 2, 2).transpose(1, 2)[:, 0],
        lambda y: {"box": y[:, :3], "flag": (y[:, 3] > 0).float()},
        lambda y: {"box": y.reshape(-1, 2, 2)[:, 1], "all": y},
        lambda y: {"box": torch.split(y, 2, dim=1)[0], "rest": torch.split(y, 2, dim=1)[1].flatten()},
    ],
)
def test_no_rounding_stands_behind_what_is_kept_in_float(hand_on: Callable[[Tensor], Any]) -> None:
    """Whichever way the result goes to the outputs: one scale for all of it would lose a value that is small."""
    torch.manual_seed(0)
    net = Head(hand_on).eval()
    prepared = calibrated(net, keep_float=["head"])
    rounded = {str(node.args[0]) for node in prepared.module.graph.nodes if fake_quantizer(prepared.module, node)}
    nodes = [node.name for node in prepared.module.graph.nodes]
    behind = set(nodes[nodes.index("linear") :])
    assert not rounded & behind
    assert [left.node for left in prepared.float_ops if left.asked] == ["linear"]
    assert not [left for left in prepared.float_ops if left.node.startswith(("slice", "view", "transpose", "permute"))]


def test_what_int8_reads_is_rounded_right_behind_what_is_kept() -> None:
    """Moving int8 values is a quarter of the bytes."""

    def hand_on(y: Tensor) -> Tensor:
        rows = y.reshape(-1, 2, 2)
        return torch.relu(rows.transpose(1, 2)) * 2

    torch.manual_seed(0)
    prepared = calibrated(Head(hand_on).eval(), keep_float=["head"])
    assert "linear" in {str(node.args[0]) for node in prepared.module.graph.nodes if fake_quantizer(prepared.module, node)}
