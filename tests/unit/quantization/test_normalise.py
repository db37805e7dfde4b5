"""Each pass on the least network that needs it: the values stay, and only known operators are left."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.quantization.normalise import normalise


class Fn(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def shuffle(x: Tensor) -> Tensor:
    count, channels, height, width = x.shape
    return x.view(count, 2, channels // 2, height, width).transpose(1, 2).contiguous().view(count, channels, height, width)


def halves(x: Tensor) -> Tensor:
    first, second = x.chunk(2, 1)
    return torch.cat([second, first], 1)


def in_place(x: Tensor) -> Tensor:
    x = x * 1.5
    x[:, :, :, :] += 2.0
    return x


def masked(x: Tensor) -> Tensor:
    mask = x.new_zeros(6, 6)
    mask[:3] = -1.0
    return x + mask.masked_fill(mask != 0, 2.0)


def attention(x: Tensor) -> Tensor:
    x = x.flatten(2).unsqueeze(1)
    return F.scaled_dot_product_attention(x, x, x)


def dense(x: Tensor) -> Tensor:
    found = [x.relu()]
    for _ in range(6):
        found.append(-torch.cat(found, 1))
    return found[-1]


WEIGHT = torch.randn(4, 4, 3, 3, generator=torch.Generator().manual_seed(2))

CASES: dict[str, tuple[Callable[[Tensor], Tensor], list[str]]] = {
    "hardswish": (F.hardswish, ["add.Tensor", "clamp.default", "mul.Tensor", "mul.Tensor"]),
    "silu": (F.silu, ["sigmoid.default", "mul.Tensor"]),
    "relu6": (F.relu6, ["clamp.default"]),
    "hardtanh": (F.hardtanh, ["clamp.default"]),
    "global_pool": (lambda x: F.adaptive_avg_pool2d(x, 1), ["mean.dim"]),
    "pool_of_one": (lambda x: F.adaptive_avg_pool2d(x, 6).relu(), ["relu.default"]),
    "average_pool": (lambda x: F.adaptive_avg_pool2d(x, 3), ["conv2d.default"]),
    "average_pool_padding_counted": (lambda x: F.avg_pool2d(x, 3, 1, 1), ["conv2d.default"]),
    "average_pool_padding_not_counted": (
        lambda x: F.avg_pool2d(x, 3, 1, 1, count_include_pad=False), ["conv2d.default", "mul.Tensor"]),
    "average_pool_overhanging": (
        lambda x: F.avg_pool2d(x, 4, 3, ceil_mode=True), ["constant_pad_nd.default", "conv2d.default", "mul.Tensor"]),
    "average_pool_nothing_hangs_over": (
        lambda x: F.avg_pool2d(x, 2, 2, ceil_mode=True, count_include_pad=False), ["conv2d.default"]),
    "average_pool_other_divisor": (lambda x: F.avg_pool2d(x, 2, divisor_override=3), ["conv2d.default"]),
    "prelu": (
        lambda x: F.prelu(x, torch.tensor([0.1, 0.2, -0.3, 2.0])),
        ["relu.default", "mul.Tensor", "relu.default", "conv2d.default", "add.Tensor"]),
    "glu": (lambda x: F.glu(x, 1), ["slice.Tensor", "slice.Tensor", "sigmoid.default", "mul.Tensor"]),
    "stack": (lambda x: torch.stack([x, x], 1), ["unsqueeze.default", "unsqueeze.default", "cat.default"]),
    "dense": (dense, ["relu.default", *["cat.default", "mul.Tensor"] * 6]),
    "long_concatenation": (lambda x: torch.cat([x] * 6, 1), ["cat.default", "cat.default"]),
    "scalars": (lambda x: (x - 1.0) / 4.0, ["add.Tensor", "mul.Tensor"]),
    "same": (lambda x: F.conv2d(x, WEIGHT, padding="same", dilation=2), ["conv2d.default"]),
    "same_even": (lambda x: F.conv2d(x, WEIGHT[..., :2], padding="same"), ["constant_pad_nd.default", "conv2d.default"]),
    "valid": (lambda x: F.conv2d(x, WEIGHT, stride=2, padding="valid"), ["conv2d.default"]),
    "greatest": (lambda x: x.flatten(2).max(-1)[0], ["reshape.default", "amax.default"]),
    "at_least": (lambda x: torch.clamp_min(x, 0.0), ["clamp.default"]),
    "at_most": (lambda x: torch.clamp_max(x, 1.0), ["clamp.default"]),
    "threshold": (lambda x: F.threshold(x, 0.0, 0.0), ["relu.default"]),
    "negative": (lambda x: -x, ["mul.Tensor"]),
    "product": (lambda x: x.mean((2, 3)).mm(WEIGHT[:, :, 0, 0]), ["mean.dim", "matmul.default"]),
    "minus_from": (lambda x: 1.0 - x, ["mul.Tensor", "add.Tensor"]),
    "identities": (lambda x: F.pad(F.dropout(x[:, :], training=False), (0, 0, 0, 0)).clone().relu(), ["relu.default"]),
    "shuffle": (shuffle, ["reshape.default", "transpose.int", "reshape.default"]),
    "chunk": (halves, ["slice.Tensor", "slice.Tensor", "cat.default"]),
    "in_place": (in_place, ["mul.Tensor", "add.Tensor"]),
    "computed_mask": (masked, ["add.Tensor"]),
    "roll": (lambda x: torch.roll(x, (2,), (3,)), ["slice.Tensor", "slice.Tensor", "cat.default"]),
    "select": (lambda x: x[:, 1], ["slice.Tensor", "squeeze.dim"]),
    "attention": (
        attention,
        ["reshape.default", "unsqueeze.default", "mul.Tensor", "transpose.int", "matmul.default", "softmax.int",
         "matmul.default"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_values_stay_and_operators_are_known(case: str) -> None:
    function, expected = CASES[case]
    net = Fn(function).eval()
    x = 3 * torch.randn(2, 4, 6, 6, generator=torch.Generator().manual_seed(0))
    module = normalise(net, x[:1])
    torch.testing.assert_close(module(x), net(x))
    torch.testing.assert_close(module(x[:1]), net(x[:1]))
    assert [node.target.__name__ for node in module.graph.nodes if node.op == "call_function"] == expected


def test_constants_are_trained_where_their_sources_are() -> None:
    class Standardised(nn.Module):
        """A convolution whose weights are computed from others, as in NFNets."""

        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(4, 3, 1, 1))

        def forward(self, x: Tensor) -> Tensor:
            weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
            return F.conv2d(x, weight) + torch.arange(4.0).reshape(4, 1, 1)

    net = Standardised().eval()
    x = torch.randn(2, 3, 4, 4)
    module = normalise(net, x)
    torch.testing.assert_close(module(x), net(x))
    assert len(list(module.parameters())) == 2
    assert not list(module.buffers())
