"""What the runtimes compute in float, read from their own graphs."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import torch
from tests.unit.exporting.nets import Residual, Tokens, UNet, make_source
from torch import Tensor, nn

from edgekd.devices.isa import detect_isa
from edgekd.exporting import optimized
from edgekd.exporting.exporter import Options, Source
from edgekd.quantization.quantizer import layer_path
from edgekd.registry import exporters
from edgekd.report.runtime import in_float
from edgekd.results.models import ModelRecord
from edgekd.results.runtime import FloatOperators, RuntimeGraph
from edgekd.runtimes import inside

FORMATS = ("onnx", "tflite", "openvino")


class Curves(nn.Module):
    """GELU and tanh, which have an int8 rule, and the tokens' mean."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.GELU(), nn.Conv2d(8, 8, 1), nn.Tanh())
        self.head = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.body(x).flatten(2).transpose(1, 2).mean(1))
        return out


NETS = {"residual": Residual, "tokens": Tokens, "curves": Curves, "unet": UNet}


@cache
def source(net: str) -> Source:
    torch.manual_seed(0)
    return make_source(NETS[net]())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("optimized")


@cache
def looked(net: str, format: str, folder: Path) -> RuntimeGraph:
    exporter = exporters.get(format)()
    exported = exporter.export(source(net), folder / f"{net}{exporter.suffix}", Options("int8"))
    graph = source(net).int8(fold_weights=True)
    modules = {node.name: layer_path(node) for node in graph.graph.nodes}
    return optimized.look(exported.paths[0], format, graph, source(net).float_ops, modules)


@pytest.mark.parametrize("format", FORMATS)
def test_of_a_plain_network_only_the_edges_are_in_float(format: str, folder: Path) -> None:
    graph = looked("residual", format, folder)
    assert graph.operators >= 6
    assert graph.unexpected() == ()
    reasons = {found.reason for found in graph.floats}
    assert "conversion of the input" in reasons
    assert reasons <= {"conversion of the input", "conversion of the output"}


@pytest.mark.parametrize("format", FORMATS)
def test_what_the_rules_left_in_float_is_expected_with_their_reason(format: str, folder: Path) -> None:
    """TensorFlow Lite writes a layer norm with ten operators, OpenVINO calls it MVN."""
    graph = looked("tokens", format, folder)
    mine = [found for found in graph.floats if found.reason == "no runtime has layer normalisation in int8"]
    assert mine
    assert all(found.expected and found.layers == ("norm",) for found in mine)
    own = {"mean"}
    if format == "openvino" and not detect_isa().has_int8_dot:
        own.add("attention")  # its softmax is computed in float there
    assert not [found for found in graph.unexpected() if not own & {*found.layers}]


def test_what_a_runtime_has_no_int8_kernel_for_is_named_with_its_layer(folder: Path) -> None:
    onnx = {found.operator: found for found in looked("curves", "onnx", folder).unexpected()}
    assert onnx["Gelu"] == FloatOperators(
        "Gelu", 1, "float32", False, "ONNX Runtime has no int8 kernel for Gelu", ("body.1",)
    )
    assert onnx["Tanh"].layers == ("body.3",)
    assert onnx["ReduceMean"].reason == "ONNX Runtime has no int8 kernel for a mean over these dimensions"
    assert looked("curves", "tflite", folder).unexpected() == ()


def test_what_the_delegate_did_not_take_is_named(folder: Path) -> None:
    graph = looked("curves", "tflite", folder)
    assert [took.name for took in graph.delegates] == ["XNNPACK"]
    assert "1 GELU" in graph.undelegated


def test_openvinos_roundings_in_float_are_counted(folder: Path) -> None:
    """The result of a convolution that a concatenation and another layer read is stored in float."""
    (found,) = looked("unet", "openvino", folder).unexpected()
    assert found.operator == "Subgraph (FakeQuantize)"
    assert found.count >= 2
    assert "stored in float" in found.reason


def test_a_float_part_with_many_paths_is_walked_once() -> None:
    """Sixty residual additions are 2**60 paths."""

    def behind(place: int) -> list[int | float]:
        return [0.5] if place == 60 else [place + 1, min(place + 2, 60)]

    assert inside.follow([0], behind, int) == (0.5,)


def test_in_words() -> None:
    floats = (
        FloatOperators("QuantizeLinear", 1, "float32", True, "conversion of the input"),
        FloatOperators("FusedConv", 2, "float32", False, "an activation function", ("e1.0", "e2.0")),
        FloatOperators("Convolution", 1, "bfloat16", False),
    )
    graph = RuntimeGraph("onnxruntime 1", 9, floats)
    assert list(in_float(ModelRecord("onnx", "artifact", "onnx", "int8", runtime_graph=graph))) == [
        "ONNX Runtime runs 2 FusedConv (e1.0, e2.0) in float32 although the file is int8: an activation function",
        "ONNX Runtime runs 1 Convolution in bfloat16 although the file is int8: the reason is not known",
    ]
