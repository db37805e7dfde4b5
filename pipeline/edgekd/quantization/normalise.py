"""The traced graph brought to the few operators that the int8 rules know.

Compound operators are taken apart, what is one convolution is merged into one, shapes take their static form, and scalars
become constants, so that each operand can be given a scale. The passes are in ``passes/``; all keep the float values, those
of masks in front of a softmax on the condition that ``passes/masks.py`` states.
"""

from __future__ import annotations

from torch import fx, nn

from edgekd.quantization.fold import merge
from edgekd.quantization.graph import finish
from edgekd.quantization.passes.concatenations import chain_concatenations
from edgekd.quantization.passes.constants import make_operands_constant
from edgekd.quantization.passes.decompositions import DECOMPOSITIONS, write_bounded_activations_as_clamps
from edgekd.quantization.passes.masks import bound_masks
from edgekd.quantization.passes.pools import write_average_pools_as_convolutions
from edgekd.quantization.passes.selections import write_more_resizes_as_selections, write_paddings_as_selections
from edgekd.quantization.passes.shapes import make_shapes_static
from edgekd.task.named import Inputs

_PASSES = (
    bound_masks,
    make_shapes_static,
    write_more_resizes_as_selections,
    write_paddings_as_selections,
    write_bounded_activations_as_clamps,
    make_operands_constant,
    write_average_pools_as_convolutions,
    chain_concatenations,
)


def normalise(model: nn.Module, example: Inputs) -> fx.GraphModule:
    """Trace, fold and normalise ``model``.

    Args:
        model: Any module that takes tensors; it is not changed.
        example: As in ``trace``.

    Returns:
        A graph module, with parameters of its own, that takes the same tensors and returns what ``model`` returns.

    Raises:
        QuantizeError: The model cannot be traced.

    Example:
        >>> import torch
        >>> layers = nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.Hardswish())
        >>> graph = normalise(layers, torch.zeros(1, 3, 4, 4)).graph
        >>> [node.target.__name__ for node in graph.nodes if node.op == "call_function"]
        ['conv2d.default', 'add.Tensor', 'clamp.default', 'mul.Tensor', 'mul.Tensor']
    """
    graph_module = merge(model, example, DECOMPOSITIONS)
    for apply in _PASSES:
        apply(graph_module)
    finish(graph_module)
    return graph_module
