from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from tests.unit.exporting.nets import images
from torch import Tensor, fx, nn

from edgekd.quantization import qat
from edgekd.quantization.equalize import equalize, pairs


def chain(activation: Callable[[], nn.Module]) -> nn.Sequential:
    """Expand, depthwise, project, as a MobileNet does, with very different channels; and a linear head."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 16, 1), activation(),
        nn.Conv2d(16, 16, 3, padding=1, groups=16), activation(),
        nn.Conv2d(16, 8, 1),
        nn.Conv2d(8, 12, 3), activation(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 10),
    ).eval()  # fmt: skip
    with torch.no_grad():
        for layer in (net[0], net[2], net[4]):
            factors = torch.logspace(-1.5, 1, layer.out_channels)[torch.randperm(layer.out_channels)]
            layer.weight.mul_(factors.reshape(-1, 1, 1, 1))
            layer.bias.mul_(factors)
    return net


def prepared(net: nn.Module) -> fx.GraphModule:
    return qat.prepare(net, images(1)).module


def float_output(module: fx.GraphModule, x: Tensor) -> Tensor:
    qat.set_observers(module, False)
    qat.set_fake_quant(module, False)
    with torch.no_grad():
        out: Tensor = module(x)
    return out


def spread(module: fx.GraphModule) -> float:
    """Mean over pairs of layers of how much the ranges of the channels between them differ, as |log|."""
    found = []
    for pair in pairs(module):
        out = pair.first.weight.detach().flatten(1).abs().amax(1)
        second = pair.second.weight.detach()
        incoming = (second if pair.second.groups > 1 else second.transpose(0, 1)).flatten(1).abs().amax(1)
        found.append((out / incoming).log().abs().mean())
    return float(torch.stack(found).mean())


def test_pairs_are_found_across_activations_and_depthwise_layers() -> None:
    found = list(pairs(prepared(chain(nn.ReLU6))))
    assert [(pair.first.weight.shape[0], pair.second.groups, pair.limit) for pair in found] == [
        (16, 16, 6.0), (16, 1, 6.0), (8, 1, float("inf")),
    ]  # fmt: skip


def test_a_layer_with_two_readers_is_left_alone() -> None:
    class Branched(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            y = self.first(x).relu()
            return (y * self.second(y)).flatten(1)

    module = prepared(Branched().eval())
    before = qat.state(module)
    assert equalize(module, images(8)) == 0
    assert all(torch.equal(value, before[name]) for name, value in qat.state(module).items() if "weight" in name)


@pytest.mark.parametrize("activation", [nn.ReLU, nn.ReLU6, nn.Identity])
def test_the_float_function_is_kept_and_the_ranges_meet(activation: Callable[[], nn.Module]) -> None:
    net, x = chain(activation), images(64)
    module = prepared(net)
    before = spread(module)
    assert equalize(module, x) == 3
    with torch.no_grad():
        expected = net(x)
    out = float_output(module, x)
    assert (out - expected).abs().max() <= 1e-5 * expected.abs().max().clamp(min=1)
    assert spread(module) < 0.75 * before


def test_a_channel_that_a_relu6_clips_is_not_scaled() -> None:
    net = nn.Sequential(nn.Conv2d(3, 2, 1), nn.ReLU6(), nn.Conv2d(2, 4, 1), nn.Flatten()).eval()
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[9.0, 9, 9], [0.01, 0.01, 0.01]]).reshape(2, 3, 1, 1))
        net[0].bias.zero_()
    x = images(32)
    module = prepared(net)
    assert net[0](x)[:, 0].max() > 6
    equalize(module, x)
    (pair,) = pairs(module)
    weight = pair.first.weight.detach()
    assert torch.equal(weight[0], net[0].weight[0])
    assert weight[1].abs().max() > 0.02
    torch.testing.assert_close(float_output(module, x), net(x), rtol=1e-5, atol=1e-5)


def test_no_tensor_gets_a_wider_range() -> None:
    """A dead channel with a high bias would, scaled as its weights ask for, decide the scale of all others."""
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 1), nn.Flatten()).eval()
    with torch.no_grad():
        net[0].weight[0] *= 1e-6
        net[0].bias[0] = 2.0
    x = images(32)
    module = prepared(net)
    before = net[0](x).amax()
    equalize(module, x)
    (pair,) = pairs(module)
    with torch.no_grad():
        assert nn.functional.conv2d(x, pair.first.weight, pair.first.bias).amax() <= before * 1.0001
