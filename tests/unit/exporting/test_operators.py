"""Each operator pattern, through each runtime, against the int8 graph run by torch."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest
import torch
from tests.unit.exporting.nets import Residual, Together, compare, images, make_source
from torch import Tensor, nn

from edgekd.exporting.exporter import Source
from edgekd.quantization.fold import fold
from edgekd.recipe.export import Precision


class Fn(nn.Module):
    """A convolution, a function of its output, and a head."""

    def __init__(self, function: Callable[[Tensor], Tensor], channels: int = 8, size: int = 6) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, 2, 1)
        self.function = function
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(channels * size * size, 10))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.function(self.conv(x)))
        return out


class SqueezeExcite(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.Hardswish())
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 4, 1), nn.ReLU(), nn.Conv2d(4, 8, 1), nn.Hardsigmoid()
        )
        self.head = nn.Sequential(nn.Conv2d(8, 10, 1), nn.Hardswish(), nn.AdaptiveAvgPool2d(1), nn.Flatten())

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        out: Tensor = self.head(self.gate(x) * x)
        return out


class Branches(nn.Module):
    """Concatenates a narrow and a wide tensor, which have to share a scale."""

    def __init__(self) -> None:
        super().__init__()
        self.narrow = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU())
        self.wide = nn.Conv2d(3, 8, 1, 2)
        nn.init.normal_(self.wide.weight, std=2.0)
        self.head = nn.Sequential(nn.Conv2d(16, 10, 3), nn.Flatten(), nn.Linear(160, 10))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(torch.cat([self.narrow(x), self.wide(x)], 1))
        return out


class Factors(nn.Module):
    """Products with constants: in front of a layer with a bias, and as the logits."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 10, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x).relu() * 0.3).mean((2, 3)) * 0.7


class Constant(nn.Module):
    """A branch that is 0 for every input, so that its range is empty: a channel that training has killed."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.conv, self.dead = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 1)
        nn.init.zeros_(self.dead.weight)
        nn.init.constant_(cast(Tensor, self.dead.bias), value)
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(576, 10))

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        out: Tensor = self.head(torch.cat([x, x + self.dead(x).relu()], 1))
        return out


class FloatReaders(nn.Module):
    """Two float operators that read one tensor of four dimensions, behind layers whose layout the converter turns."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 1, 1), nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        y = self.second(torch.log1p(self.first(x).relu()))
        soft = torch.log(torch.exp(y.clamp(max=12)).mean((2, 3)) + 1e-8)
        out: Tensor = self.head(torch.cat([soft, torch.sqrt(y.pow(2).mean((2, 3)) + 1e-6)], 1))
        return out


class Tripled(nn.Module):
    """An activation of 3 x."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.activation(3 * x)
        return out


class LearnedQuery(nn.Module):
    """Attention of a parameter to a map: the layers in front of the first product depend on constants alone."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.query = nn.Conv2d(3, 8, 3, 2, 1), nn.Parameter(torch.randn(1, 2, 8))
        self.first, self.second = (nn.MultiheadAttention(8, 2, batch_first=True) for _ in range(2))
        self.head = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x).flatten(2).transpose(1, 2)
        query = self.query.expand(x.shape[0], -1, -1)
        query = query + self.first(query, query, query)[0]
        out: Tensor = self.head(self.second(query, x, x)[0].flatten(1))
        return out


def uneven_pools(x: Tensor) -> Tensor:
    x = nn.functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
    return nn.functional.avg_pool2d(x, 3, 2, ceil_mode=True)


NETS: dict[str, Callable[[], nn.Module]] = {
    "residual_relu": Residual,
    "residual_relu6": lambda: Residual(nn.ReLU6),
    "residual_silu": lambda: Residual(nn.SiLU),
    "squeeze_excite": SqueezeExcite,
    "concatenation": Branches,
    "pools": lambda: Fn(lambda x: nn.functional.avg_pool2d(nn.functional.max_pool2d(x, 3, 1, 1), 2), size=3),
    "uneven_pools": lambda: Fn(uneven_pools, size=3),
    "prelu": lambda: Fn(nn.PReLU(8)),
    "same_even": lambda: Fn(nn.Conv2d(8, 8, 4, padding="same")),
    "greatest": lambda: Fn(lambda x: x.flatten(2).max(1, keepdim=True)[0].reshape(-1, 1, 6, 6) - x),
    "gelu": lambda: Fn(nn.GELU()),
    "constant": lambda: Constant(0.0),
    "constant_below_zero": lambda: Constant(-0.5),
    "nearest": lambda: Fn(lambda x: nn.functional.pixel_shuffle(nn.functional.interpolate(x, scale_factor=2), 2), 2, 24),
    "moves": lambda: Fn(
        lambda x: nn.functional.pad(x.permute(0, 1, 3, 2)[:, :, 1:5, :].reshape(-1, 8, 6, 4), (1, 1)), size=6
    ),
    "constant_factors": Factors,
    "sigmoid_gate": lambda: Fn(lambda x: torch.sigmoid(x) * x.tanh()),
    "learned_query": LearnedQuery,
    "softmax": lambda: nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.Flatten(), nn.Linear(200, 10), nn.Softmax(1)),
}


@pytest.fixture(scope="module")
def nets() -> Source:
    torch.manual_seed(3)
    source = make_source(Together({name: make() for name, make in NETS.items()}))
    assert source.float_ops == ()
    return source


