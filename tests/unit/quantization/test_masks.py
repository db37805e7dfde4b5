"""Masks in front of a softmax do not take the scores' steps."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.unit.exporting.nets import BITS, Together, compare
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.exporting.exporter import Source
from edgekd.quantization import ptq, qat
from edgekd.quantization.normalise import normalise
from edgekd.recipe.quantize import Ptq

SIZE, TOKENS, WIDTH = 16, 16, 16
Mask = Callable[[Tensor, Tensor], Tensor]


class Attention(nn.Module):
    """Tokens of 4×4 pixels, masked attention, a classifier."""

    def __init__(self, mask: Mask) -> None:
        super().__init__()
        self.embed, self.qkv = nn.Conv2d(3, WIDTH, 4, 4), nn.Linear(WIDTH, 3 * WIDTH)
        self.head, self.mask = nn.Linear(WIDTH, 10), mask
        visible = torch.rand(TOKENS, TOKENS, generator=torch.Generator().manual_seed(1)) < 0.6
        self.register_buffer("visible", visible | torch.eye(TOKENS, dtype=torch.bool))

    def forward(self, x: Tensor) -> Tensor:
        y = self.embed(x).flatten(2).transpose(1, 2)
        q, k, v = self.qkv(y).chunk(3, -1)
        out: Tensor = self.head((self.attend(q, k, v, y) + y).mean(1))
        return out

    def attend(self, q: Tensor, k: Tensor, v: Tensor, y: Tensor) -> Tensor:
        scores = q @ k.transpose(1, 2) * 0.7
        return self.mask(scores, self._visible(y)).softmax(-1) @ v

    def _visible(self, y: Tensor) -> Tensor:
        visible: Tensor = self.visible  # type: ignore[assignment]
        return visible


class FromInput(Attention):
    """The mask depends on the image: a token is visible where its first channel is positive, or is the first."""

    def _visible(self, y: Tensor) -> Tensor:
        return ((y[:, :, 0] > 0) | (torch.arange(TOKENS) == 0))[:, None, :]


class Fused(Attention):
    """torch's own attention, with a boolean or a causal mask."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, y: Tensor) -> Tensor:
        q, k, v = (part[:, None] for part in (q, k, v))
        if self.mask is None:
            return F.scaled_dot_product_attention(q, k, v, is_causal=True)[:, 0]
        return F.scaled_dot_product_attention(q, k, v, self._visible(y))[:, 0]


MASKS: dict[str, Mask] = {
    "fill -inf": lambda s, m: s.masked_fill(~m, -math.inf),
    "fill -1e9": lambda s, m: s.masked_fill(~m, -1e9),
    "where": lambda s, m: torch.where(m, s, -1e4),
    "where tensor": lambda s, m: torch.where(~m, torch.tensor(-1e9), s),
    "add where": lambda s, m: s + torch.where(m, 0.0, -math.inf),
    "add product": lambda s, m: s + (1.0 - m.float()) * -1e9,
    "subtract": lambda s, m: s - (1.0 - m.float()) * 1e9,
    "twice": lambda s, m: (s + (1.0 - m.float()) * -1e4).masked_fill(~m, -math.inf),
}
NETS: dict[str, Callable[[], nn.Module]] = {
    **{f"constant, {name}": lambda mask=mask: Attention(mask) for name, mask in MASKS.items()},
    **{f"from input, {name}": lambda mask=mask: FromInput(mask) for name, mask in MASKS.items()},
    "fused, boolean": lambda: Fused(MASKS["where"]),
    "fused, causal": lambda: Fused(None),  # type: ignore[arg-type]
}


def images(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))


def network(name: str) -> nn.Module:
    torch.manual_seed(0)
    net = NETS[name]().eval()
    with torch.no_grad():
        net.qkv.weight *= 3  # type: ignore[operator, union-attr]  # attention that chooses
    return net


@pytest.mark.parametrize("name", NETS)
def test_float_values_are_kept_and_int8_is_close(name: str) -> None:
    net, x = network(name), images(64)
    expected = net(x)
    graph = normalise(net, x[:1])
    torch.testing.assert_close(graph(x), expected, rtol=1e-4, atol=1e-4)
    constants = [value for _, value in (*graph.named_buffers(), *graph.named_parameters()) if value.is_floating_point()]
    assert all(float(value.detach().abs().max()) < 64 for value in constants)
    prepared = qat.prepare_graph(graph)
    assert not [left for left in prepared.float_ops if "softmax" in str(left) or "attention" in str(left)]
    ptq.quantize(prepared.module, x, Ptq(method="ptq"))
    with torch.no_grad():
        found = prepared.module(images(256, 1))
        wanted = net(images(256, 1))
    assert float((found.argmax(1) == wanted.argmax(1)).float().mean()) > 0.9
    noise = float((found - wanted).square().mean() / wanted.var())
    assert noise < 0.01


@pytest.fixture(scope="module")
def two() -> Source:
    """A mask that is a constant, and one that depends on the image, side by side."""
    net = Together({"constant": network("constant, fill -inf"), "from_input": network("from input, fill -1e9")})
    prepared = qat.prepare(net.eval(), images(1), weight_bits=BITS)
    ptq.quantize(prepared.module, images(32), Ptq(method="ptq"))
    return Source(net, images(1), lambda fold_weights: qat.convert(prepared.module, fold_weights=fold_weights))


@pytest.mark.parametrize("format", ["onnx", "tflite", "openvino"])
def test_every_runtime_computes_the_same(two: Source, format: str, tmp_path: Path) -> None:
    found, _ = compare(two, format, tmp_path, given=images(8))
    assert [*found] == ["constant", "from_input"]
    assert max(each.max_lsb for each in found.values()) <= 2.01


def test_a_learned_bias_is_no_mask() -> None:
    net = Attention(lambda s, m: s + torch.linspace(-20, 20, TOKENS))
    graph = normalise(net.eval(), images(1))
    assert any(float(value.abs().max()) == 20 for _, value in graph.named_buffers())
