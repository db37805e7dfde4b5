"""The fewest layers that have to stay in float for a limit on accuracy, and what they cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from torch import fx

from edgekd.errors import QuantizeError
from edgekd.quantization.backend import FakeQuantizeBase
from edgekd.quantization.sensitivity import Sensitivity
from edgekd.quantization.weighted_layers import fake_quantizer

T = TypeVar("T")


@dataclass(frozen=True)
class Tried(Generic[T]):
    """One step of a repair: how many of the most sensitive layers were in float, and what was measured then."""

    layers: int
    result: T


@dataclass(frozen=True)
class Repair(Generic[T]):
    """The layers that were given back to float, and what that costs.

    Attributes:
        keep_float: To hand to ``prepare``; empty where int8 is good enough.
        layers: Their layers, the most sensitive first.
        result: What was measured on the validation split with them in float.
        float_bytes: What their weights need more in float32 than in int8.
        tried: All steps, in order.
    """

    keep_float: tuple[str, ...]
    layers: tuple[Sensitivity, ...]
    result: T
    float_bytes: int
    tried: tuple[Tried[T], ...]


def repair(
    ranked: Sequence[Sensitivity],
    evaluate: Callable[[frozenset[str]], T],
    enough: Callable[[T], bool],
    most: int | None = None,
) -> Repair[T]:
    """Keep the fewest layers in float that are enough.

    Layers are given back in the order of their sensitivity. Their number is doubled until it is enough, then halved
    towards the smallest that is: 2·log2(n) evaluations, where taking the worst and measuring again would need n.

    Args:
        ranked: What ``measure`` returned.
        evaluate: Quantizes with this in float, as ``prepare(keep_float=...)`` takes it, and measures on the validation
            split, never on the test split.
        enough: Tells whether a measurement is within the limit.
        most: Largest number of layers; all of them when left out.

    Raises:
        QuantizeError: ``most`` layers in float are not enough.
    """
    most = len(ranked) if most is None else min(most, len(ranked))
    tried: dict[int, T] = {}

    def kept(count: int) -> frozenset[str]:
        return frozenset(name for row in ranked[:count] for name in row.keep_float)

    def good(count: int) -> bool:
        if count not in tried:
            tried[count] = evaluate(kept(count))
        return enough(tried[count])

    low, high = -1, 0  # too few, and what is tried next
    while not good(high):
        if high == most:
            raise QuantizeError(
                f"the limit is not met with the {most} most sensitive layers in float",
                "raise the limit, allow more layers in float, or use quantize: {method: qat}",
            )
        low, high = high, min(most, max(1, 2 * high))
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if good(middle) else (middle, high)
    names = kept(high)
    rows = tuple(row for row in ranked if f"%{row.name}" in names)
    return Repair(
        keep_float=tuple(dict.fromkeys(name for row in ranked[:high] for name in row.keep_float)),
        layers=rows,
        result=tried[high],
        float_bytes=sum(row.float_bytes for row in rows),
        tried=tuple(Tried(count, result) for count, result in tried.items()),
    )


def adopt(module: fx.GraphModule, quantized: fx.GraphModule) -> None:
    """Take over the weights and ranges of a quantized graph, without training or calibrating again.

    Args:
        module: ``prepare(..., keep_float=...).module`` of the same model; changed in place.
        quantized: ``prepare(...).module`` with ranges, in which all of that is int8.
    """
    ranges = _by_tensor(quantized)
    rounding = {name for name, child in quantized.named_children() if isinstance(child, FakeQuantizeBase)}
    weights = {name: value for name, value in quantized.state_dict().items() if name.partition(".")[0] not in rounding}
    module.load_state_dict(weights, strict=False)  # the fake quantizers are next
    for tensor, fake_quantize in _by_tensor(module).items():
        fake_quantize.load_state_dict(ranges[tensor].state_dict())


def _by_tensor(module: fx.GraphModule) -> dict[str, FakeQuantizeBase]:
    """The fake quantizers by the node that each rounds the value of."""
    found = ((node, fake_quantizer(module, node)) for node in module.graph.nodes)
    return {str(node.args[0]): child for node, child in found if child is not None}
