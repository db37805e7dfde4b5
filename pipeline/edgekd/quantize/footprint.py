"""How much of the weights of an int8 file is float32."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import fx, nn

from edgekd.quantize.graph import constant
from edgekd.quantize.layers import fake_quantizer
from edgekd.quantize.naming import layer_path, operator_name
from edgekd.quantize.quantizer import ancestors, logits_node

aten = torch.ops.aten
MOST = 0.25
"""Share of float bytes from which on int8 is hardly worth it: the file is at most 2.3 times smaller than in float32."""
_LAYERS = {aten.conv2d.default, aten.linear.default}


@dataclass(frozen=True)
class Footprint:
    """Bytes of the weights in an int8 file.

    Attributes:
        int8: Of integers.
        float32: Of floats.
        holders: Module and operator that hold floats, with their bytes; the largest first.
    """

    int8: int
    float32: int
    holders: tuple[tuple[str, int], ...]

    def advice(self) -> str:
        """Return what to do where most of int8 is lost; empty where it is not."""
        total = self.int8 + self.float32
        if not self.float32 or self.float32 / total < MOST:
            return ""
        names = ", ".join(f"{name} ({size / 1024:.3g} KiB)" for name, size in self.holders[:3])
        more = f" and {len(self.holders) - 3} more" if len(self.holders) > 3 else ""
        return (
            f"{100 * self.float32 / total:.0f} % of the weights' bytes in the int8 file are float32, for these operators "
            f"have no int8 rule or are kept in float: {names}{more}. Replace them by convolutions or linear layers, export "
            "[{format: tflite, precision: dynamic}], whose weights have 8 bits, or ship the float32 file"
        )


def footprint(module: fx.GraphModule) -> Footprint:
    """Count the weights of a prepared graph that its logits depend on; biases of int8 layers are not counted."""
    sizes: dict[str, int] = {}
    holders: dict[str, int] = {}
    live = ancestors(logits_node(module.graph))
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
    ordered = sorted(holders.items(), key=lambda entry: -entry[1])
    return Footprint(sum(sizes.values()), sum(holders.values()), tuple(ordered))


def _is_bias(module: fx.GraphModule, node: fx.Node, reader: fx.Node) -> bool:
    quantized = reader.target in _LAYERS and fake_quantizer(module, reader.args[1]) is not None
    return quantized and len(reader.args) > 2 and reader.args[2] is node
