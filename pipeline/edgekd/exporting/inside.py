"""Values inside an int8 file, layer by layer, against the float network and against torch.

A quantized tensor is found in a file by its scale: to five digits no two layers have the same one by chance, and names do
not survive the converters. Where layers share a scale, as in front of a concatenation, the tensor that fits best is taken;
where none is alike, the layer is not in the file as a tensor of its own.

Every such tensor is made an output of the file. The runtimes then do not fuse across it, but they run the kernels that the
file as it is used runs. The logits of parity are from the file as it is used.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx, nn

from edgekd.exporting.exporter import Exported
from edgekd.exporting.outputs import samples, to_file
from edgekd.results.layers import EXACT_DB, Difference
from edgekd.runtimes import base
from edgekd.runtimes.inside import Tensor
from edgekd.task.named import in_order

Array = NDArray[Any]
LIKENESS = 0.5
"""Least correlation of what a runtime and torch make of a layer; without any, the tensor is another layer's."""
_ACTIVATIONS = {torch.ops.aten.relu.default, torch.ops.aten.clamp.default}
_DEQUANTIZE = "quantized_decomposed.dequantize_per_tensor.default"


def look(exported: Exported, inputs: Mapping[str, Array]) -> list[list[Tensor]]:
    """Run a file and return, for each sample, its quantized tensors.

    Args:
        exported: The int8 file.
        inputs: As the network takes them; each sample is run by itself, for not every tensor of a network counts the samples
            in its first dimension.

    Raises:
        ExportError: edgekd does not look into files of this format.
    """
    rows = [to_file(sample, exported.inputs) for sample in samples(inputs)]
    return list(base.looking(exported.format).tensors(exported.paths[0], rows))


def sqnr(exact: Sequence[Mapping[str, Tensor]], found: Sequence[Sequence[Tensor]]) -> dict[str, float]:
    """Return signal to quantization noise in dB of every layer that is found in a file.

    Args:
        exact: For each input, by layer, the scale that its output has in int8 and its values in the float network.
        found: What ``look`` returned for the same inputs.
    """
    sums: dict[str, list[NDArray[np.float64]]] = {}
    for tensors, seen in zip(exact, found, strict=True):
        for name, tensor in tensors.items():
            fitting = [_signal_and_noise(tensor.values, values) for values in _fitting(tensor, seen)]
            if fitting:
                sums.setdefault(name, []).append(min(fitting, key=lambda pair: float(pair[1])))
    return {name: _db(*np.sum(pairs, axis=0)) for name, pairs in sums.items()}


def differences(graph: nn.Module, inputs: Mapping[str, Array], found: Sequence[Sequence[Tensor]]) -> dict[str, Difference]:
    """Return, of every layer that is found in a file, how the runtime differs from torch *in this layer*.

    torch computes each layer from what the runtime gave to it, so that nothing adds up on the way: one step is a value
    half-way between two, which either may round to either side; more than that is another arithmetic.

    Args:
        graph: The int8 graph that was exported, ``qat.convert(module, fold_weights=True)``.
        inputs: As the network takes them.
        found: What ``look`` returned for the same inputs.
    """
    rows: dict[str, list[Difference]] = {}
    for sample, seen in zip(samples(inputs), found, strict=True):
        forced = _Forced(graph, seen)
        with torch.no_grad():
            given = {name: torch.from_numpy(value) for name, value in sample.items()}
            forced.run(*in_order(graph, given).values())
        for name, difference in forced.found.items():
            rows.setdefault(name, []).append(difference)
    return {
        name: Difference(float(np.mean([one.share for one in all])), max(one.steps for one in all))
        for name, all in rows.items()
    }


class _Forced(fx.Interpreter):
    """Runs an int8 graph and goes on, after each rounding, with the runtime's value instead of torch's."""

    def __init__(self, graph: nn.Module, runtime: Sequence[Tensor]) -> None:
        super().__init__(graph)
        self._runtime = runtime
        self.found: dict[str, Difference] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if not _computed(n):
            return value
        own = Tensor(float(n.args[1]), value.numpy())  # type: ignore[arg-type]
        fitting = list(_fitting(own, self._runtime))
        if not fitting:
            return value
        nearest = min(fitting, key=lambda values: float(np.abs(values - own.values).mean()))
        steps = np.rint(np.abs(nearest - own.values) / own.scale)
        self.found[_layer(n).name] = Difference(float((steps > 0).mean()), float(steps.max()))
        return torch.from_numpy(nearest)


def _computed(node: fx.Node) -> bool:
    """Return whether it is the rounded result of an arithmetic operator, not a constant, or of one that only moves values.

    A concatenation counts: OpenVINO's file rounds behind it, once, instead of each of its operands.
    """
    if str(node.target) != _DEQUANTIZE or node.all_input_nodes[0].op == "get_attr":
        return False
    result = node.all_input_nodes[0].all_input_nodes[0]
    if result.target == torch.ops.aten.cat.default:
        return True
    operands = result.all_input_nodes
    return all(str(operand.target) != _DEQUANTIZE or operand.args[1:3] != node.args[1:3] for operand in operands)


def _layer(dequantize: fx.Node) -> fx.Node:
    """The operator that a rounded value is from; of one that is fused with an activation function, itself."""
    node = dequantize.all_input_nodes[0].all_input_nodes[0]
    fused = node.target in _ACTIVATIONS and str(node.args[0].target) != _DEQUANTIZE  # type: ignore[union-attr]
    return node.args[0] if fused else node  # type: ignore[return-value]  # a function of one node


def _fitting(wanted: Tensor, found: Sequence[Tensor]) -> Iterator[Array]:
    for tensor in found:
        if abs(tensor.scale / wanted.scale - 1) < 1e-5 and tensor.values.size == wanted.values.size:
            layouts = _layouts(tensor.values, wanted.values.shape)
            yield from (values for values in layouts if _alike(values, wanted.values))


def _alike(values: Array, others: Array) -> bool:
    """Return whether they can be the same layer's: sigmoids all have one scale, and some are not in a file as tensors."""
    a, b = (part.astype(np.float64) - part.mean() for part in (values, others))
    size = np.sqrt(np.square(a).sum() * np.square(b).sum())
    return bool(size == 0 or (a * b).sum() > LIKENESS * size)


def _layouts(values: Array, shape: tuple[int, ...]) -> Iterator[Array]:
    if values.shape == shape:
        yield values
    if values.ndim == 4 and (channels_first := values.transpose(0, 3, 1, 2)).shape == shape:
        yield channels_first
    if values.ndim > 2 and (transposed := values.swapaxes(-1, -2)).shape == shape:  # keys of an attention
        yield transposed
    flat = 2 in {values.ndim, len(shape)}
    if values.ndim != len(shape) and (flat or values.squeeze().shape == tuple(size for size in shape if size > 1)):
        yield values.reshape(shape)


def _signal_and_noise(exact: Array, values: Array) -> NDArray[np.float64]:
    wide = exact.astype(np.float64)
    return np.array([np.square(wide).sum(), np.square(wide - values).sum()])


def _db(signal: float, noise: float) -> float:
    if noise == 0:
        return EXACT_DB
    return min(EXACT_DB, 10 * float(np.log10(signal / noise))) if signal else -EXACT_DB
