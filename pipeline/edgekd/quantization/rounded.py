"""The weights that a file stores in fewer bits, as the file will have them: the reference that it is compared with."""

from __future__ import annotations

import copy
import warnings

import torch
from torch import Tensor, fx

from edgekd.errors import ExportError
from edgekd.recipe.export import Precision

BITS: dict[Precision, int] = {"float16": 16, "dynamic": 8, "int8-weights": 8, "int4-weights": 4, "int16x8": 8}
_LAYERS = {torch.ops.aten.conv2d.default, torch.ops.aten.linear.default}


def rounded(model: fx.GraphModule, precision: Precision) -> fx.GraphModule:
    """Return a copy of a folded float graph with the weights of ``precision``.

    float16 rounds every parameter. Integers round the weights of convolutions and linear layers, symmetrically, with one
    scale an output channel (largest magnitude = largest integer); rounding again with the same rule changes nothing, so a
    converter that follows it stores exactly these values.

    Raises:
        ExportError: A value is beyond float16, which ends at 65,504.

    Example:
        >>> from torch import nn
        >>> from edgekd.quantization.fold import fold
        >>> graph = fold(nn.Conv2d(1, 1, (1, 2), bias=False), torch.zeros(1, 1, 2, 2))
        >>> weight = next(graph.parameters())
        >>> weight.data = torch.tensor([0.7, 0.26]).reshape(1, 1, 1, 2)
        >>> next(rounded(graph, "int4-weights").parameters()).flatten()
        tensor([0.7000, 0.3000])
    """
    with warnings.catch_warnings():
        # Raised by torch inside its own copy code.
        warnings.filterwarnings("ignore", category=FutureWarning, message=".*LeafSpec.*")
        result = copy.deepcopy(model)
    if precision == "float16":
        for name, value in (*result.named_parameters(), *result.named_buffers()):
            if value.is_floating_point():
                half = value.data.half().to(value.dtype)
                if not torch.equal(half.isfinite(), value.data.isfinite()):
                    raise ExportError(
                        f"float16 ends at {torch.finfo(torch.float16).max:,.0f}, and {name} has values up to "
                        f"{float(value.data.abs().max()):,.0f}",
                        "export another precision, such as float32 or int8-weights; or let the network compute in smaller "
                        "units",
                    )
                value.data = half
    elif precision in BITS:
        for node in result.graph.nodes:
            weight = node.args[1] if node.op == "call_function" and node.target in _LAYERS else None
            if isinstance(weight, fx.Node) and weight.op == "get_attr":
                parameter = result.get_parameter(str(weight.target))
                parameter.data = _on_grid(parameter.data, BITS[precision])
    return result


def _on_grid(weight: Tensor, bits: int) -> Tensor:
    top = 2 ** (bits - 1) - 1
    scale = weight.abs().amax(dim=tuple(range(1, weight.ndim)), keepdim=True) / top
    scale[scale == 0] = 1.0
    result: Tensor = torch.round(weight / scale).clamp(-top, top) * scale
    return result
