from __future__ import annotations

import pytest
import torch
from torch import nn

from edgekd.models.layout import laid_out, lay_out, layout
from edgekd.models.zoo.resnet import resnet10
from edgekd.quantization import qat


@pytest.mark.parametrize(("width", "expected"), [(4, torch.contiguous_format), (8, torch.channels_last)])
def test_a_narrow_shortcut_is_contiguous(width: int, expected: torch.memory_format) -> None:
    """Its strided 1×1 convolution reads 4 channels; the same in the graph of int8 training."""
    network = resnet10(4, width=width).eval()
    assert layout(network) == expected
    assert layout(nn.ModuleList([nn.Linear(2, 2), network])) == expected
    assert layout(qat.prepare(network, torch.zeros(1, 3, 16, 16)).module) == expected


@pytest.mark.parametrize(
    "safe",
    [
        nn.Conv2d(3, 8, 3, stride=2),
        nn.Conv2d(4, 16, 1),
        nn.Conv2d(8, 8, 1, stride=2, groups=2),
        nn.Conv2d(1, 8, 1, stride=2),
        nn.AvgPool2d(1, 2),
    ],
)
def test_others_are_channels_last(safe: nn.Module) -> None:
    assert layout(safe) == torch.channels_last
    network = nn.Sequential(nn.Conv2d(3, getattr(safe, "in_channels", 4), 3), nn.ReLU(), safe).eval()
    assert layout(qat.prepare(network, torch.zeros(1, 3, 16, 16)).module) == torch.channels_last


@pytest.mark.parametrize("form", [torch.contiguous_format, torch.channels_last])
def test_only_tensors_of_four_dimensions_are_laid_out(form: torch.memory_format) -> None:
    """Where all have at most four it is what ``Module.to`` does; that refuses five."""
    shapes = [(2, 3, 4, 5, 6)[:rank] for rank in range(6)]
    network = nn.ParameterList([torch.rand(shape) for shape in shapes])
    network.register_buffer("beside", torch.rand(2, 3, 4, 5))
    before = [value.clone() for value in network.state_dict().values()]
    after = [*lay_out(network, form).state_dict().values()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert all(value.is_contiguous(memory_format=form if value.ndim == 4 else torch.contiguous_format) for value in after)
    inputs = laid_out({str(len(shape)): torch.rand(shape) for shape in shapes}, form)
    assert all(value.is_contiguous(memory_format=form) for value in inputs.values() if value.ndim == 4)
    images = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Linear(2, 2), nn.Conv1d(2, 2, 1))
    wanted = [value.stride() for value in nn.Sequential(*images).to(memory_format=form).parameters()]
    images = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Linear(2, 2), nn.Conv1d(2, 2, 1))
    assert [value.stride() for value in lay_out(images, form).parameters()] == wanted
