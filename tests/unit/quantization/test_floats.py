"""What lies between float operators stays in float: nothing is gained by rounding it, and an epsilon may be lost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.unit.exporting.nets import images, make_source
from torch import Tensor, nn

from edgekd.exporting import parity
from edgekd.exporting.exporter import Options
from edgekd.quantization import qat
from edgekd.registry import exporters
from edgekd.results.runtime import FloatOperation
from edgekd.runtimes import base


class Net(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.function, self.head = nn.Conv2d(3, 8, 3, 2, 1), function, nn.Conv2d(8, 5, 6)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.function(self.conv(x).relu())).flatten(1)
        return logits


def normalized(x: Tensor) -> Tensor:
    """Pixels that are 0 in all channels divide by the epsilon alone."""
    return x / torch.sqrt(x.pow(2).sum(1, keepdim=True) + 1e-8)


def float_ops(function: Callable[[Tensor], Tensor]) -> tuple[FloatOperation, ...]:
    """What stays in float; nothing of it was asked for."""
    found = qat.prepare(Net(function).eval(), images(1)).float_ops
    assert not any(left.asked for left in found)
    return found


BETWEEN = "lies between operators in float"


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda x: x / (x.exp() + 1e-6).sqrt(), {"add"}),
        (lambda x: torch.log(x.exp().mean((2, 3), keepdim=True) + 1e-6) + x, {"mean", "add"}),
        (lambda x: x * torch.rsqrt(x.pow(2).mean(1, keepdim=True) + 1e-6), {"mean", "add"}),
        (lambda x: torch.sqrt(x + 1e-6), {"add"}),
        (lambda x: x.exp().permute(0, 1, 3, 2).relu().log1p(), {"relu"}),
    ],
)
def test_light_operators_between_float_ones_stay_in_float(function: Callable[[Tensor], Tensor], expected: set[str]) -> None:
    found = float_ops(function)
    assert {left.operator for left in found if left.reason == BETWEEN} == expected


@pytest.mark.parametrize(
    "function",
    [
        lambda x: (x + 0.5).relu() * 2.0,
        lambda x: nn.functional.conv2d(x.exp() * 0.5, torch.ones(8, 8, 1, 1)),
        lambda x: x.exp() + x,
        lambda x: (y := x + 0.1) + y.exp(),
    ],
)
def test_what_an_int8_operator_reads_or_gives_stays_in_int8(function: Callable[[Tensor], Tensor]) -> None:
    assert not [left for left in float_ops(function) if left.reason == BETWEEN]


def test_an_epsilon_is_not_lost() -> None:
    """It was rounded to 0: torch, as int8 is trained and as it is written, and each runtime made something else of 0 / 0."""
    source = make_source(Net(normalized))
    x = images(64, seed=7)
    x[:, :, :6] = -8.0  # dark: the activation function gives 0 for all channels
    with torch.no_grad():
        exact, written = source.model(x), source.int8(fold_weights=True)(x)
    assert torch.isfinite(exact).all()
    assert (exact - written).std() < 0.3 * exact.std(), "pixels that are almost dark are coarse"


@pytest.mark.parametrize("format", ["onnx", "tflite", "openvino"])
def test_the_files_divide_by_it(format: str, tmp_path: Path) -> None:
    source = make_source(Net(normalized))
    x = images(32, seed=7)
    x[:, :, :6] = -8.0
    exporter = exporters.get(format)()
    exported = exporter.export(source, tmp_path / f"net{exporter.suffix}", Options())
    with torch.no_grad():
        reference = source.int8(fold_weights=True)(x).numpy()
    output = base.run_file(exported.paths[0], format, x.numpy())
    assert parity.compare(reference, output, exported.output_scale).max_lsb <= 1  # type: ignore[operator]
