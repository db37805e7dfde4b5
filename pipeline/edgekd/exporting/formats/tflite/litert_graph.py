"""A graph in the form that LiteRT's converter turns into a file which computes the same."""

from __future__ import annotations

import copy
from collections.abc import Collection
from typing import Any

import torch
from torch import fx, nn

aten = torch.ops.aten
_NEGATIVE, _RECIPROCAL = (aten.mul.Tensor, -1.0), (aten.pow.Tensor_Scalar, -1.0)
_WITHOUT_SWAP: dict[Any, tuple[tuple[Any, float], Any]] = {
    aten.sub.Tensor: (_NEGATIVE, aten.add.Tensor),
    aten.rsub.Scalar: (_NEGATIVE, aten.add.Tensor),
    aten.div.Tensor: (_RECIPROCAL, aten.mul.Tensor),
    aten.reciprocal.default: (_RECIPROCAL, aten.mul.Tensor),
}
"""By operator: what turns its variable operand, and what joins that with the constant."""
_QUANTIZE = "quantized_decomposed.quantize_per_tensor.default"
_DEQUANTIZE = "quantized_decomposed.dequantize_per_tensor.default"
_OF_SEVERAL = (aten.layer_norm.default, aten.native_layer_norm.default, aten.group_norm.default)
"""Operators that are several in the file: none of these has integers on both sides."""


def prepare(module: nn.Module, in_float: Collection[str] = ()) -> nn.Module:
    """Return a graph with the same values that the converter takes; what is no graph is returned as it is.

    Args:
        module: The folded float graph, or the int8 graph; not changed.
        in_float: Names of the nodes that the int8 graph computes in float.
    """
    if not isinstance(module, fx.GraphModule):
        return module
    graph = copy.deepcopy(module)
    if any(str(node.target) == _DEQUANTIZE for node in graph.graph.nodes):
        _keep_roundings_in_place(graph, in_float)
        _give_each_reader_its_own_dequantization(graph)
        _write_without_selection(graph)
    _write_without_swapped_operands(graph)
    return graph


def _keep_roundings_in_place(module: fx.GraphModule, in_float: Collection[str]) -> None:
    """Negate a float value twice in front of a rounding that the converter would not leave where it is (litert-torch 0.10).

    It moves the rounding of a part of a value in front of what takes the part, and rounds there for all readers, with the
    steps of one after those of another: a layer kept in float whose halves go to two convolutions loses one of them. And
    it makes an int8 operator of one in float between integers: of a flip, which in TensorFlow Lite has one scale for what
    it reads and gives, or of a padding, whose value gets the steps of what it reads. ``flatbuffer.drop_double_negations``
    takes the negations out of the file.
    """
    for node in list(module.graph.nodes):
        if str(node.target) != _QUANTIZE:
            continue
        value = node.args[0]
        alone = value.name in in_float and _reads_integers(value)
        for read in value.all_input_nodes if alone else ():
            if read.op != "get_attr":
                _negate_twice(module.graph, read, value)
        if alone or _is_of_shared_float(value):
            _negate_twice(module.graph, value, node)
    module.recompile()


def _negate_twice(graph: fx.Graph, value: fx.Node, reader: fx.Node) -> None:
    with graph.inserting_before(reader):
        negated = graph.call_function(aten.neg.default, (value,))
        again = graph.call_function(aten.neg.default, (negated,))
    negated.meta, again.meta = dict(value.meta), dict(value.meta)
    reader.replace_input_with(value, again)


def _reads_integers(node: fx.Node) -> bool:
    """Return whether one operator of the file reads integers and constants, which the converter makes integers, too."""
    operands = [value for value in node.all_input_nodes if value.op != "get_attr"]
    return node.target not in _OF_SEVERAL and all(str(value.target) == _DEQUANTIZE for value in operands)


def _is_of_shared_float(part: fx.Node) -> bool:
    """Return whether it comes, through operators of one operand or concatenations, from a float value with other readers."""
    waiting = [part]
    while waiting:
        node = waiting.pop()
        operands = [value for value in node.all_input_nodes if value.op != "get_attr"]
        if len(operands) == 1 or node.target is aten.cat.default:
            before = [value for value in operands if str(value.target) != _DEQUANTIZE]
            if any(len(value.users) > 1 for value in before):
                return True
            waiting += before
    return False


def _give_each_reader_its_own_dequantization(module: fx.GraphModule) -> None:
    """Copy a dequantization for each operator that reads it.

    The converter forgets the shape of one in front of which it puts a transpose, and stops at its next reader
    ("Attempting to convert non-NHWC compatible node", litert-torch 0.10).
    """
    graph = module.graph
    for node in list(graph.nodes):
        if str(node.target) != _DEQUANTIZE:
            continue
        for reader in list(node.users)[1:]:
            with graph.inserting_before(reader):
                reader.replace_input_with(node, graph.node_copy(node))
    module.recompile()


