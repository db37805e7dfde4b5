from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from edgekd.exporting.lacks import lacks
from edgekd.quantization.fold import fold

FORMATS = ("onnx", "tflite", "openvino")


class Pooled(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        counts = torch.nn.functional.one_hot(x.argmax(1), 4).sum((1, 2))
        spectrum = torch.fft.rfft2(x).abs().flatten(1)
        return torch.cat([x.flatten(2).median(-1)[0], counts, spectrum], 1)


def test_operators_that_a_format_cannot_have_are_known_from_the_graph() -> None:
    found = lacks(fold(nn.Sequential(nn.Conv2d(3, 4, 1), Pooled()), torch.zeros(2, 3, 8, 8)), FORMATS)
    assert {(lack.format, lack.operator) for lack in found} == {
        ("tflite", "one_hot"), ("tflite", "fft_rfft2"), ("openvino", "fft_rfft2"),
        ("onnx", "median"), ("tflite", "median"), ("openvino", "median"),
    }  # fmt: skip
    assert all(lack.place.startswith(" in 1 (test_lacks.py, line ") for lack in found)
    assert all(f"remove {lack.format} from export" in lack.instead for lack in found)


@pytest.mark.parametrize("activation", [nn.Hardswish, nn.Mish, nn.GELU, nn.Softplus])
def test_what_every_format_has_is_let_through(activation: type[nn.Module]) -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), activation(), nn.AdaptiveAvgPool2d(3), nn.Flatten())
    assert lacks(fold(network, torch.zeros(2, 3, 8, 8)), FORMATS) == ()
