"""OpenVINO's own format: what edgekd rewrites in it keeps the values, and is worth its place."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.unit.exporting.nets import BITS, images, make_source
from torch import Tensor, nn

from edgekd.exporting import parity
from edgekd.exporting.exporter import Exported, Options, Source
from edgekd.quantization import qat
from edgekd.registry import exporters
from edgekd.runtimes import base


class Gated(nn.Module):
    """Squeeze-and-excitation whose gates stay far from 1, as those of a trained MobileNetV3 do."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU())
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(16, 8, 1), nn.ReLU(), nn.Conv2d(8, 16, 1), nn.Hardsigmoid()
        )
        self.head = nn.Sequential(nn.Conv2d(16, 10, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        out: Tensor = self.head(self.gate(x) * x)
        return out


@pytest.fixture(scope="module")
def gated(tmp_path_factory: pytest.TempPathFactory) -> tuple[np.ndarray, float, Exported]:
    """Logits of the int8 graph in torch, their scale, and the file."""
    torch.manual_seed(0)
    net = Gated().eval()
    prepared = qat.prepare(net, images(1), weight_bits=BITS)
    with torch.no_grad():
        for contrast in (0.5, 1, 2):  # ranges that grow while they are observed, as in training
            prepared.module(contrast * images(64))
    source = Source(net, images(1), lambda fold_weights: qat.convert(prepared.module, fold_weights=fold_weights))
    exported = exporters.get("openvino")().export(source, tmp_path_factory.mktemp("ir") / "gated.xml", Options())
    assert exported.output_scale is not None
    with torch.no_grad():
        return source.int8(fold_weights=True)(images(64)).numpy(), exported.output_scale, exported


def test_a_hard_sigmoid_rounds_as_torch_does(gated: tuple[np.ndarray, float, Exported]) -> None:
    """OpenVINO runs clamp, rounding, product and rounding behind a convolution as one, without the first rounding."""
    reference, scale, exported = gated
    found = parity.compare(reference, base.run_file(exported.paths[0], "openvino", images(64).numpy()), scale)
    assert found.max_lsb <= 1
    assert found.mean_lsb < 0.02


def test_a_product_with_a_constant_keeps_the_integers() -> None:
    """Its scale is derived, not observed: clipped values would give one that is all but the same."""
    prepared = qat.prepare(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Hardsigmoid(), nn.Flatten()).eval(), images(1))
    for contrast in (0.5, 2, 8):
        prepared.module(contrast * images(16))
    graph = qat.convert(prepared.module, fold_weights=True).graph
    (product,) = (node for node in graph.nodes if node.target is torch.ops.aten.mul.Tensor)
    (before,), (after,) = product.args[0].args[1:2], next(iter(product.users)).args[1:2]
    assert after == pytest.approx(before / 6, rel=1e-6)


def test_the_product_of_a_hard_sigmoid_is_one_with_its_rounding(gated: tuple[np.ndarray, float, Exported]) -> None:
    import openvino

    model = openvino.Core().read_model(gated[2].paths[0])
    operands = [
        (value.get_node(), node)
        for node in model.get_ordered_ops()
        if node.get_type_name() == "Multiply"
        for value in node.input_values()
        if value.get_node().get_type_name() == "FakeQuantize"
    ]
    assert len({product.get_name() for _, product in operands}) == 1, "gate times features: no product with 1/6"
    (gate,) = (
        value for value, _ in operands
        if float(value.input_value(2).get_node().data) == pytest.approx(6 * float(value.input_value(4).get_node().data))
    )  # fmt: skip
    assert gate.get_attributes()["levels"] == 256


def test_the_reader_infers_what_is_left_out(gated: tuple[np.ndarray, float, Exported]) -> None:
    import openvino

    path = gated[2].paths[0]
    inner = re.findall(r'<layer [^>]* type="(?!Parameter|Result).*?</layer>', path.read_text(encoding="utf-8"))
    assert inner
    assert not any("<dim>" in layer for layer in inner)
    model = openvino.Core().read_model(path)
    shapes = {node.get_type_name(): node.output(0).get_partial_shape() for node in model.get_ordered_ops()}
    assert list(shapes["Convolution"])[1].get_length() == 10
    assert model.input(0).any_name == "input"
    assert model.output(0).any_name == "logits"


class Tokens(nn.Module):
    """A class token with so little variance that the epsilon of its norm counts, as trained vision transformers have one."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 32, 4, 4)
        self.token, self.position = nn.Parameter(torch.randn(1, 1, 32) * 0.05), nn.Parameter(torch.full((1, 19, 32), -1e-2))
        self.norm, self.head = nn.LayerNorm(32, 1e-3), nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        # Its zero point is 0, as far below as above: only then is the scale moved.
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x, x * -1.0], 1) + self.position
        out: Tensor = self.head(self.norm(x)[:, :2].mean(1))
        return out


def test_epsilon_is_not_lost_behind_a_scale(tmp_path: Path) -> None:
    torch.manual_seed(0)
    source = make_source(Tokens())
    exported = exporters.get("openvino")().export(source, tmp_path / "tokens.xml", Options())
    with torch.no_grad():
        reference = source.int8(fold_weights=True)(images(64)).numpy()
    output = base.run_file(exported.paths[0], "openvino", images(64).numpy())
    found = parity.compare(reference, output, exported.output_scale)
    assert found.max_lsb <= 1  # type: ignore[operator]  # logits in int8 have steps
    assert found.mean_lsb < 0.02  # type: ignore[operator]