@pytest.mark.parametrize("format", ["onnx", "tflite", "openvino"])
def test_runtime_computes_what_torch_computes(nets: Source, format: str, tmp_path: Path) -> None:
    found, exported = compare(nets, format, tmp_path)
    assert list(found) == list(NETS)
    assert {name: each for name, each in found.items() if each.mean_lsb > 0.05 or each.max_lsb > 2.01} == {}
    if format == "tflite":
        assert exported.float_tensors == ()


def test_xnnpack_rounds_the_slope_of_a_leaky_relu(tmp_path: Path) -> None:
    """It keeps slope and ratio of scales in steps of 1/256: one step off, where the others are exact (docs/int8.md)."""
    torch.manual_seed(3)
    source = make_source(Fn(nn.LeakyReLU(0.1)))
    assert source.float_ops == ()
    assert compare(source, "onnx", tmp_path)[0]["logits"].max_lsb <= 0.01
    found, exported = compare(source, "tflite", tmp_path)
    (found,) = found.values()
    assert found.mean_lsb <= 0.25
    assert found.max_lsb <= 1.01
    assert exported.float_tensors == ()


def test_an_operator_without_int8_is_named() -> None:
    kinds = {"elu": nn.ELU(), "celu": nn.CELU(), "selu": nn.SELU(), "mish": nn.Mish(), "norm": nn.GroupNorm(2, 8)}
    left = make_source(Together({name: Fn(kind) for name, kind in kinds.items()})).float_ops
    assert [each.layer for each in left] == [f"nets.{name}.function" for name in kinds]
    assert all(each.reason.startswith("no int8 ") or "in int8" in each.reason for each in left)
    assert not any("aten" in str(each) for each in left)


def test_float_operators_that_read_one_tensor(tmp_path: Path) -> None:
    """The converter stopped at the second of them: "Attempting to convert non-NHWC compatible node"."""
    torch.manual_seed(0)
    found, _ = compare(make_source(FloatReaders()), "tflite", tmp_path)
    assert found["logits"].max_lsb <= 1  # type: ignore[operator]  # logits in int8 have steps


SWAPPED: dict[str, Callable[[Tensor], Tensor]] = {
    "number_minus": lambda y: 1 - y,
    "vector_minus": lambda y: torch.arange(1, 9.0) - y,
    "tensor_minus": lambda y: torch.full((36, 8), 3.0) - y,
    "reciprocal": lambda y: 1 / (y + 20),
    "vector_over": lambda y: torch.arange(1, 9.0) / (y + 20),
}


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_operands_are_not_swapped(precision: Precision, tmp_path: Path) -> None:
    """Of a transposed x, TFLite files computed x - 1 for 1 - x and x for 1 / x."""

    def transposed(function: Callable[[Tensor], Tensor]) -> nn.Module:
        return Fn(lambda x: function(x.flatten(2).transpose(1, 2)))

    torch.manual_seed(0)
    net = Together({name: transposed(function) for name, function in SWAPPED.items()}).eval()
    made = make_source(net)
    source = Source(fold(net, images(1)), images(1), made.quantized)
    found, _ = compare(source, "tflite", tmp_path, precision)
    assert list(found) == list(SWAPPED)
    assert {
        name: each for name, each in found.items() if (each.error >= 1e-3 if each.max_lsb is None else each.max_lsb > 1)
    } == {}


def test_an_exponential_branch_is_not_rounded_to_the_steps_of_x(tmp_path: Path) -> None:
    kinds = {
        "elu": nn.ELU(), "elu_half": nn.ELU(0.5), "celu": nn.CELU(2.0), "selu": nn.SELU(), "mish": nn.Mish(),
        "softplus": nn.Softplus(), "softplus_2": nn.Softplus(2.0, 5.0),
    }  # fmt: skip
    torch.manual_seed(0)
    found, _ = compare(make_source(Together({name: Fn(Tripled(kind)) for name, kind in kinds.items()})), "tflite", tmp_path)
    assert list(found) == list(kinds)
    assert {name: each for name, each in found.items() if each.max_lsb > 1 or each.mean_lsb >= 0.02} == {}  # type: ignore[operator]


def attention(*front: int, mask: Tensor | None = None, causal: bool = False) -> Callable[[Tensor], Tensor]:
    """Self-attention of a map's 36 places, with other axes than batch and heads in front of them."""

    def function(x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2).reshape(-1, *front, 36, 8 // max(1, math.prod(front)))
        return nn.functional.scaled_dot_product_attention(tokens, tokens.flip(-2), tokens, mask, is_causal=causal, scale=0.7)

    return function


ATTENTIONS = {
    "without_heads": attention(),
    "masked_each": attention(mask=torch.linspace(-1, 1, 36).expand(1, 36, 36)),
    "windows": attention(2, 2),
    "windows_of_windows": attention(2, 1, 2, causal=True),
}


@pytest.mark.parametrize("format", ["onnx", "tflite"])  # OpenVINO's files are made of ONNX
def test_attention_of_any_rank_in_float(format: str, tmp_path: Path) -> None:
    """torch's ONNX exporter takes four dimensions, and stopped at attention without heads."""
    torch.manual_seed(0)
    net = fold(Together({name: Fn(function) for name, function in ATTENTIONS.items()}).eval(), images(1))
    before = str(net.graph)
    found, _ = compare(Source(net, images(1)), format, tmp_path, "float32")
    assert list(found) == list(ATTENTIONS)
    assert {name: each.error for name, each in found.items() if each.error >= 1e-5} == {}
    assert str(net.graph) == before  # other formats are written from it, too
