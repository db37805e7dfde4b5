"""Reading and changing a traced graph: its calls, its constants, and layers as values."""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import replace as replace_fields
from typing import Any

import torch
from torch import Tensor, fx, nn

aten = torch.ops.aten


def calls(graph_module: fx.GraphModule) -> list[fx.Node]:
    """Return all calls of operators, in order; the graph may be changed while they are walked."""
    return [node for node in graph_module.graph.nodes if node.op == "call_function"]


def constant(graph_module: fx.GraphModule, node: object) -> Tensor | None:
    """Return the parameter or buffer that ``node`` reads; None for anything else."""
    if not isinstance(node, fx.Node) or node.op != "get_attr":
        return None
    owner, _, name = str(node.target).rpartition(".")
    value = getattr(graph_module.get_submodule(owner), name)
    return value if isinstance(value, Tensor) else None


def origins(node: object) -> frozenset[str]:
    """Return the constants of the traced network that the constant at ``node`` was made of; none for anything else."""
    if not isinstance(node, fx.Node) or node.op != "get_attr":
        return frozenset()
    found: frozenset[str] = node.meta.get("origins", frozenset((str(node.target),)))
    return found


def add_constant(
    graph_module: fx.GraphModule, before: fx.Node, name: str, value: Tensor, *, trained: bool,
    made_of: frozenset[str] = frozenset(),
) -> fx.Node:  # fmt: skip
    """Store a tensor in the module and return a node that reads it.

    Args:
        graph_module: Changed in place.
        before: The node comes right before this one.
        name: Dotted name that is wanted; a number is added where it is taken.
        value: The tensor.
        trained: As a parameter, or as a buffer.
        made_of: Its ``origins``.
    """
    name = _free(graph_module, name)
    owner_path, _, leaf = name.rpartition(".")
    owner = graph_module
    for part in owner_path.split(".") if owner_path else ():
        if part not in dict(owner.named_children()):
            owner.add_module(part, nn.Module())
        owner = owner.get_submodule(part)  # type: ignore[assignment]
    value = value.detach().clone().contiguous()
    if trained:
        owner.register_parameter(leaf, nn.Parameter(value))
    else:
        owner.register_buffer(leaf, value)
    with graph_module.graph.inserting_before(before):
        node = graph_module.graph.get_attr(name)
    node.meta["val"] = _fake_like(before, value)
    node.meta["origins"] = made_of or frozenset((f"{name} of {before.name}",))  # else of nothing that another one is made of
    return node


def add_call(graph_module: fx.GraphModule, before: fx.Node, target: Any, args: tuple[Any, ...]) -> fx.Node:
    """Insert a call right before ``before`` and return it, its shape worked out."""
    with graph_module.graph.inserting_before(before):
        node = graph_module.graph.call_function(target, args)
    if "nn_module_stack" in before.meta:
        node.meta["nn_module_stack"] = before.meta["nn_module_stack"]
    node.meta["val"] = target(*fx.node.map_arg(args, lambda argument: value_of(graph_module, argument, before)))
    return node


def value_of(graph_module: fx.GraphModule, node: fx.Node, near: fx.Node) -> Any:
    """Return the stand-in for the value of ``node``: its shape and type without data."""
    if "val" not in node.meta:
        stored = constant(graph_module, node)
        assert stored is not None, node
        node.meta["val"] = _fake_like(near, stored)
    return node.meta["val"]


def replace(graph_module: fx.GraphModule, node: fx.Node, by: fx.Node) -> None:
    """Let everything that reads ``node`` read ``by``, and remove what nothing reads any more."""
    node.replace_all_uses_with(by)
    remove_unused(graph_module, node)


def remove_unused(graph_module: fx.GraphModule, *nodes: fx.Node) -> None:
    """Remove those of ``nodes`` that nothing reads, with their constants and what only they read."""
    waiting = list(nodes)
    while waiting:
        node = waiting.pop()
        if node.users or node._erased or node.op not in ("call_function", "get_attr"):
            continue
        waiting.extend(node.all_input_nodes)
        if node.op == "get_attr" and not _others_read(graph_module, node):
            owner, _, name = str(node.target).rpartition(".")
            delattr(graph_module.get_submodule(owner), name)
        graph_module.graph.erase_node(node)


def finish(graph_module: fx.GraphModule) -> None:
    """Remove dead nodes and constants that nothing reads, check the graph and make its code anew."""
    graph_module.graph.eliminate_dead_code()
    read = {str(node.target) for node in graph_module.graph.nodes if node.op == "get_attr"}
    for name in [name for name, _ in (*graph_module.named_parameters(), *graph_module.named_buffers())]:
        if name not in read:
            owner, _, leaf = name.rpartition(".")
            delattr(graph_module.get_submodule(owner), leaf)
    graph_module.graph.lint()
    graph_module.recompile()
    allow_mode_switch(graph_module)


