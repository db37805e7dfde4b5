from __future__ import annotations

import pytest
import torch
from tests.unit.exporting.nets import images
from torch import Tensor, fx, nn

from edgekd.progress import Silent
from edgekd.quantization import adaround, qat
from edgekd.quantization.calibrate import calibrate
from edgekd.quantization.histogram import minmax
from edgekd.quantization.weighted_layers import Layer, layers
from edgekd.recipe.quantize import AdaRound


def calibrated(net: nn.Module, x: Tensor, bits: int = 8) -> fx.GraphModule:
    module = qat.prepare(net, x[:1]).module
    limit = 2 ** (bits - 1) - 1
    for layer in layers(module):
        layer.fake_quantize.activation_post_process.quant_min = -limit
        layer.fake_quantize.activation_post_process.quant_max = limit
    with Silent().task("", 1) as task:
        calibrate(module, x, minmax, task)
    return module


def learn(layer: Layer, x: Tensor, steps: int) -> tuple[float, float]:
    with torch.no_grad():
        target = layer.apply(x, layer.weight, layer.bias)
        generator = torch.Generator().manual_seed(0)
        return adaround.learn([adaround.Use(layer, x, target)], AdaRound(steps=steps), generator)


def small(kind: str) -> nn.Module:
    torch.manual_seed(0)
    layer = {
        "dense": nn.Conv2d(8, 12, 3, padding=1),
        "depthwise": nn.Conv2d(8, 8, 3, groups=8),
        "linear": nn.Linear(8, 12),
    }[kind]
    return nn.Sequential(*[nn.Flatten()] * (kind == "linear"), layer, nn.ReLU()).eval()


def inputs(kind: str) -> Tensor:
    """Channels that go together: where errors of several weights can cancel out."""
    mix = torch.randn(8, 3, generator=torch.Generator().manual_seed(3))
    x = torch.einsum("oc,nchw->nohw", mix, images(96)).relu()
    return x.mean((2, 3), keepdim=True) if kind == "linear" else x


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("kind", ["dense", "depthwise", "linear"])
def test_the_error_of_the_layer_falls_and_the_weights_are_on_the_grid(kind: str, bits: int) -> None:
    x = inputs(kind)
    module = calibrated(small(kind), x, bits)
    (layer,) = layers(module)
    x = x.flatten(1) if kind == "linear" else x
    float_weight = layer.weight.detach().clone()
    scale = layer.fake_quantize.scale.reshape(-1, *[1] * (float_weight.ndim - 1))
    with torch.no_grad():
        target = layer.activate(layer.apply(x, float_weight, layer.bias))
        rounded = layer.activate(layer.apply(x, layer.fake_quantize(float_weight), layer.bias))
        nearest, learned = learn(layer, x, 150)
        now = layer.activate(layer.apply(x, layer.weight, layer.bias))
    assert nearest == pytest.approx(float((rounded - target).square().mean()), rel=1e-3)
    assert learned == pytest.approx(float((now - target).square().mean()), rel=1e-3)
    assert learned < 0.9 * nearest
    steps = layer.weight.detach() / scale
    assert (steps - steps.round()).abs().max() < 1e-4
    assert steps.round().abs().max() <= 2 ** (bits - 1) - 1
    assert (steps.round() - float_weight / scale).abs().max() < 1.001, "no weight moves further than to a neighbour"
    assert torch.equal(layer.fake_quantize(layer.weight), layer.weight), "rounding again changes nothing"


def test_rounding_to_nearest_is_kept_where_learning_does_not_help() -> None:
    x = inputs("dense")
    module = calibrated(small("dense"), x)
    (layer,) = layers(module)
    with torch.no_grad():
        nearest = layer.fake_quantize(layer.weight).clone()
        target = layer.apply(x, nearest, layer.bias)  # nothing can be better
        settings = AdaRound(steps=1, lr=1000.0)  # one step throws each weight to one side
        errors = adaround.learn([adaround.Use(layer, x, target)], settings, torch.Generator().manual_seed(0))
    assert errors[0] == errors[1] == pytest.approx(0, abs=1e-12)
    torch.testing.assert_close(layer.weight.detach(), nearest)


def test_the_same_seed_learns_the_same_weights() -> None:
    found = []
    for _ in range(2):
        module = calibrated(small("dense"), inputs("dense"), 4)
        (layer,) = layers(module)
        learn(layer, inputs("dense"), 40)
        found.append(layer.weight.detach().clone())
    assert torch.equal(found[0], found[1])


def test_a_narrow_strided_layer_after_channels_last() -> None:
    """Its gradient ends the process there on some CPUs (edgekd.models.layout)."""
    torch.manual_seed(0)
    x = images(96)[:, :1].repeat(1, 4, 1, 1).contiguous(memory_format=torch.channels_last)
    (layer,) = layers(calibrated(nn.Sequential(nn.Conv2d(4, 8, 1, stride=2), nn.ReLU()).eval(), x))
    nearest, learned = learn(layer, x, 40)
    assert 0 < learned <= nearest
