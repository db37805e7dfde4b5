"""Layer by layer from input to output: rounding and bias of each layer set by what the float network has there.

The float network and the int8 one go through the graph side by side, with all calibration samples at once. When a layer's
turn comes, all layers before it have their final weights, so that it can make up for their errors. Layers that share a
weight or a bias are fitted together, on the inputs of all of them, before the others.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from edgekd.progress import Task
from edgekd.quantization import adaround
from edgekd.quantization.calibrate import batches
from edgekd.quantization.graph import constant
from edgekd.quantization.weighted_layers import Layer, fake_quantizer, layers, related
from edgekd.recipe.quantize import AdaRound
from edgekd.task.named import Inputs, in_order

MEMORY = 2 * 2**30  # bytes of activations kept at a time


@dataclass(frozen=True)
class Reconstructed:
    """Result for one layer.

    Attributes:
        name: Name of the layer in the graph.
        shift: Largest correction of the bias of a channel; None where it was not corrected.
        nearest_error: Mean squared error of the output with the weights rounded to nearest; None without AdaRound.
        learned_error: The same with the rounding that was learned.
    """

    name: str
    shift: float | None
    nearest_error: float | None
    learned_error: float | None


@torch.no_grad()
def reconstruct(
    module: fx.GraphModule, inputs: Inputs, *, bias_correction: bool, rounding: AdaRound | None, seed: int, task: Task
) -> list[Reconstructed]:
    """Correct the layers of a calibrated graph one after the other, in place.

    Bias correction: the mean of each channel of the layer's output becomes the float network's (Nagel et al. 2019, §4.2,
    measured on images). AdaRound: see ``adaround.learn``.

    Args:
        module: A calibrated graph: ranges frozen, rounding on.
        inputs: Calibration samples; see ``samples_that_fit``.
        bias_correction: Whether biases are corrected. A layer without a bias stays as it is.
        rounding: Options of AdaRound, or None for rounding to nearest.
        seed: Of the order in which AdaRound sees the samples.
        task: Advanced by one for each layer.
    """
    grouped = related(layers(module))
    fitting = _Fitting(bias_correction, rounding, torch.Generator().manual_seed(seed))
    original = {id(part): part.detach().clone() for group in grouped if len(group) > 1 for part in _parameters(group)}
    done: dict[fx.Node, Reconstructed] = {}
    for group in grouped:
        if len(group) > 1:  # before all others: the float network goes on with the original weights
            uses = _uses(module, inputs, {layer.node: layer for layer in group}, original)
            done |= fitting.fit(uses)
            task.advance(len(group), group[0].node.name)
    single = {group[0].node: group[0] for group in grouped if len(group) == 1}
    for node, exact, rounded in _walk(module, inputs, original):
        layer = single.get(node)
        if layer is not None:
            done |= fitting.fit([_use(layer, exact, rounded)])
            rounded[layer.rounded] = layer.fake_quantize(layer.weight)
            task.advance(1, node.name)
    return [done[node] for node in module.graph.nodes if node in done]


_Value = list[Tensor] | Tensor | object  # a tensor of each batch; a parameter or a constant


def _run(module: fx.GraphModule, node: fx.Node, values: dict[fx.Node, _Value]) -> _Value:
    if node.op == "get_attr":
        return constant(module, node)
    function = module.get_submodule(str(node.target)) if node.op == "call_module" else node.target
    assert callable(function)
    count = max((len(values[n]) for n in node.all_input_nodes if isinstance(values[n], list)), default=0)  # type: ignore[arg-type]

    def at(index: int) -> Tensor:
        def pick(n: fx.Node) -> Any:
            value = values[n]
            return value[index] if isinstance(value, list) else value

        result: Tensor = function(*fx.node.map_arg(node.args, pick), **fx.node.map_arg(node.kwargs, pick))
        return result

    return [at(index) for index in range(count)] if count else at(0)


def _walk(
    module: fx.GraphModule, inputs: Inputs, original: dict[int, Tensor]
) -> Iterator[tuple[fx.Node, dict[fx.Node, _Value], dict[fx.Node, _Value]]]:
    """Go through the float and the int8 network side by side.

    Args:
        module: The calibrated graph.
        inputs: Calibration samples.
        original: Values of parameters in the float network, by the id of a parameter that has others by now.

    Yields:
        A node, and the values of the float and the int8 network. The node has no value in the int8 network yet.
    """
    last_use = _last_uses(module.graph)
    exact: dict[fx.Node, _Value] = {}
    rounded: dict[fx.Node, _Value] = {}
    given = iter(in_order(module, inputs).values())
    for node in module.graph.nodes:
        if node.op == "output":
            break
        if node.op == "placeholder":
            exact[node] = rounded[node] = batches(next(given))
            continue
        # Rounding a weight is skipped for the float network, and so is rounding an activation.
        exact[node] = exact[node.args[0]] if fake_quantizer(module, node) else _run(module, node, exact)
        exact[node] = original.get(id(exact[node]), exact[node])
        yield node, exact, rounded
        rounded[node] = _run(module, node, rounded)
        for unused in last_use.get(node, ()):
            del exact[unused], rounded[unused]


@dataclass(frozen=True)
class _Pair:
    """A layer, its input in the int8 network and its output in the float network, a tensor of each batch."""

    layer: Layer
    x: list[Tensor]
    target: list[Tensor]


def _use(layer: Layer, exact: dict[fx.Node, _Value], rounded: dict[fx.Node, _Value]) -> _Pair:
    x, target = rounded[layer.node.args[0]], exact[layer.node]  # type: ignore[index]
    assert isinstance(x, list)
    assert isinstance(target, list)
    return _Pair(layer, x, target)


def _uses(module: fx.GraphModule, inputs: Inputs, found: dict[fx.Node, Layer], original: dict[int, Tensor]) -> list[_Pair]:
    walk = _walk(module, inputs, original)
    return [_use(found[node], exact, rounded) for node, exact, rounded in walk if node in found]


def _parameters(group: list[Layer]) -> Iterator[nn.Parameter]:
    return (part for layer in group for part in (layer.weight, layer.bias) if part is not None)


@dataclass(frozen=True)
class _Fitting:
    """What is done to each layer."""

    bias_correction: bool
    rounding: AdaRound | None
    generator: torch.Generator

    def fit(self, pairs: list[_Pair]) -> dict[fx.Node, Reconstructed]:
        """Set rounding and bias of a layer, or of layers that share them."""
        errors: dict[fx.Node, tuple[float, float]] = {}
        if self.rounding is not None:
            for same in _by_parameter(pairs, lambda layer: layer.weight):
                uses = [adaround.Use(pair.layer, torch.cat(pair.x), torch.cat(pair.target)) for pair in same]
                learned = adaround.learn(uses, self.rounding, self.generator)
                errors |= {pair.layer.node: learned for pair in same}
        shifts: dict[fx.Node, float] = {}
        for same in _by_parameter(pairs, lambda layer: layer.bias) if self.bias_correction else ():
            bias = same[0].layer.bias
            assert bias is not None
            difference = _bias_error(same)
            bias.add_(difference.to(bias.dtype))
            shifts |= {pair.layer.node: float(difference.abs().max()) for pair in same}
        nodes = [pair.layer.node for pair in pairs]
        return {
            node: Reconstructed(node.name, shifts.get(node), *errors.get(node, (None, None)))
            for node in nodes
        }  # fmt: skip


def _by_parameter(pairs: list[_Pair], part: Callable[[Layer], nn.Parameter | None]) -> list[list[_Pair]]:
    found: dict[int, list[_Pair]] = {}
    for pair in pairs:
        parameter = part(pair.layer)
        if parameter is not None:
            found.setdefault(id(parameter), []).append(pair)
    return list(found.values())


def _bias_error(pairs: list[_Pair]) -> Tensor:
    """Mean error of each output channel, (out,) float64; of a shared bias, over the values of all layers."""
    errors, counts = [], []
    for pair in pairs:
        layer = pair.layer
        weight = layer.fake_quantize(layer.weight)
        out = [layer.apply(batch, weight, layer.bias) for batch in pair.x]
        errors.append(_channel_means(pair.target, layer.channel_dim) - _channel_means(out, layer.channel_dim))
        counts.append(sum(batch.numel() for batch in pair.target))
    if len(pairs) == 1:
        return errors[0]
    return torch.stack([error * count for error, count in zip(errors, counts, strict=True)]).sum(0) / sum(counts)


def _channel_means(batches: list[Tensor], dim: int) -> Tensor:
    rows = [batch.movedim(dim, 0).flatten(1) for batch in batches]
    total = torch.stack([row.sum(1, dtype=torch.float64) for row in rows]).sum(0)
    return total / sum(row.shape[1] for row in rows)


def samples_that_fit(module: fx.GraphModule, count: int) -> int:
    """Return the number of samples that can go through both networks at once within about ``MEMORY``."""
    last_use = _last_uses(module.graph)
    sizes: dict[fx.Node, int] = {}
    live = peak = 0
    for node in module.graph.nodes:
        value = node.meta.get("val")
        if isinstance(value, Tensor) and node.op != "get_attr" and value.ndim:
            sizes[node] = 4 * math.prod(int(size) for size in value.shape[1:])
        elif fake_quantizer(module, node):
            sizes[node] = sizes.get(node.args[0], 0)
        live += sizes.get(node, 0)
        peak = max(peak, live)
        live -= sum(sizes.get(unused, 0) for unused in last_use.get(node, ()))
    return max(1, min(count, MEMORY // max(1, 2 * peak)))


def _last_uses(graph: fx.Graph) -> dict[fx.Node, list[fx.Node]]:
    """For each node, the values that nothing reads after it."""
    seen: set[fx.Node] = set()
    found: dict[fx.Node, list[fx.Node]] = {}
    for node in reversed(graph.nodes):
        unused = [value for value in dict.fromkeys(node.all_input_nodes) if value not in seen]
        seen.update(unused)
        if unused and node.op != "output":
            found[node] = unused
        if not node.users and node.op not in {"output", "placeholder"}:
            found.setdefault(node, []).append(node)
    return found
