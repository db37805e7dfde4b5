"""Compound operators written with those that every runtime has in int8."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx

from edgekd.quantization.graph import calls

aten = torch.ops.aten


def _hardsigmoid(x: Tensor) -> Tensor:
    return torch.clamp(x + 3.0, 0.0, 6.0) * (1 / 6)


def _hardswish(x: Tensor) -> Tensor:
    return x * _hardsigmoid(x)


def _silu(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


def _prelu(x: Tensor, weight: Tensor) -> Tensor:
    return torch.relu(x) + torch.relu(x * -1.0) * (-weight).reshape([-1] + [1] * (x.ndim - 2))


def _glu(x: Tensor, dim: int = -1) -> Tensor:
    value, gate = _split(x, int(x.shape[dim]) // 2, dim)
    return value * torch.sigmoid(gate)


def _stack(tensors: list[Tensor], dim: int = 0) -> Tensor:
    return torch.cat([x.unsqueeze(dim) for x in tensors], dim)


def _rsub(value: Tensor, other: Any, alpha: float = 1) -> Any:
    return NotImplemented if alpha != 1 else value * -1.0 + other


def _adaptive_avg_pool2d(x: Tensor, size: list[int]) -> Any:
    height, width = int(x.shape[-2]), int(x.shape[-1])
    rows, columns = int(size[0]), int(size[1])
    if (rows, columns) == (height, width):
        return aten.alias(x)  # a 1×1 map too: averaging it would only add a rounding step
    if (rows, columns) == (1, 1):
        return torch.mean(x, [-2, -1], keepdim=True)
    if height % rows == 0 and width % columns == 0:
        return torch.nn.functional.avg_pool2d(x, (height // rows, width // columns))
    return NotImplemented  # windows of unequal sizes: no runtime has it in int8


def _split(x: Tensor, size: int, dim: int = 0) -> list[Tensor]:
    length = int(x.shape[dim])
    return [aten.slice.Tensor(x, dim, start, min(start + size, length)) for start in range(0, length, size)]


def _split_with_sizes(x: Tensor, sizes: list[int], dim: int = 0) -> list[Tensor]:
    starts = [sum(sizes[:index]) for index in range(len(sizes))]
    return [aten.slice.Tensor(x, dim, start, start + size) for start, size in zip(starts, sizes, strict=True)]


def _unbind(x: Tensor, dim: int = 0) -> list[Tensor]:
    return [_select(x, dim, index) for index in range(int(x.shape[dim]))]


def _select(x: Tensor, dim: int, index: int) -> Tensor:
    start = index % int(x.shape[dim])
    selected: Tensor = aten.squeeze.dim(aten.slice.Tensor(x, dim, start, start + 1), dim)
    return selected


def _roll(x: Tensor, shifts: list[int], dims: list[int] = ()) -> Any:  # type: ignore[assignment]
    if not dims:
        return NotImplemented
    for shift, dim in zip(shifts, dims, strict=True):
        length = int(x.shape[dim])
        start = -shift % length
        if start:
            x = torch.cat([aten.slice.Tensor(x, dim, start, length), aten.slice.Tensor(x, dim, 0, start)], dim)
    return x


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    dropout: float = 0.0,
    causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    """Scaled dot-product attention (Vaswani et al. 2017, eq. 1)."""
    if enable_gqa:
        return NotImplemented
    factor = 1 / math.sqrt(int(query.shape[-1])) if scale is None else scale
    scores = torch.matmul(query * factor, key.transpose(-2, -1))
    if causal:
        mask = torch.ones(int(query.shape[-2]), int(key.shape[-2]), dtype=torch.bool).tril()
    if mask is not None:
        scores = torch.where(mask, scores, -math.inf) if mask.dtype == torch.bool else scores + mask
    return torch.matmul(torch.softmax(scores, -1), value)


def _pad(x: Tensor, pad: list[int], mode: str = "constant", value: float | None = None) -> Any:
    return aten.constant_pad_nd(x, pad, value or 0.0) if mode == "constant" else NotImplemented


def _max(x: Tensor, dim: int, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    return torch.amax(x, dim, keepdim), torch.argmax(x, dim, keepdim)  # which is left out where nothing reads it


def _clamp_min(x: Tensor, low: float) -> Tensor:
    return torch.clamp(x, low)


def _clamp_max(x: Tensor, high: float) -> Tensor:
    return torch.clamp(x, max=high)


def _threshold(x: Tensor, limit: float, value: float) -> Any:
    return torch.relu(x) if limit == value == 0 else NotImplemented


def _neg(x: Tensor) -> Any:
    return x * -1.0 if x.is_floating_point() else NotImplemented


def _convolution(operator: Any, x: Tensor, weight: Tensor, *rest: Any, **options: Any) -> Tensor:
    """Give a convolution with ``padding="same"`` or ``"valid"`` numbers; what is odd goes to the end, as in torch."""
    bias, stride, padding, dilation, groups = _bound(rest, options)
    kernel = [int(size) for size in weight.shape[2:]]
    strides, dilations = (list(values) * (len(kernel) if len(values) == 1 else 1) for values in (stride, dilation))
    total = [step * (size - 1) if padding == "same" else 0 for step, size in zip(dilations, kernel, strict=True)]
    if any(values % 2 for values in total):
        ends = [(values // 2, values - values // 2) for values in total]
        x = aten.constant_pad_nd(x, [value for pair in reversed(ends) for value in pair], 0.0)
        total = [0] * len(kernel)
    out: Tensor = operator(x, weight, bias, strides, [values // 2 for values in total], dilations, groups)
    return out


def _bound(rest: tuple[Any, ...], options: dict[str, Any]) -> tuple[Any, ...]:
    names = ("bias", "stride", "padding", "dilation", "groups")
    given = dict(zip(names, rest, strict=False)) | options
    return tuple(given.get(name, default) for name, default in zip(names, (None, [1], "valid", [1], 1), strict=True))


SPELLINGS: dict[Any, Callable[..., Any]] = {
    aten.conv1d.padding: partial(_convolution, aten.conv1d.default),
    aten.conv2d.padding: partial(_convolution, aten.conv2d.default),
    aten.conv3d.padding: partial(_convolution, aten.conv3d.default),
}
"""Second names of operators, written with the first in float files too, so that norms are folded into them."""

DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {
    aten.split.Tensor: _split,
    aten.split_with_sizes.default: _split_with_sizes,
    aten.unbind.int: _unbind,
    aten.select.int: _select,
    aten.roll.default: _roll,
    aten.rsub.Scalar: _rsub,
    aten.scaled_dot_product_attention.default: _attention,
    aten.hardsigmoid.default: _hardsigmoid,
    aten.hardswish.default: _hardswish,
    aten.silu.default: _silu,
    aten.prelu.default: _prelu,
    aten.glu.default: _glu,
    aten.stack.default: _stack,
    aten.pad.default: _pad,
    aten.adaptive_avg_pool2d.default: _adaptive_avg_pool2d,
    aten.max.dim: _max,
    aten.clamp_min.default: _clamp_min,
    aten.clamp_max.default: _clamp_max,
    aten.threshold.default: _threshold,
    aten.neg.default: _neg,
    aten.mm.default: torch.matmul,
}

_SAME_ARGUMENTS = {aten.hardtanh.default: (-1.0, 1.0), aten.relu6.default: (0.0, 6.0)}


def write_bounded_activations_as_clamps(graph_module: fx.GraphModule) -> None:
    """Give ReLU6 and hardtanh one name."""
    for node in calls(graph_module):
        if node.target in _SAME_ARGUMENTS:
            node.args = (node.args[0], *(node.args[1:] + _SAME_ARGUMENTS[node.target][len(node.args) - 1 :]))
            node.target = aten.clamp.default
