"""The exported graph brought to the few operators that the int8 rules know.

Everything here keeps the float values: compound activations are taken apart into operators that every runtime has in
int8, pooling takes its static form, and scalar operands become constants, so that each of them can be given a scale.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import Dim, ExportedProgram

from edgekd.errors import QuantizeError

aten = torch.ops.aten


def export(model: nn.Module, example: Tensor) -> fx.GraphModule:
    """Trace ``model`` to a functional, normalised graph of aten operators.

    Args:
        model: A folded model (see ``fold``).
        example: One input, (N, ...); the batch dimension of the graph is dynamic whatever N is.

    Returns:
        A graph module that takes one tensor and returns what ``model`` returns.

    Raises:
        QuantizeError: ``torch.export`` cannot trace the model.
    """
    # With N = 1 torch.export takes the batch for a constant.
    batch = torch.cat([example, example]) if example.shape[0] == 1 else example
    try:
        with warnings.catch_warnings():
            # Raised by torch inside its own export and copy code.
            warnings.filterwarnings("ignore", category=FutureWarning, message=".*LeafSpec.*")
            program = torch.export.export(model, (batch,), dynamic_shapes=({0: Dim("batch")},), strict=False)
            program = _functional(program)
            graph_module: fx.GraphModule = program.module(check_guards=False)
    except Exception as error:  # tracing runs the model's own code, which may raise anything
        raise QuantizeError(
            f"{type(model).__name__} cannot be exported with a dynamic batch: {error}",
            "remove control flow that depends on values or on the batch size from its forward()",
        ) from error
    _drop_no_ops(graph_module)
    _make_shapes_static(graph_module)
    _turn_scalars_into_constants(graph_module)
    _turn_pools_into_convolutions(graph_module)
    graph_module.graph.eliminate_dead_code()
    graph_module.graph.lint()
    graph_module.recompile()
    return graph_module


def _functional(program: ExportedProgram) -> ExportedProgram:
    # Both passes functionalise, so in-place activations are gone afterwards, aliases included.
    functional: ExportedProgram = program.run_decompositions(dict(_DECOMPOSITIONS))
    return functional


def _hardsigmoid(x: Tensor) -> Tensor:
    return torch.clamp(x + 3.0, 0.0, 6.0) * (1 / 6)


def _hardswish(x: Tensor) -> Tensor:
    return x * _hardsigmoid(x)


def _silu(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


def _relu6(x: Tensor) -> Tensor:
    return torch.clamp(x, 0.0, 6.0)


def _hardtanh(x: Tensor, low: float = -1.0, high: float = 1.0) -> Tensor:
    return torch.clamp(x, low, high)


def _adaptive_avg_pool2d(x: Tensor, size: list[int]) -> Any:
    height, width = int(x.shape[-2]), int(x.shape[-1])
    rows, columns = int(size[0]), int(size[1])
    if (rows, columns) == (height, width):
        return aten.alias(x)  # a 1×1 map too: averaging it would only add a rounding step
    if (rows, columns) == (1, 1):
        return torch.mean(x, [-2, -1], keepdim=True)
    if height % rows == 0 and width % columns == 0:
        return torch.nn.functional.avg_pool2d(x, (height // rows, width // columns))
    return NotImplemented  # windows of unequal sizes: no runtime has it in int8


def _pad(x: Tensor, pad: list[int], mode: str = "constant", value: float | None = None) -> Any:
    return aten.constant_pad_nd(x, pad, value or 0.0) if mode == "constant" else NotImplemented


_DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {
    aten.hardsigmoid.default: _hardsigmoid,
    aten.hardswish.default: _hardswish,
    aten.silu.default: _silu,
    aten.pad.default: _pad,
    aten.relu6.default: _relu6,
    aten.hardtanh.default: _hardtanh,
    aten.adaptive_avg_pool2d.default: _adaptive_avg_pool2d,
}


_NO_OPS = {
    aten.alias.default,
    aten.clone.default,
    aten.contiguous.default,
    aten.detach.default,
    aten.dropout.default,
    aten.lift_fresh_copy.default,
}


def _calls(graph_module: fx.GraphModule) -> list[fx.Node]:
    return [node for node in graph_module.graph.nodes if node.op == "call_function"]


def _drop_no_ops(graph_module: fx.GraphModule) -> None:
    for node in _calls(graph_module):
        if node.target in _NO_OPS or _is_whole_slice(node):
            node.replace_all_uses_with(node.args[0])  # type: ignore[arg-type]
            graph_module.graph.erase_node(node)


def _is_whole_slice(node: fx.Node) -> bool:
    if node.target is not aten.slice.Tensor:
        return False
    value, source = node.meta["val"], node.args[0]
    assert isinstance(source, fx.Node)
    return bool(tuple(value.shape) == tuple(source.meta["val"].shape) and (len(node.args) < 5 or node.args[4] == 1))


def _make_shapes_static(graph_module: fx.GraphModule) -> None:
    """Write reshapes with -1 for a symbolic size, so that no shape arithmetic reaches a runtime.

    A view needs values in memory order, which a graph turned to NHWC does not have; a reshape copies where it must.
    """
    for node in _calls(graph_module):
        if node.target not in (aten.view.default, aten._unsafe_view.default, aten.reshape.default):
            continue
        node.target = aten.reshape.default
        shape = node.args[1]
        assert isinstance(shape, (list, tuple))
        symbolic = [size for size in shape if isinstance(size, fx.Node)]
        if len(symbolic) == 1 and -1 not in shape:
            node.args = (node.args[0], [-1 if isinstance(size, fx.Node) else size for size in shape])


_SCALAR_OPS = {aten.add.Tensor, aten.mul.Tensor, aten.sub.Tensor, aten.div.Tensor}


def _turn_scalars_into_constants(graph_module: fx.GraphModule) -> None:
    """Give every scalar operand a buffer, and write subtraction and division by a scalar as addition and product."""
    count = 0
    for node in _calls(graph_module):
        if node.target not in _SCALAR_OPS or len(node.args) != 2 or node.kwargs:
            continue
        if not isinstance(node.args[1], int | float) or not node.meta["val"].is_floating_point():
            continue
        value = float(node.args[1])
        if node.target is aten.sub.Tensor:
            node.target, value = aten.add.Tensor, -value
        elif node.target is aten.div.Tensor:
            node.target, value = aten.mul.Tensor, 1.0 / value
        name = f"constant_{count}"
        count += 1
        graph_module.register_buffer(name, torch.tensor(value))
        with graph_module.graph.inserting_before(node):
            constant = graph_module.graph.get_attr(name)
        constant.meta["val"] = node.meta["val"].new_empty(())
        node.args = (node.args[0], constant)


def _turn_pools_into_convolutions(graph_module: fx.GraphModule) -> None:
    """Write average pooling as a depthwise convolution with equal weights.

    The mean of four integers lies half-way between two of them one time in four, int8 pooling must keep the scale of its
    input, and every runtime breaks such ties its own way. A convolution has a scale of its own, and ties are rare.
    Windows that are not all of one size stay as they are.
    """
    count = 0
    for node in _calls(graph_module):
        if node.target is not aten.avg_pool2d.default:
            continue
        x = node.args[0]
        assert isinstance(x, fx.Node)
        kernel, stride, padding, ceil, include_padding, divisor = _pool_arguments(node)
        if ceil or divisor is not None or (any(padding) and not include_padding):
            continue
        channels = int(x.meta["val"].shape[1])
        name = f"pool_{count}"
        count += 1
        graph_module.register_buffer(name, torch.full((channels, 1, *kernel), 1.0 / (kernel[0] * kernel[1])))
        with graph_module.graph.inserting_before(node):
            weight = graph_module.graph.get_attr(name)
        weight.meta["val"] = x.meta["val"].new_empty((channels, 1, *kernel))
        node.target = aten.conv2d.default
        node.args = (x, weight, None, stride, padding, [1, 1], channels)


def _pool_arguments(node: fx.Node) -> tuple[list[int], list[int], list[int], bool, bool, int | None]:
    given: list[Any] = list(node.args[1:])
    defaults: list[Any] = [None, [], [0, 0], False, True, None]
    kernel, stride, padding, ceil, include_padding, divisor = given + defaults[len(given) :]
    kernel = list(kernel) * 2 if len(kernel) == 1 else list(kernel)
    stride = list(stride) or kernel
    return kernel, stride * 2 if len(stride) == 1 else stride, list(padding), ceil, include_padding, divisor
