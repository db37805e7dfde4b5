"""What the tests of losses on maps share: features, adapters in float64, and convolutions by numpy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgekd.distill.outputs import Batch, Facts, Outputs, adapter_of
from edgekd.registry import losses
from edgekd.taps.layer import Layer
from edgekd.taps.pairing import Pair

Array = NDArray[np.float64]


def features(*shape: int, seed: int) -> Array:
    return np.random.default_rng(seed).normal(size=shape)


def pairs(ours: Sequence[Any], theirs: Sequence[Any]) -> tuple[Pair, ...]:
    return tuple(Pair(Layer("s", a.shape[1:]), Layer("t", b.shape[1:])) for a, b in zip(ours, theirs, strict=True))


def build(kind: str, ours: Sequence[Any], theirs: Sequence[Any], **options: Any) -> tuple[Any, Any]:
    """A loss and its adapter in float64, or None."""
    torch.manual_seed(0)
    loss = losses.get(kind).model_validate(options)
    adapter = adapter_of(loss, pairs(ours, theirs), Facts(classes=2, samples=8))
    return loss, adapter.double() if adapter is not None else None


def call(loss: Any, adapter: Any, ours: Sequence[Any], theirs: Sequence[Any]) -> Tensor:
    def outputs(maps: Sequence[Any]) -> Outputs:
        return Outputs(torch.zeros(len(maps[0]), 2), tuple(torch.as_tensor(m) for m in maps))

    n = len(ours[0])
    value: Tensor = loss(outputs(ours), outputs(theirs), Batch(torch.zeros(n, dtype=torch.int64), torch.arange(n)), adapter)
    return value


def gradients(value: Tensor, *of: Tensor) -> list[Array]:
    return [g.numpy() for g in torch.autograd.grad(value, of)]


def weights(layer: Any) -> tuple[Array, Array]:
    """Weight and bias of a convolution."""
    weight = layer.weight.detach().numpy()
    return weight, layer.bias.detach().numpy() if layer.bias is not None else np.zeros(len(weight))


def convolve(x: Array, layer: Any) -> Array:
    """A 1×1 or 3×3 convolution that keeps height and width."""
    weight, bias = weights(layer)
    if isinstance(layer, nn.ConvTranspose2d):  # with stride 1: a convolution by the kernel turned round
        weight = weight.swapaxes(0, 1)[:, :, ::-1, ::-1]
    k = weight.shape[2]
    padded = np.pad(x, ((0, 0), (0, 0), (k // 2, k // 2), (k // 2, k // 2)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (k, k), axis=(2, 3))
    return np.asarray(np.einsum("nchwij,ocij->nohw", windows, weight) + bias[:, None, None])


def batch_norm(x: Array) -> Array:
    """In training, before its weight and bias have learnt anything."""
    mean, variance = x.mean((0, 2, 3), keepdims=True), x.var((0, 2, 3), keepdims=True)
    return np.asarray((x - mean) / np.sqrt(variance + 1e-5))
