"""Operators that some runtime computes by other rules than torch: float files of all three, against torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.exporting.exporter import Options, Source
from edgekd.quantization.fold import fold
from edgekd.registry import exporters
from edgekd.runtimes import base

Operation = Callable[[Tensor], Tensor]
OPERATIONS: dict[str, Operation] = {
    "nearest by 1.5": lambda x: F.interpolate(x, scale_factor=1.5),
    "nearest by a half": lambda x: F.interpolate(x, scale_factor=0.5),
    "bilinear by 1.3": lambda x: F.interpolate(x, scale_factor=1.3, mode="bilinear"),
    "bilinear with align_corners": lambda x: F.interpolate(x, size=(13, 5), mode="bilinear", align_corners=True),
    "antialias": lambda x: F.interpolate(x, size=(5, 3), mode="bilinear", antialias=True),
    "circular": lambda x: F.pad(x, (1, 2, 3, 1), mode="circular"),
    "reflect": lambda x: F.pad(x, (1, 2, 3, 1), mode="reflect"),
    "replicate": lambda x: F.pad(x, (1, 2, 3, 1), mode="replicate"),
    "max pool, ceil_mode": lambda x: F.max_pool2d(x, 3, 2, ceil_mode=True),
    "max pool, ceil_mode without effect": lambda x: F.max_pool2d(x[..., :6, :6], 2, 3, ceil_mode=True),
    "average pool, ceil_mode": lambda x: F.avg_pool2d(x, 3, 2, 1, ceil_mode=True),
    "average pool, ceil_mode without effect": lambda x: F.avg_pool2d(x[..., :6, :6], 2, 3, ceil_mode=True),
    "average pool, padding not counted": lambda x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False),
    "average pool, divisor": lambda x: F.avg_pool2d(x, 3, 2, divisor_override=7),
    "adaptive average pool": nn.AdaptiveAvgPool2d((6, 3)),
    "adaptive max pool": nn.AdaptiveMaxPool2d((3, 6)),
    "tile": lambda x: x.tile(1, 2, 1, 1),
    "flip of rows and channels": lambda x: x.flip((1, 2)),
    "roll": lambda x: x.roll((1, -2), (2, 3)),
    "transposed convolution": nn.ConvTranspose2d(4, 3, 3, 2, 1, output_padding=1),
    "transposed convolution of groups": nn.ConvTranspose2d(4, 4, 3, 2, 1, groups=2),
}


class Several(nn.Module):
    """A convolution, each operation of its map, and their values side by side: one file for all."""

    def __init__(self, operations: Iterable[Operation]) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.conv = nn.Conv2d(3, 4, 1)
        self.operations = list(operations)
        self.layers = nn.ModuleList(operation for operation in self.operations if isinstance(operation, nn.Module))

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return torch.cat([operation(x).flatten(1) for operation in self.operations], 1)


@pytest.fixture(scope="module")
def source() -> Source:
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    return Source(fold(Several(OPERATIONS.values()).eval(), x), x[:1])


@pytest.mark.parametrize("format", ["onnx", "tflite", "openvino"])
def test_a_float_file_computes_what_torch_computes(source: Source, format: str, tmp_path: Path) -> None:
    exporter = exporters.get(format)()
    path = tmp_path / f"model{exporter.suffix}"
    exporter.export(source, path, Options(precision="float32", log=tmp_path / "log"))
    output = base.run_file(path, format, source.example.numpy())[0]
    network = Several(OPERATIONS.values()).eval()
    with torch.no_grad():
        x = network.conv(source.example)
        expected = {name: operation(x).flatten().numpy() for name, operation in OPERATIONS.items()}
    start = 0
    wrong = []
    for name, values in expected.items():
        part = output[start : start + len(values)]
        start += len(values)
        if not np.allclose(part, values, rtol=1e-4, atol=1e-5):
            wrong.append(name)
    assert not wrong
    assert start == len(output)
