"""Files with weights in fewer bits, or 16-bit activations: each is the network with the weights that it holds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from tests.unit.exporting.nets import images
from torch import fx, nn

from edgekd.errors import ExportError
from edgekd.exporting.exporter import Exported, Options, Refused, Source
from edgekd.exporting.formats.onnx import storage
from edgekd.quantization.fold import fold
from edgekd.quantization.rounded import BITS, rounded
from edgekd.recipe.export import Precision
from edgekd.registry import exporters
from edgekd.runtimes import base

FORMATS = ("onnx", "tflite", "openvino")
STORED: tuple[Precision, ...] = ("float16", "int8-weights", "int4-weights")


@pytest.fixture(scope="module")
def net() -> fx.GraphModule:
    """Wide enough that weights, and not names, make up a file."""
    torch.manual_seed(0)
    wide = nn.Sequential(nn.Conv2d(3, 32, 3), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 64, 3, groups=2), nn.ReLU6(),
                         nn.Conv2d(64, 64, 3, 2, 1), nn.ReLU(), nn.MaxPool2d(3, 2, 1), nn.AdaptiveAvgPool2d(1),
                         nn.Flatten(), nn.Linear(64, 10)).eval()  # fmt: skip
    return fold(wide, images(1))


def export(source: Source, format: str, precision: Precision, folder: Path) -> Exported:
    exporter = exporters.get(format)()  # type: ignore[operator]
    return exporter.export(source, folder / f"{precision}{exporter.suffix}", Options(precision, log=folder / "log"))


def error(exported: Exported, reference: fx.GraphModule) -> float:
    """Greatest difference from torch, as a share of the logits' range."""
    x = images(8)
    with torch.no_grad():
        expected = reference(x).numpy()
    found = base.run_file(exported.paths[0], exported.format, x.numpy())
    return float(np.abs(found - expected).max() / np.ptp(expected))


@pytest.fixture(scope="module")
def float_bytes(net: fx.GraphModule, tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    """Size of the float32 file of each format."""
    folder = tmp_path_factory.mktemp("float")
    return {name: export(Source(net, images(1)), name, "float32", folder).bytes for name in FORMATS}


@pytest.mark.parametrize("precision", STORED)
@pytest.mark.parametrize("format", FORMATS)
def test_a_file_is_the_network_with_its_weights(
    format: str, precision: Precision, net: fx.GraphModule, float_bytes: dict[str, int], tmp_path: Path
) -> None:
    reference = rounded(net, precision)
    source = Source(reference, images(1))
    exported = export(source, format, precision, tmp_path)
    assert error(exported, reference) < 1e-5
    weights = 4 * sum(parameter.numel() for parameter in net.parameters())
    saved = {"float16": 0.45, "int8-weights": 0.65, "int4-weights": 0.75}[precision] * weights
    assert exported.bytes < float_bytes[format] - saved
    assert exported.inputs[0].dtype == exported.outputs[0].dtype == "float32"
    if precision == "int8-weights":
        before = [path.read_bytes() for path in exported.paths]
        assert [path.read_bytes() for path in export(source, format, precision, tmp_path).paths] == before
    if format == "onnx":
        check_casts(exported.paths[0], precision, tmp_path / "optimized.onnx")


def check_casts(path: Path, precision: Precision, optimized: Path) -> None:
    """ONNX Runtime casts weights when it loads the file; at every inference it would be slower than float."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(optimized)
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    operators = {node.op_type for node in onnx.load(optimized).graph.node}
    assert not operators & {"Cast", "Mul", "DequantizeLinear"}
    stored = {item.data_type for item in onnx.load(path).graph.initializer if len(item.dims) == 4 and item.dims[1] > 1}
    kind = {"float16": "FLOAT16", "int8-weights": "INT8", "int4-weights": "INT4"}[precision]
    assert stored == {onnx.TensorProto.DataType.Value(kind)}


def test_fewer_bits_are_another_network(net: fx.GraphModule) -> None:
    """Else the test above would compare the float network with itself."""
    with torch.no_grad():
        expected = net(images(8))
        errors = [float((rounded(net, precision)(images(8)) - expected).abs().max()) for precision in STORED]
    assert 0 < errors[0] < errors[1] < errors[2]


@pytest.mark.parametrize("precision", BITS)
def test_rounding_twice_is_rounding_once(precision: Precision, net: fx.GraphModule) -> None:
    once = rounded(net, precision)
    for a, b in zip(once.parameters(), rounded(once, precision).parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=0)


def test_weights_that_are_on_no_grid_stay_float(net: fx.GraphModule, tmp_path: Path) -> None:
    model = onnx.load(export(Source(net, images(1)), "onnx", "float32", tmp_path).paths[0])
    before = model.SerializeToString(deterministic=True)
    storage.store_integers(model, 8)
    assert model.SerializeToString(deterministic=True) == before


def test_dynamic(net: fx.GraphModule, float_bytes: dict[str, int], tmp_path: Path) -> None:
    reference = rounded(net, "dynamic")
    exported = export(Source(reference, images(1)), "tflite", "dynamic", tmp_path)
    assert 1e-4 < error(exported, reference) < 0.05, "activations are rounded to 8 bits, and no more than that"
    assert exported.bytes < float_bytes["tflite"] / 2.5
    assert exported.inputs[0].dtype == exported.outputs[0].dtype == "float32"


def test_int16_activations(net: fx.GraphModule, tmp_path: Path) -> None:
    """Calibrated on other images than those it is compared on, and with a padded max-pool."""
    reference = rounded(net, "int16x8")
    source = Source(reference, images(1), samples=images(16, seed=5))
    exported = export(source, "tflite", "int16x8", tmp_path)
    assert error(exported, reference) < 1e-3
    assert exported.inputs[0].dtype == exported.outputs[0].dtype == "float32"
    with pytest.raises(ExportError, match="int16x8 needs samples"):
        export(replace(source, samples=None), "tflite", "int16x8", tmp_path)


def test_what_is_refused_is_refused_with_a_reason(net: fx.GraphModule, tmp_path: Path) -> None:
    refused = {
        (name, precision)
        for name in ("onnx", "tflite", "openvino")
        for precision, found in exporters.get(name).precisions.items()  # type: ignore[attr-defined]
        if isinstance(found, Refused)
    }
    assert refused == {(name, precision) for name in ("onnx", "openvino") for precision in ("dynamic", "int16x8")}
    for name, precision in refused:
        with pytest.raises(ExportError, match=f"{name} has no {precision}: ") as caught:
            export(Source(net, images(1)), name, precision, tmp_path)
        assert "tflite" in caught.value.hint


def test_a_value_that_float16_does_not_hold_is_named() -> None:
    """Infinity would be in the file, and in what it is compared with."""
    layer = nn.Linear(4, 2)
    with torch.no_grad():
        layer.bias.fill_(101_325.0)
    net = fold(layer, torch.zeros(1, 4))
    with pytest.raises(ExportError, match=r"float16 ends at 65,504, and bias has values up to 101,325") as error:
        rounded(net, "float16")
    assert error.value.hint is not None
    assert "int8-weights" in error.value.hint
    assert torch.isfinite(rounded(net, "int8-weights")(torch.zeros(1, 4))).all()
