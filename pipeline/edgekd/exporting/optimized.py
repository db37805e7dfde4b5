"""Count the float operations of an int8 file in the graph that its runtime makes of it.

Only that graph (``runtime_graphs``) tells; neither the file nor the int8 rules do.

Names do not survive the converters. So an operator is brought back to its layer as in ``inside``: by the scale that its
result is rounded to.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import fx

from edgekd.results.runtime import Delegate, FloatOperation, FloatOperators, RuntimeGraph
from edgekd.runtimes import base
from edgekd.runtimes.inside import Operator

_KINDS = (
    ("conv", "conv"),
    ("gemm|matmul|fully", "linear|matmul|bmm"),
    ("mean|reduce", "mean|amax"),
    ("pool", "pool|mean"),
    ("sigmoid|logistic", "sigmoid"),
    ("softmax", "softmax"),
    ("tanh", "tanh"),
    ("gelu|erf", "gelu"),
    ("norm|mvn", "norm"),
    ("concat", "cat"),
    ("resize|interpolate", "upsample"),
)
"""Which operators of a runtime are which of the graph (regular expressions of their names)."""
_MOVES = re.compile(r"reshape|view|flatten|permute|transpose|squeeze|expand|pixel_shuffle|slice|pad")
_ACTIVATIONS = re.compile(r"relu|clamp")


def look(
    path: Path, format: str, graph: fx.GraphModule, float_ops: Sequence[FloatOperation], modules: Mapping[str, str]
) -> RuntimeGraph:
    """Load an int8 file as edgekd and its snippets do, and return what its runtime computes in float.

    Args:
        path: The int8 file.
        format: Name of its runtime.
        graph: The int8 graph that was exported, ``qat.convert(module, fold_weights=True)``.
        float_ops: Operations that the int8 rules leave in float.
        modules: The module that a node of ``graph`` is from, by the node's name; empty for one outside of any.
    """
    found = base.looking(format).graph(path)
    groups: dict[tuple[str, str, bool, str], list[tuple[Operator, tuple[_Island, ...]]]] = {}
    islands = tuple(_islands(graph, {left.node: left.reason for left in float_ops}))
    explained: Counter[tuple[_Island, str]] = Counter()
    for operator in found.floats:
        mine = () if operator.edge else _explained(operator, _of(operator, islands), explained)
        known = "; ".join(sorted({reason for island in mine for reason in island.reasons}))
        expected = operator.edge or (bool(mine) and all(island.reasons for island in mine))
        key = (operator.kind, operator.precision, expected, known if expected and known else operator.reason)
        groups.setdefault(key, []).append((operator, mine))
    floats = tuple(
        FloatOperators(kind, len(all_), precision, expected, reason, _layers(all_, modules))
        for (kind, precision, expected, reason), all_ in groups.items()
    )
    delegates = tuple(Delegate(**delegate) for delegate in found.delegates)
    return RuntimeGraph(found.runtime, found.operators, floats, delegates, found.undelegated)


@dataclass(frozen=True)
class _Island:
    """Operators of the int8 graph between roundings: one operator with its activation function, or several in float."""

    nodes: tuple[fx.Node, ...]
    scale: float | None
    reasons: tuple[str, ...]


def _islands(graph: fx.GraphModule, float_ops: Mapping[str, str]) -> Iterator[_Island]:
    """Yield what is computed between roundings, with the scale of its result; the logits in float have none."""
    roundings = [node for node in graph.graph.nodes if _name(node).startswith("quantize_per_tensor")]
    ends = [(node.all_input_nodes[0], float(node.args[1])) for node in roundings]
    output = graph.graph.output_node().all_input_nodes[0]
    for end, scale in (*ends, (output, None)):
        nodes: list[fx.Node] = []
        waiting = [end]
        while waiting:
            node = waiting.pop()
            if node.op == "call_function" and "quantize_per" not in _name(node) and node not in nodes:
                nodes.append(node)
                waiting += node.all_input_nodes
        if any(not _MOVES.search(str(node.target)) for node in nodes):
            reasons = tuple(dict.fromkeys(float_ops[node.name] for node in nodes if node.name in float_ops))
            yield _Island(tuple(nodes), scale, reasons)


def _name(node: fx.Node) -> str:
    return str(node.target).removeprefix("quantized_decomposed.") if node.op == "call_function" else ""


def _of(operator: Operator, islands: Iterable[_Island]) -> tuple[_Island, ...]:
    """What of the graph an operator can be: its result has the same scale, and it does the same where that tells."""
    near = [
        island for island in islands
        if (island.scale is None and not operator.scales)
        or any(island.scale and math.isclose(scale, island.scale, rel_tol=1e-5) for scale in operator.scales)
    ]  # fmt: skip
    alike = [island for island in near if any(_same(operator.does or operator.kind, node) for node in island.nodes)]
    if operator.kind.startswith("Fused"):  # with its activation function
        alike = [island for island in alike if any(_ACTIVATIONS.search(str(node.target)) for node in island.nodes)]
    return tuple(alike or [island for island in near if island.reasons] or near)


def _explained(
    operator: Operator, islands: tuple[_Island, ...], explained: Counter[tuple[_Island, str]]
) -> tuple[_Island, ...]:
    """Give an operator to what the rules left in float, to as many as there are of it, and else to what they did not.

    Args:
        operator: In float.
        islands: What it can be, by its scale.
        explained: How many operators of a kind an island was given so far; changed.
    """
    kind = operator.does or operator.kind
    for island in islands:
        alike = sum(_same(kind, node) for node in island.nodes)  # none of one that is written with other operators
        if island.reasons and (not alike or explained[island, kind] < alike):
            explained[island, kind] += 1
            return (island,)
    return tuple(island for island in islands if not island.reasons) or islands


def _same(kind: str, node: fx.Node) -> bool:
    names = [graph for runtime, graph in _KINDS if re.search(runtime, kind, re.IGNORECASE)]
    return any(re.search(name, str(node.target)) for name in names)


def _layers(found: Sequence[tuple[Operator, tuple[_Island, ...]]], modules: Mapping[str, str]) -> tuple[str, ...]:
    """Name the layers of several operators; none where more layers could be meant than there are operators."""
    meant: Counter[tuple[str, ...]] = Counter()
    for operator, islands in found:
        names = set()
        for island in islands:
            node = next((node for node in island.nodes if _same(operator.does or operator.kind, node)), island.nodes[0])
            names.add(modules.get(node.name) or node.name)
        meant[tuple(sorted(names))] += 1
    if any(len(names) > count for names, count in meant.items()):
        return ()
    return tuple(sorted({name for names in meant for name in names}))
