"""Share of the weights of an int8 file that is float32."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import fx, nn

from edgekd.quantization import answer
from edgekd.quantization.graph import constant
from edgekd.quantization.naming import layer_path, operator_name, source
from edgekd.quantization.quantizer import ancestors
from edgekd.quantization.weighted_layers import fake_quantizer
from edgekd.results.runtime import FloatOperation, FloatWeights

aten = torch.ops.aten
_LAYERS = {aten.conv2d.default, aten.linear.default}


def footprint(module: fx.GraphModule, float_ops: Sequence[FloatOperation] = ()) -> FloatWeights:
    """Count the weights of a prepared graph that its shipped outputs depend on; biases of int8 layers are not counted.

    Args:
        module: ``Prepared.module``.
        float_ops: ``Prepared.float_ops``, which tell what is float because ``keep_float`` asked for it.
    """
    asked = {operation.node for operation in float_ops if operation.asked}
    kept = 0
    sizes: dict[str, int] = {}
    holders: dict[str, int] = {}
    live = ancestors(*answer.outputs(module.graph).values())
    integers: set[str] = set()
    for node in module.graph.nodes:
        value = constant(module, node)
        if node not in live or not isinstance(value, nn.Parameter):
            continue
        readers = [reader for reader in node.users if reader in live]
        if any(fake_quantizer(module, reader) for reader in readers):
            integers.add(str(node.target))
            sizes[str(node.target)] = value.numel()
        floats = [reader for reader in readers if not fake_quantizer(module, reader) and not _is_bias(module, node, reader)]
        for reader in floats[:1]:
            name = f"{layer_path(reader) or 'forward()'} {operator_name(reader)}"
            holders[name] = holders.get(name, 0) + 4 * value.numel()
            kept += 4 * value.numel() if source(reader).name in asked else 0
    ordered = sorted(holders.items(), key=lambda entry: -entry[1])
    return FloatWeights(sum(sizes.values()), sum(holders.values()), kept, tuple(ordered))


def _is_bias(module: fx.GraphModule, node: fx.Node, reader: fx.Node) -> bool:
    quantized = reader.target in _LAYERS and fake_quantizer(module, reader.args[1]) is not None
    return quantized and len(reader.args) > 2 and reader.args[2] is node