def _write_without_selection(module: fx.GraphModule) -> None:
    """Write ELU, CELU, SELU, softplus and Mish with sums instead of a choice between two branches.

    The converter makes the choice between integers, and so rounds the branch of the exponential to the steps of x.
    """
    for node in list(module.graph.nodes):
        written = _WITHOUT_SELECTION.get(node.target)
        # Below a threshold of 20, torch's softplus is another function than the sum.
        other = node.target is aten.softplus.default and len(node.args) > 2 and node.args[2] < 20
        if node.op != "call_function" or written is None or other:
            continue
        with module.graph.inserting_before(node):
            made = written(_Builder(module.graph, node), *node.args, **node.kwargs)
        node.replace_all_uses_with(made)
        module.graph.erase_node(node)
    module.recompile()


class _Builder:
    """Builder that inserts operators before a node, with its metadata."""

    def __init__(self, graph: fx.Graph, node: fx.Node) -> None:
        self._graph, self._node = graph, node

    def __call__(self, operator: Any, *args: Any) -> fx.Node:
        made = self._graph.call_function(operator, args)
        made.meta = dict(self._node.meta)
        return made


def _elu(
    add: _Builder, x: fx.Node, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0
) -> fx.Node:  # scale · (max(x, 0) + alpha · (exp(input_scale · min(x, 0)) - 1))
    exponential = add(aten.exp.default, add(aten.mul.Tensor, add(aten.clamp.default, x, None, 0.0), input_scale))
    low = add(aten.mul.Tensor, add(aten.add.Tensor, exponential, -1.0), alpha * scale)
    return add(aten.add.Tensor, add(aten.mul.Tensor, add(aten.relu.default, x), scale), low)


def _celu(add: _Builder, x: fx.Node, alpha: float = 1.0) -> fx.Node:
    return _elu(add, x, alpha, 1.0, 1 / alpha)


def _selu(add: _Builder, x: fx.Node) -> fx.Node:
    return _elu(add, x, 1.6732632423543772, 1.0507009873554805)


def _softplus(add: _Builder, x: fx.Node, beta: float = 1.0, threshold: float = 20.0) -> fx.Node:
    scaled = add(aten.mul.Tensor, x, beta)  # log(1 + exp(z)) = max(z, 0) + log(1 + exp(-|z|))
    small = add(aten.exp.default, add(aten.mul.Tensor, add(aten.abs.default, scaled), -1.0))
    whole = add(aten.add.Tensor, add(aten.relu.default, scaled), add(aten.log.default, add(aten.add.Tensor, small, 1.0)))
    return add(aten.mul.Tensor, whole, 1 / beta)


def _mish(add: _Builder, x: fx.Node) -> fx.Node:
    return add(aten.mul.Tensor, x, add(aten.tanh.default, _softplus(add, x)))


_WITHOUT_SELECTION = {
    aten.elu.default: _elu,
    aten.celu.default: _celu,
    aten.selu.default: _selu,
    aten.softplus.default: _softplus,
    aten.mish.default: _mish,
}


def _write_without_swapped_operands(module: fx.GraphModule) -> None:
    """Write ``c - x`` as ``-x + c``, and ``c / x`` as ``c · x⁻¹``, for constants c.

    Where x is transposed, the converter moves the transposition behind the operator and swaps its operands: the file
    computes ``x - c`` and ``x / c`` (litert-torch 0.10).
    """
    graph = module.graph
    for node in list(graph.nodes):
        written = _WITHOUT_SWAP.get(node.target)
        if node.op != "call_function" or written is None or _is_int8(node):
            continue
        constant, x = (1.0, node.args[0]) if len(node.args) == 1 else node.args[:2]
        if node.target is aten.rsub.Scalar:
            constant, x = x, constant
        if not isinstance(x, fx.Node) or not _is_constant(constant) or node.kwargs or len(node.args) > 2:
            continue
        (inner, number), outer = written
        with graph.inserting_before(node):
            turned = graph.call_function(inner, (x, number))
            made = turned if constant == 1.0 and outer is aten.mul.Tensor else graph.call_function(outer, (turned, constant))
        for new in (turned, made):
            new.meta = dict(node.meta)
        node.replace_all_uses_with(made)
        graph.erase_node(node)
    module.recompile()


def _is_int8(node: fx.Node) -> bool:
    """Return whether it is an operator on integers, which the converter does not swap."""
    given, read = ([str(near.target) for near in nodes] for nodes in (node.all_input_nodes, node.users))
    return all(name == _DEQUANTIZE for name in given) and all(name == _QUANTIZE for name in read)


def _is_constant(operand: Any) -> bool:
    """Return whether it is a number, or a tensor that the file holds: an int8 one with its dequantization."""
    while isinstance(operand, fx.Node) and operand.op == "call_function" and len(operand.all_input_nodes) == 1:
        operand = operand.all_input_nodes[0]
    return isinstance(operand, int | float) or (isinstance(operand, fx.Node) and operand.op == "get_attr")
