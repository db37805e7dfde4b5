"""In which memory layout a network trains."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from operator import attrgetter
from typing import cast

import torch
from torch import Tensor, fx, nn


def layout(network: nn.Module) -> torch.memory_format:
    """Channels last, which trains faster on a CPU (benchmarks/results/memory_format.md), where that is safe.

    ``network`` may be one of modules, a graph of operators, or hold both.
    """
    unsafe = any(crashes(*convolution) for convolution in _convolutions(network))
    return torch.contiguous_format if unsafe else torch.channels_last


def lay_out(network: nn.Module, form: torch.memory_format) -> nn.Module:
    """Store the weights of a network in a memory layout, in place, and return the network.

    Only tensors of four dimensions have the layouts of images; ``Module.to`` would refuse those of five.
    """
    for value in (*network.parameters(), *network.buffers()):
        if value.ndim == 4:
            value.data = value.data.to(memory_format=form)
    return network


def laid_out(inputs: Mapping[str, Tensor], form: torch.memory_format) -> dict[str, Tensor]:
    """Return the inputs of a network, those of four dimensions in a memory layout."""
    return {name: x.contiguous(memory_format=form) if x.ndim == 4 else x for name, x in inputs.items()}


def crashes(weight: Tensor, stride: Sequence[int], groups: int) -> bool:
    """Return whether the gradient of a convolution's weight ends the process in channels last.

    torch 2.13's oneDNN writes outside of its memory there: for an ungrouped 1×1 kernel with a stride and 2 to 7 input
    channels, seen on a CPU with AVX2 and without AVX-512. That its input or its weight has that layout is enough.
    """
    return weight.shape[2:] == (1, 1) and 2 <= weight.shape[1] < 8 and groups == 1 and max(stride) > 1


def convolution(node: fx.Node, weight: Tensor) -> tuple[Tensor, Sequence[int], int]:
    """Weight, stride and groups of an aten.conv2d."""
    stride, groups = (node.args[index] if len(node.args) > index else 1 for index in (3, 6))
    return weight, cast(Sequence[int], stride if isinstance(stride, Sequence) else (stride,)), cast(int, groups)


def _convolutions(network: nn.Module) -> Iterator[tuple[Tensor, Sequence[int], int]]:
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            yield module.weight, module.stride, module.groups
        elif isinstance(module, fx.GraphModule):
            for node in module.graph.nodes:
                if node.target is torch.ops.aten.conv2d.default:
                    weight = node.args[1]
                    while weight.op != "get_attr":  # behind its fake quantizer
                        weight = weight.args[0]
                    yield convolution(node, attrgetter(str(weight.target))(module))
