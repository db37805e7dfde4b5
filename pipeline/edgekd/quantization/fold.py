"""Fold batch norms, scales and parallel branches into convolutions; remove dropout.

Folding comes before quantization-aware training, not after it: the weights that are trained are then the weights that
are rounded, and nothing has to be fused in a graph full of fake quantizers. It works on the traced graph, so it does not
matter which classes a model library writes its layers with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import fx, nn

from edgekd.quantization.graph import finish
from edgekd.quantization.passes.affine import fold_affines
from edgekd.quantization.passes.branches import merge_branches
from edgekd.quantization.passes.constants import compute_constants
from edgekd.quantization.passes.decompositions import SPELLINGS
from edgekd.quantization.passes.expansions import expand_last
from edgekd.quantization.passes.identities import drop_identities
from edgekd.quantization.passes.pools import write_average_pools_without_ceil_mode
from edgekd.quantization.passes.resizes import write_interpolations_as_products
from edgekd.quantization.passes.selections import (
    write_circular_padding_as_slices,
    write_flips_one_by_one,
    write_repeats_as_selections,
    write_resizes_as_selections,
)
from edgekd.quantization.passes.sharing import share_weights
from edgekd.quantization.passes.transposed import write_transposed_convolutions_as_convolutions
from edgekd.quantization.passes.types import write_conversions
from edgekd.quantization.passes.windows import write_max_pools_with_equal_windows
from edgekd.quantization.trace import trace
from edgekd.task.named import Inputs

_SAFE = (
    write_conversions,
    write_resizes_as_selections,
    write_interpolations_as_products,
    write_circular_padding_as_slices,
    write_repeats_as_selections,
    write_flips_one_by_one,
    write_max_pools_with_equal_windows,
    write_transposed_convolutions_as_convolutions,
)
"""They write what a runtime or its converter has not, or computes otherwise, with operators that are the same in all."""


def fold(model: nn.Module, example: Inputs) -> fx.GraphModule:
    """Return the traced inference graph of ``model`` without batch normalisation, dropout and parallel branches.

    A batch norm that has no convolution or linear layer of its own before it becomes a 1×1 depthwise convolution
    (two-dimensional ones only; others stay as they are). A sum of convolutions of one tensor becomes one
    convolution: RepVGG (Ding et al. 2021, §3.3), MobileOne (Vasu et al. 2023, §3.2) and their like take their inference
    form. A layer that is used several times keeps one weight where the same is folded into each use. Outputs keep their
    structure. A convolution whose output is also an output of the model, as a feature for
    distillation, is kept beside the folded one for that output.

    Args:
        model: Any module that takes tensors; it is not changed.
        example: As in ``trace``.

    Returns:
        A graph module with parameters of its own.

    Raises:
        QuantizeError: The model cannot be traced.

    Example:
        >>> import torch
        >>> layers = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Dropout())
        >>> graph = fold(layers, torch.zeros(1, 3, 8, 8)).graph
        >>> [node.target.__name__ for node in graph.nodes if node.op == "call_function"]
        ['conv2d.default']
    """
    graph_module = merge(model, example, {})
    write_average_pools_without_ceil_mode(graph_module)
    finish(graph_module)
    return graph_module


def merge(model: nn.Module, example: Inputs, decompositions: Mapping[Any, Callable[..., Any]]) -> fx.GraphModule:
    """Return what ``fold`` returns, with average pooling as it is: the int8 rules write that in another form."""
    graph_module = trace(model, example, {**SPELLINGS, **decompositions})
    compute_constants(graph_module)
    expand_last(graph_module)
    drop_identities(graph_module)
    for apply in _SAFE:
        apply(graph_module)
    # A merged branch may have a scale behind it, and a scaled branch may be one of several.
    while fold_affines(graph_module) or merge_branches(graph_module):
        pass
    share_weights(graph_module)
    finish(graph_module)
    return graph_module
