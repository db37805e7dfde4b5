"""Cross-layer equalization: the weight ranges of neighbouring layers balanced, the float function kept.

A channel between two layers may be divided by any s > 0 in the first and multiplied by s in the second, as long as what
lies between is homogeneous. ReLU is. ReLU6 is not where it clips, and no runtime has a clip of its own for each channel in
int8; so a channel that reaches 6 on the calibration images is left as it is, and none is scaled up beyond 6.

Scaling a weak channel up must not widen the range of the tensor, whose one scale all channels share: no channel is scaled
beyond the largest. This also takes the place of absorbing high biases.

Source: Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction" (2019), §4.1, eq. (11).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from edgekd.quantization import qat
from edgekd.quantization.calibrate import BATCH
from edgekd.quantization.weighted_layers import Layer, fake_quantizer, layers
from edgekd.task.named import Inputs, batches, in_order

aten = torch.ops.aten
_SWEEPS = 30
_CONVERGED = 1e-3


@dataclass(frozen=True)
class Pair:
    """Two layers of which the second alone reads the first.

    Attributes:
        first: The layer whose output channels are scaled.
        second: The layer whose input channels are scaled back.
        limit: Where the function between them clips; infinite for ReLU and for none.
    """

    first: Layer
    second: Layer
    limit: float


def equalize(module: fx.GraphModule, inputs: Inputs) -> int:
    """Balance the weights of all pairs of layers, in place.

    Args:
        module: ``qat.prepare(...).module``, before calibration.
        inputs: Calibration samples.

    Returns:
        The number of pairs.
    """
    found = list(pairs(module))
    peaks = _peaks(module, [pair.first for pair in found], inputs)
    for _ in range(_SWEEPS):
        moved = max((_balance(pair, peaks[pair.first.node]) for pair in found), default=0.0)
        if moved < _CONVERGED:
            break
    return len(found)


def pairs(module: fx.GraphModule) -> Iterator[Pair]:
    """Neighbouring layers with nothing, a ReLU or a ReLU6 in between, and no other reader on the way."""
    by_node = {layer.node: layer for layer in layers(module)}
    for first in by_node.values():
        node, limit = first.node, float("inf")
        while len(node.users) == 1:
            previous, node = node, next(iter(node.users))
            if node in by_node:
                second = by_node[node]
                if node.args[0] is previous and _scalable(first, second):
                    yield Pair(first, second, limit)
                break
            if node.target is aten.clamp.default and tuple(node.args[1:]) == (0.0, 6.0):
                limit = 6.0
            elif node.target is not aten.relu.default and fake_quantizer(module, node) is None:
                break


def _scalable(first: Layer, second: Layer) -> bool:
    """Return whether ``first``'s output channels are ``second``'s input channels, and each weight serves one layer."""
    channels = first.weight.shape[0]
    if first.shared or second.shared:  # a channel would be scaled in all layers that share it
        return False
    depthwise = second.groups == channels == second.weight.shape[0]
    return depthwise or (second.groups == 1 and second.weight.shape[1] == channels)


def _peaks(module: fx.GraphModule, wanted: list[Layer], inputs: Inputs) -> dict[fx.Node, Tensor]:
    """The largest value of each output channel before the activation function; without one, the largest magnitude."""
    by_node = {layer.node: layer for layer in wanted}
    peaks: dict[fx.Node, Tensor] = {}

    class Watch(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            value = super().run_node(n)
            layer = by_node.get(n)
            if layer is not None:
                seen = value if layer.activation is not None else value.abs()
                peak = seen.movedim(layer.channel_dim, 0).flatten(1).amax(1).clamp(min=0)
                peaks[n] = torch.maximum(peaks[n], peak) if n in peaks else peak
            return value

    qat.set_observers(module, False)
    qat.set_fake_quant(module, False)
    with torch.no_grad():
        for batch in batches(inputs, BATCH):
            Watch(module).run(*in_order(module, batch).values())
    qat.set_observers(module, True)
    qat.set_fake_quant(module, True)
    return peaks


@torch.no_grad()
def _balance(pair: Pair, peaks: Tensor) -> float:
    """Scale the channels between two layers once; returns the largest change, as |log s|."""
    first, second = pair.first.weight, pair.second.weight
    out_range = first.flatten(1).abs().amax(1)
    incoming = second if pair.second.groups > 1 else second.transpose(0, 1)
    in_range = incoming.flatten(1).abs().amax(1)
    widest = min(float(peaks.max()), pair.limit)
    scale = torch.sqrt(out_range / in_range)  # eq. (11): both ranges become the square root of their product
    scale = torch.maximum(scale, peaks / widest) if widest > 0 else torch.ones_like(scale)
    usable = (out_range > 0) & (in_range > 0) & (peaks <= pair.limit)
    scale = torch.where(usable, scale, 1.0)
    first.div_(scale.reshape(-1, *[1] * (first.ndim - 1)))
    if pair.first.bias is not None:
        pair.first.bias.div_(scale)
    incoming.mul_(scale.reshape(-1, *[1] * (incoming.ndim - 1)))
    peaks.div_(scale)
    return float(scale.log().abs().max())
