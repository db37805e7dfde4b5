from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.unit.exporting.nets import Residual, images
from torch import Tensor, fx, nn

from edgekd.errors import QuantizeError
from edgekd.quantization import ptq, qat, reconstruct
from edgekd.quantization.weighted_layers import layers
from edgekd.recipe.quantize import AdaRound, Ptq


def residual() -> nn.Module:
    torch.manual_seed(0)
    net = Residual()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.normal_(module.running_mean)
    return net.eval()


def quantized(net: nn.Module, x: Tensor, bits: int | None = None, **options: Any) -> tuple[fx.GraphModule, ptq.Calibrated]:
    module = qat.prepare(net, x[:1]).module
    if bits is not None:
        for layer in layers(module):
            layer.fake_quantize.activation_post_process.quant_min = 1 - 2 ** (bits - 1)
            layer.fake_quantize.activation_post_process.quant_max = 2 ** (bits - 1) - 1
    return module, ptq.quantize(module, x, Ptq(method="ptq", **options))


def error(net: nn.Module, module: fx.GraphModule, x: Tensor) -> float:
    with torch.no_grad():
        return float((module(x) - net(x)).square().mean())


@pytest.mark.parametrize("observer", ["minmax", "percentile", "mse", "entropy"])
def test_the_int8_graph_computes_what_the_float_network_does(observer: str) -> None:
    net, x = residual(), images(256)
    module, done = quantized(net, x, observer=observer)
    graph = qat.convert(module, fold_weights=True)
    test = images(64, seed=9)
    with torch.no_grad():
        expected = net(test)
        assert ((graph(test) - expected).square().mean() / expected.var()) < 0.01
    assert (done.images, done.reconstruction_images, len(done.layers)) == (256, 256, 4)


def test_the_saved_state_rebuilds_the_graph_bit_for_bit() -> None:
    net, x = residual(), images(64)
    options: dict[str, Any] = {"equalize": True, "adaround": AdaRound(steps=5)}
    module, _ = quantized(net, x, **options)
    again = qat.prepare(net, x[:1]).module
    qat.load_state(again, qat.state(module))
    with torch.no_grad():
        assert torch.equal(again(x), module(x))
        assert torch.equal(qat.convert(again, fold_weights=True)(x), qat.convert(module, fold_weights=True)(x))
    other, _ = quantized(net, x, **options)
    assert all(torch.equal(value, qat.state(other)[name]) for name, value in qat.state(module).items())


def depthwise() -> nn.Module:
    """Three weights a channel in few bits: rounding moves the mean of a channel (Nagel et al. 2019, §3.2)."""
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(3, 24, 1), nn.ReLU(),
        nn.Conv2d(24, 24, 3, padding=1, groups=24), nn.ReLU(),
        nn.Conv2d(24, 10, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    ).eval()  # fmt: skip


def test_bias_correction_moves_the_means_of_the_outputs_back() -> None:
    net, x, test = depthwise(), images(256), images(256, seed=9)

    def shift(bias_correction: bool) -> float:
        module, done = quantized(net, x, bits=4, bias_correction=bias_correction)
        assert len(done.layers) == 3 * bias_correction
        with torch.no_grad():
            return float((module(test) - net(test)).mean(0).abs().mean())

    assert shift(True) < 0.25 * shift(False)


def test_adaround_brings_the_network_closer_to_the_float_one() -> None:
    net, x, test = depthwise(), images(256), images(256, seed=9)
    plain, _ = quantized(net, x, bits=4, bias_correction=False)
    learned, done = quantized(net, x, bits=4, bias_correction=False, adaround=AdaRound(steps=80))
    assert all(layer.learned_error is not None and layer.learned_error <= layer.nearest_error for layer in done.layers)
    assert error(net, learned, test) < 0.9 * error(net, plain, test)


def test_a_layer_without_bias_is_not_corrected() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), nn.Flatten(), nn.Linear(576, 3)).eval()
    _, done = quantized(net, images(16))
    assert [layer.shift is None for layer in done.layers] == [True, False]


def test_short_memory_means_fewer_images(monkeypatch: pytest.MonkeyPatch) -> None:
    net, x = residual(), images(64)
    module = qat.prepare(net, x[:1]).module
    assert reconstruct.samples_that_fit(module, 64) == 64
    # At its widest the graph holds 16×6×6 numbers about five times, in two networks of 4 bytes each.
    monkeypatch.setattr(reconstruct, "MEMORY", 10 * 2 * 4 * 16 * 36 * 5)
    assert 5 <= reconstruct.samples_that_fit(module, 64) <= 20
    _, done = quantized(net, x)
    assert (done.images, done.reconstruction_images) == (64, reconstruct.samples_that_fit(module, 64))
    monkeypatch.setattr(reconstruct, "MEMORY", 1)
    assert reconstruct.samples_that_fit(module, 64) == 1


def test_unusable_images_are_refused_before_anything_changes() -> None:
    module = qat.prepare(residual(), images(1)).module
    before = qat.state(module)
    for x in (torch.zeros(0, 3, 12, 12), torch.full((4, 3, 12, 12), float("nan"))):
        with pytest.raises(QuantizeError, match="calibration"):
            ptq.quantize(module, x, Ptq(method="ptq", equalize=True))
    after = qat.state(module)
    assert all(torch.equal(value, after[name]) for name, value in before.items())
