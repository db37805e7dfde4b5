"""The layers of a prepared graph: where a weight, its fake quantizer, its bias and its activation function are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from edgekd.models.layout import convolution, crashes
from edgekd.quantization.backend import DerivedObserverOrFakeQuantize, FakeQuantize, FakeQuantizeBase
from edgekd.quantization.graph import constant

aten = torch.ops.aten
_LAYERS = {aten.conv2d.default, aten.linear.default}
ACTIVATIONS = {aten.relu.default, aten.clamp.default}
"""What can be one with the operator before it: no rounding stands between them."""


@dataclass(frozen=True)
class Layer:
    """A convolution or linear layer whose weight is quantized.

    Attributes:
        node: The operator.
        weight: (out, in / groups, kH, kW) or (out, in).
        fake_quantize: Rounds the weight, one scale an output channel.
        rounded: The node that calls it.
        bias: (out,), or None where there is none.
        activation: The ReLU or clamp that is fused with the layer, if any.
        shared: Whether another layer has the same weight or the same bias.
    """

    node: fx.Node
    weight: nn.Parameter
    fake_quantize: FakeQuantize
    rounded: fx.Node
    bias: nn.Parameter | None
    activation: fx.Node | None
    shared: bool = False

    @property
    def channel_dim(self) -> int:
        """The dimension of the output that counts channels."""
        return 1 if self.node.target is aten.conv2d.default else -1

    @property
    def groups(self) -> int:
        """Groups of a convolution; 1 for a linear layer."""
        args = self.node.args
        return int(args[6]) if self.node.target is aten.conv2d.default and len(args) > 6 else 1  # type: ignore[arg-type]

    @property
    def crashes(self) -> bool:
        """True if the gradient of its weight ends the process unless input and weight are contiguous."""
        return crashes(*convolution(self.node, self.weight)) if self.node.target is aten.conv2d.default else False

    def apply(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Compute the layer on ``x``, without its activation function."""
        out: Tensor = self.node.target(x, weight, bias, *self.node.args[3:])  # type: ignore[operator]
        return out

    def activate(self, y: Tensor) -> Tensor:
        """Apply the activation function of the layer."""
        if self.activation is None:
            return y
        out: Tensor = self.activation.target(y, *self.activation.args[1:])  # type: ignore[operator]
        return out


def layers(module: fx.GraphModule) -> Iterator[Layer]:
    """The layers of a prepared graph, in order."""
    for node in module.graph.nodes:
        if node.target not in _LAYERS:
            continue
        rounded = node.args[1]
        fake_quantize = fake_quantizer(module, rounded)
        if not isinstance(fake_quantize, FakeQuantize):
            continue
        weight = _parameter(module, rounded.args[0])
        if weight is None:
            continue
        bias = _parameter(module, node.args[2]) if len(node.args) > 2 else None
        read = (rounded, rounded.args[0], *node.args[2:3])
        shared = any(isinstance(part, fx.Node) and len(part.users) > 1 for part in read)
        reader = next(iter(node.users)) if len(node.users) == 1 else None
        activation = reader if reader is not None and reader.target in ACTIVATIONS else None
        yield Layer(node, weight, fake_quantize, rounded, bias, activation, shared)


def related(found: Iterable[Layer]) -> list[list[Layer]]:
    """Group layers by what they share: a group has a weight or a bias in common, or is one layer that shares nothing."""
    made: list[list[Layer]] = []
    for layer in found:
        own = {id(part) for part in (layer.weight, layer.bias) if part is not None}
        same = [group for group in made if any(id(part) in own for other in group for part in (other.weight, other.bias))]
        made = [group for group in made if group not in same]
        made.append([*(other for group in same for other in group), layer])
    return made


def fake_quantizer(module: fx.GraphModule, node: object) -> FakeQuantizeBase | None:
    """The fake quantizer that ``node`` calls, if it calls one."""
    if not isinstance(node, fx.Node) or node.op != "call_module":
        return None
    child = module.get_submodule(str(node.target))
    return child if isinstance(child, FakeQuantizeBase) else None


def scale_of(module: fx.GraphModule, node: object) -> tuple[Tensor, Tensor] | None:
    """Scale and zero point of the value of ``node``; None where it is float.

    A product with a constant is never rounded, it has the integers of its operand with another scale: no fake quantizer,
    but a scale it has.
    """
    if not isinstance(node, fx.Node) or node.op != "call_module":
        return None
    child = module.get_submodule(str(node.target))
    if not isinstance(child, FakeQuantizeBase | DerivedObserverOrFakeQuantize):
        return None
    scale, zero_point = child.calculate_qparams()
    return scale, zero_point


def _parameter(module: fx.GraphModule, node: object) -> nn.Parameter | None:
    """The parameter that ``node`` reads, if it reads one."""
    value = constant(module, node)
    return value if isinstance(value, nn.Parameter) else None
