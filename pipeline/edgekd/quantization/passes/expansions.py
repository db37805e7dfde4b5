"""Constants that are repeated for each image, such as a learned query: computed with once, and repeated afterwards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from edgekd.quantization.graph import add_constant, constant, origins, remove_unused

aten = torch.ops.aten


@dataclass(frozen=True)
class _Repeated:
    """The value of a node for one image, the same for all.

    Attributes:
        value: (1, ...).
        batch: The node of the batch size.
        trained: Whether it is made of a parameter.
        made_of: The constants that it is made of.
    """

    value: Tensor
    batch: fx.Node
    trained: bool
    made_of: frozenset[str]


def expand_last(graph_module: fx.GraphModule) -> None:
    """Let a constant be expanded to the batch behind the operators that read nothing else.

    A runtime would compute them again for each image. With a query that is expanded before its linear layer, OpenVINO 2026.4
    does not load the int8 file at all.
    """
    found: dict[fx.Node, _Repeated] = {}
    for node in graph_module.graph.nodes:
        if node.op == "call_function":
            repeated = _expanded(graph_module, node) or _computed(graph_module, node, found)
            if repeated is not None:
                found[node] = repeated
    for node, repeated in found.items():
        readers = [user for user in node.users if user not in found]
        if node.target is aten.expand.default or not readers:
            continue
        held = add_constant(
            graph_module, node, f"{node.name}_constant", repeated.value,
            trained=repeated.trained, made_of=repeated.made_of,
        )  # fmt: skip
        with graph_module.graph.inserting_before(node):
            sizes: list[Any] = [repeated.batch, *([-1] * (repeated.value.ndim - 1))]
            expanded = graph_module.graph.call_function(aten.expand.default, (held, sizes))
        expanded.meta.update({key: node.meta[key] for key in ("val", "nn_module_stack") if key in node.meta})
        for reader in readers:
            reader.replace_input_with(node, expanded)
    remove_unused(graph_module, *reversed(found))


def _expanded(graph_module: fx.GraphModule, node: fx.Node) -> _Repeated | None:
    if node.target is not aten.expand.default:
        return None
    value, sizes = constant(graph_module, node.args[0]), node.args[1]
    assert isinstance(sizes, list | tuple)
    if value is None or len(sizes) != value.ndim or value.shape[0] != 1 or not isinstance(sizes[0], fx.Node):
        return None
    if any(isinstance(size, fx.Node) for size in sizes[1:]):
        return None
    one = value.detach().expand(1, *sizes[1:])
    return _Repeated(one, sizes[0], isinstance(value, nn.Parameter), origins(node.args[0]))


def _computed(graph_module: fx.GraphModule, node: fx.Node, found: dict[fx.Node, _Repeated]) -> _Repeated | None:
    inputs = node.all_input_nodes
    parts = [found[source] for source in inputs if source in found]
    if not parts or not isinstance(node.meta.get("val"), Tensor):
        return None
    if torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()):
        return None
    batch = parts[0].batch
    rest = [source for source in inputs if source not in found]
    stored = {source: value.detach() for source in rest if (value := constant(graph_module, source)) is not None}
    if any(source not in stored and str(source.meta.get("val")) != str(batch.meta["val"]) for source in rest):
        return None
    one, two = (_run(node, found, stored, count) for count in (1, 2))
    if two.ndim == 0 or two.shape[:1] != (2,) or one.shape[:1] != (1,) or not _alike(two, one.expand(two.shape)):
        return None  # the first dimension is not the batch any more
    parameter = any(isinstance(constant(graph_module, source), nn.Parameter) for source in stored)
    trained = one.is_floating_point() and (parameter or any(part.trained for part in parts))
    made_of = frozenset[str]().union(*(part.made_of for part in parts), *(origins(source) for source in stored))
    return _Repeated(one, batch, trained, made_of)


def _alike(one: Tensor, other: Tensor) -> bool:
    return torch.allclose(one, other) if one.is_floating_point() else torch.equal(one, other)


def _run(node: fx.Node, found: dict[fx.Node, _Repeated], stored: dict[fx.Node, Tensor], count: int) -> Tensor:
    def value(source: fx.Node) -> Any:
        if source in found:
            one = found[source].value
            return one.expand(count, *one.shape[1:])
        return stored.get(source, count)  # else the batch size

    assert callable(node.target)
    with torch.no_grad():
        out: Tensor = node.target(*fx.node.map_arg(node.args, value), **fx.node.map_arg(node.kwargs, value))
    return out
