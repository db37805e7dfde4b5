"""A model to a functional graph of aten operators."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import Dim

from edgekd.errors import QuantizeError


def trace(model: nn.Module, example: Tensor, decompositions: Mapping[Any, Callable[..., Any]]) -> fx.GraphModule:
    """Trace ``model`` in evaluation mode, without in-place operators.

    Args:
        model: Any module that takes one tensor; it is not changed.
        example: One input, (N, C, H, W); the batch dimension of the graph is free whatever N is.
        decompositions: Operators that are written with others, and how; they keep the values.

    Returns:
        A graph module with parameters of its own, that takes one tensor and returns what ``model`` returns.

    Raises:
        QuantizeError: The input is no batch of images, ``torch.export`` cannot trace the model, or its graph only holds
            for one batch size.
    """
    if example.ndim != 4:
        raise QuantizeError(
            f"the input has shape {tuple(example.shape)}, but the int8 rules are for images",
            "give a batch of images, (N, channels, height, width)",
        )
    # With N = 1 torch.export takes the batch for a constant.
    batch = torch.cat([example, example]) if example.shape[0] == 1 else example
    try:
        with warnings.catch_warnings():
            # Raised by torch inside its own export and copy code.
            warnings.filterwarnings("ignore", category=FutureWarning, message=".*LeafSpec.*")
            own = copy.deepcopy(model).eval()
            program = torch.export.export(own, (batch,), dynamic_shapes=({0: Dim("batch")},), strict=False)
            # This also makes the graph functional: in-place activations are gone afterwards, aliases included.
            graph_module: fx.GraphModule = program.run_decompositions(dict(decompositions)).module(check_guards=False)
    except Exception as error:  # tracing runs the model's own code, which may raise anything
        raise QuantizeError(
            f"{type(model).__name__} cannot be traced with a free batch size: {_first_line(error)}",
            "remove control flow that depends on values or on the batch size from its forward()",
        ) from error
    return graph_module


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)[:300]