def allow_mode_switch(graph_module: fx.GraphModule) -> None:
    """Let ``train()`` and ``eval()`` be called, which torch forbids on an exported graph.

    Neither dropout nor batch normalisation is left, so both modes are the same; training loops and exporters make the
    calls by habit.
    """
    for name in ("train", "eval"):
        graph_module.__dict__.pop(name, None)


def shape_of(node: fx.Node) -> tuple[Any, ...]:
    """Return the shape of a node's value; the batch size may be symbolic."""
    return tuple(node.meta["val"].shape)


def only_read_by(node: fx.Node, reader: fx.Node) -> bool:
    """Tell whether ``reader`` is all that reads ``node``, apart from the outputs of the graph (features)."""
    return all(user is reader or user.op == "output" for user in node.users)


@dataclass(frozen=True)
class Layer:
    """A two-dimensional convolution or a linear layer with constant weights.

    Attributes:
        x: What it reads, (N, C, H, W) or (..., C).
        weight: (out, C / groups, kernel height, kernel width) or (out, C).
        bias: (out,), zeros where the layer has none.
        settings: Of a convolution: stride, padding, dilation (two integers each), groups.
        name: Dotted name of its weight, up to the last dot.
        source: Name of the weight in the traced network.
        made_of: Constants of the traced network that its weight and its bias are made of.
    """

    x: fx.Node
    weight: Tensor
    bias: Tensor
    settings: tuple[Any, ...]
    name: str
    source: str = ""
    made_of: tuple[frozenset[str], frozenset[str]] = (frozenset(), frozenset())

    @classmethod
    def of(cls, graph_module: fx.GraphModule, node: object) -> Layer | None:
        """Return the layer at ``node``; None where it is anything else."""
        if not isinstance(node, fx.Node) or node.target not in (aten.conv2d.default, aten.linear.default):
            return None
        defaults: list[Any] = [None, None, None, [1, 1], [0, 0], [1, 1], 1]
        arguments: list[Any] = [*node.args, *defaults[len(node.args) :]]
        x, weight_node, bias_node, *settings = arguments
        weight, bias = constant(graph_module, weight_node), constant(graph_module, bias_node)
        if weight is None or (bias_node is not None and bias is None):
            return None
        name = str(weight_node.target).rpartition(".")[0] or node.name
        bias = weight.new_zeros(len(weight)) if bias is None else bias
        conv = node.target is aten.conv2d.default
        source = weight_node.meta.get("source", str(weight_node.target))
        made_of = (origins(weight_node), origins(bias_node) or origins(weight_node))
        return cls(x, weight.detach(), bias.detach(), tuple(settings) if conv else (), name, source, made_of)

    def scaled(self, scale: Tensor, shift: Tensor, made_of: frozenset[str]) -> Layer:
        """Return the layer that multiplies each output channel by ``scale`` and adds ``shift``, (out,) each.

        ``made_of`` are the constants that scale and shift are made of.
        """
        weight = self.weight * scale.reshape([-1] + [1] * (self.weight.ndim - 1))
        own, own_bias = self.made_of
        return replace_fields(
            self, weight=weight, bias=self.bias * scale + shift, made_of=(own | made_of, own_bias | made_of)
        )

    def write(self, graph_module: fx.GraphModule, node: fx.Node) -> None:
        """Turn ``node`` into this layer, with trained weights of its own."""
        before = node.all_input_nodes
        node.target = aten.conv2d.default if self.settings else aten.linear.default
        node.args, node.kwargs = (self.x,), {}
        remove_unused(graph_module, *before)  # first, so that the names of the old weights are free
        of_weight, of_bias = self.made_of
        weight = add_constant(graph_module, node, f"{self.name}.weight", self.weight, trained=True, made_of=of_weight)
        weight.meta["source"] = self.source
        bias = add_constant(graph_module, node, f"{self.name}.bias", self.bias, trained=True, made_of=of_bias)
        node.args = (self.x, weight, bias, *self.settings)


def _free(graph_module: fx.GraphModule, name: str) -> str:
    taken = {name for name, _ in (*graph_module.named_parameters(), *graph_module.named_buffers())}
    candidate, count = name, 0
    while candidate in taken:
        count += 1
        head, _, leaf = name.rpartition(".")
        candidate = f"{head}_{count}.{leaf}" if head else f"{leaf}_{count}"
    return candidate


def _others_read(graph_module: fx.GraphModule, node: fx.Node) -> bool:
    return any(
        other is not node and other.op == "get_attr" and other.target == node.target for other in graph_module.graph.nodes
    )


def _fake_like(near: fx.Node, value: Tensor) -> Any:
    for node in near.graph.nodes:
        fake_mode = getattr(node.meta.get("val"), "fake_mode", None)
        if fake_mode is not None:
            return fake_mode.from_tensor(value)
    raise AssertionError("the graph has no traced value")
