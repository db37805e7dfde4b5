"""Layer by layer from input to output: rounding and bias of each layer set by what the float network has there.

The float network and the int8 one go through the graph side by side, with all calibration images at once. When a layer's
turn comes, all layers before it have their final weights, so that it can make up for their errors.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from edgekd.progress import Task
from edgekd.quantize import adaround
from edgekd.quantize.calibrate import batches
from edgekd.quantize.graph import constant
from edgekd.quantize.layers import Layer, fake_quantizer, layers
from edgekd.recipe_quantize import AdaRound

MEMORY = 2 * 2**30  # bytes of activations kept at a time


@dataclass(frozen=True)
class Reconstructed:
    """What became of one layer.

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
    module: fx.GraphModule, images: Tensor, *, bias_correction: bool, rounding: AdaRound | None, seed: int, task: Task
) -> list[Reconstructed]:
    """Correct the layers of a calibrated graph one after the other, in place.

    Bias correction: the mean of each channel of the layer's output becomes the float network's (Nagel et al. 2019, §4.2,
    measured on images). AdaRound: see ``adaround.learn``.

    Args:
        module: A calibrated graph: ranges frozen, rounding on.
        images: Calibration images, (N, C, H, W); see ``images_that_fit``.
        bias_correction: Whether biases are corrected. A layer without a bias of its own stays as it is.
        rounding: Options of AdaRound, or None for rounding to nearest.
        seed: Of the order in which AdaRound sees the images.
        task: Advanced by one for each layer.
    """
    found = {layer.node: layer for layer in layers(module)}
    last_use = _last_uses(module.graph)
    exact: dict[fx.Node, _Value] = {}
    rounded: dict[fx.Node, _Value] = {}
    done = []
    generator = torch.Generator().manual_seed(seed)
    for node in module.graph.nodes:
        if node.op == "output":
            break
        if node.op == "placeholder":
            exact[node] = rounded[node] = batches(images)
            continue
        layer = found.get(node)
        # Rounding a weight is skipped for the float network, and so is rounding an activation.
        exact[node] = exact[node.args[0]] if fake_quantizer(module, node) else _run(module, node, exact)
        if layer is not None:
            target = exact[node]
            assert isinstance(target, list)
            done.append(_fit(layer, rounded, target, bias_correction, rounding, generator))
            task.advance(1, node.name)
        rounded[node] = _run(module, node, rounded)
        for unused in last_use.get(node, ()):
            del exact[unused], rounded[unused]
    return done


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


def _fit(
    layer: Layer,
    values: dict[fx.Node, _Value],
    target: list[Tensor],
    bias_correction: bool,
    rounding: AdaRound | None,
    generator: torch.Generator,
) -> Reconstructed:
    x = values[layer.node.args[0]]  # type: ignore[index]
    assert isinstance(x, list)
    nearest = learned = shift = None
    if rounding is not None:
        nearest, learned = adaround.learn(layer, torch.cat(x), torch.cat(target), rounding, generator)
        values[layer.rounded] = layer.fake_quantize(layer.weight)
    if bias_correction and layer.bias is not None:
        weight = values[layer.rounded]
        assert isinstance(weight, Tensor)
        out = [layer.apply(batch, weight, layer.bias) for batch in x]
        difference = _channel_means(target, layer.channel_dim) - _channel_means(out, layer.channel_dim)
        layer.bias.add_(difference.to(layer.bias.dtype))
        shift = float(difference.abs().max())
    return Reconstructed(layer.node.name, shift, nearest, learned)


def _channel_means(batches: list[Tensor], dim: int) -> Tensor:
    rows = [batch.movedim(dim, 0).flatten(1) for batch in batches]
    total = torch.stack([row.sum(1, dtype=torch.float64) for row in rows]).sum(0)
    return total / sum(row.shape[1] for row in rows)


def images_that_fit(module: fx.GraphModule, count: int) -> int:
    """How many of ``count`` images can go through both networks at once without much more than ``MEMORY``."""
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
