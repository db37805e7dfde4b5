"""Features as outputs of a traced graph.

Forward hooks do not survive ``torch.export``, which quantization-aware training needs. So a tapped network is a graph that
returns ``(logits, feature, ...)``; it shares the modules, and thus the weights, with the network it was made from.
"""

from __future__ import annotations

import operator
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from edgekd.errors import ModelError, did_you_mean
from edgekd.models.torchvision import import_torchvision
from edgekd.taps import attention, resolutions
from edgekd.taps.forms import Form, Forms
from edgekd.taps.layer import Layer
from edgekd.taps.pooling import last_pooled
from edgekd.task import primary
from edgekd.task.base import Port
from edgekd.task.named import arguments


@dataclass(frozen=True)
class Survey:
    """Places of a network where features can be taken.

    Attributes:
        layers: Modules whose output is a feature map, in the order in which they end.
        preactivations: For those of them that end in an activation: what it is applied to. By path.
        embedding: What the classifier, the last linear layer, reads; None without a linear layer.
        stages: Those of the layers that end a resolution.
        blocks: Of a network that is one row of blocks at one resolution, such as a plain vision transformer: those.
        attentions: Self-attentions, in order.
        last_map: What the last pooling over height and width reads; None without one.
        image: Height and width of the images it was made with.
    """

    layers: tuple[Layer, ...]
    preactivations: Mapping[str, Layer]
    embedding: Layer | None
    stages: tuple[Layer, ...] = ()
    blocks: tuple[Layer, ...] = ()
    attentions: tuple[Layer, ...] = ()
    last_map: Layer | None = None
    image: tuple[int, ...] = ()


class Tapped(nn.Module):
    """A network that returns ``(logits, *features)``, and behind them a mapping of its other outputs if it has any.

    Args:
        network: The network; its modules are shared, not copied. It returns a tensor, or a mapping of several.
        paths: What is wanted, in this order: module paths, for their outputs; names of nodes; or an attention's path and
            ``:qkv``, for its queries, keys and values. None: the network need not be traceable.
        port: The primary output of its task.

    Raises:
        ModelError: A path does not exist or the network cannot be traced.
    """

    def __init__(self, network: nn.Module, paths: Sequence[str] = (), port: Port = primary.LOGITS) -> None:
        super().__init__()
        self.network: nn.Module = network
        self._port = port
        self._has_taps = bool(paths)
        self.forward_arguments = arguments(network)
        if paths:
            evaluated = trace(network, False)
            chosen = _logits(evaluated, "")
            place = evaluated.paths.get(chosen, "")
            traced = (trace(network, True), evaluated)
            graphs = [_with_outputs(network, each, paths, _logits(each, place)) for each in traced]
            training = network.training
            dual = import_torchvision().models.feature_extraction.DualGraphModule
            self.network = dual(network, *graphs, class_name=type(network).__name__).train(training)
            for module in self.network.modules():
                if hasattr(module, "inplace"):
                    cast(Any, module).inplace = False

    def forward(self, x: Tensor, *more: Tensor) -> tuple[Any, ...]:
        """Return logits and the tapped features, in the order of the paths, and a mapping of other outputs if there are."""
        out: Any = self.network(x, *more)
        if self._has_taps:
            return cast("tuple[Any, ...]", out)
        chosen = primary.of(out, None, type(self.network).__name__, self._port)
        others = {name: value for name, value in out.items() if value is not chosen} if isinstance(out, dict) else {}
        return (chosen, others) if others else (chosen,)


def whole_state(network: nn.Module, tapped: nn.Module) -> dict[str, Tensor]:
    """Return the weights of a tapped network, or of its average, with those of ``network`` that are not in its graph.

    A traced graph lacks what the logits and the features do not need.
    """
    return {**network.state_dict(), **cast(Tapped, tapped).network.state_dict()}


@dataclass(frozen=True)
class Traced:
    """A network as a graph of calls, and where in the network each node is."""

    graph: fx.Graph
    paths: Mapping[fx.Node, str]


def trace(network: nn.Module, training: bool) -> Traced:
    """Trace a network in one of its modes; its own mode stays.

    Raises:
        ModelError: It cannot be traced.
    """
    tracer = import_torchvision().models.feature_extraction.NodePathTracer()
    before = network.training
    network.train(training)
    try:
        graph = tracer.trace(network)
    except Exception as error:  # whatever the user's forward meets in a tracer
        raise ModelError(
            f"{type(network).__name__} cannot be traced, so no feature can be taken from it: {error}",
            "feature losses need a forward without data-dependent control flow; kd needs no features",
        ) from error
    finally:
        network.train(before)
    called = [node.target for node in graph.nodes if node.op == "call_module"]
    # torchvision takes the number off a module's name, as off a node's: ln_2 would be ln_1.
    paths = {
        node: node.target if node.op == "call_module" and called.count(node.target) == 1 else name
        for node, name in tracer.node_to_qualname.items()
    }
    return Traced(graph, paths)


def _logits(traced: Traced, place: str) -> fx.Node:
    """Return the logits of a traced network that returns more in training: what evaluation mode returns, at ``place``.

    Raises:
        ModelError: The outputs have no logits.
    """
    output: Any = traced.graph.output_node().args[0]
    if isinstance(output, fx.Node) and isinstance(output.target, type) and hasattr(output.target, "_fields"):
        output = output.target(*output.args, **output.kwargs)  # a named tuple is a call in a traced graph
    outputs = list(primary.tensors(output))
    same = [node for _, node in outputs if traced.paths.get(node) == place]
    found: fx.Node = same[0] if len(same) == 1 else primary.of(dict(outputs), None, "the network")
    return found


def _with_outputs(network: nn.Module, traced: Traced, paths: Sequence[str], answer: fx.Node) -> fx.Graph:
    """The graph that returns the logits, and for each path the last node inside it: two paths may end in one node."""
    graph, modules = traced.graph, dict(network.named_modules())
    output = graph.output_node()
    attentions = attention.find(graph, modules, traced.paths)
    found: list[Any] = [answer]
    for path in paths:
        if path.endswith(attention.SUFFIX) and path.removesuffix(attention.SUFFIX) in attentions:
            found.append(attention.add(graph, attentions[path.removesuffix(attention.SUFFIX)], modules))
            continue
        inside = [node for node, at in traced.paths.items() if at == path or at.startswith(f"{path}.")]
        if not inside:
            names = sorted(name for name in modules if name)
            raise ModelError(f"there is no layer {path!r} in {type(network).__name__}", did_you_mean(path, names[:40]))
        if inside[-1] is answer:
            raise ModelError(f"layer {path!r} is the output itself", "choose an earlier layer")
        found.append(inside[-1])
    returned: Any = output.args[0]
    others = {name: node for name, node in returned.items() if node is not answer} if isinstance(returned, dict) else {}
    output.args = ((*found, others) if others else tuple(found),)
    graph = fx.GraphModule(network, graph).graph
    graph.eliminate_dead_code()
    _copy_results(graph)
    return graph


def survey(network: nn.Module, example: Tensor) -> Survey:
    """Trace a network and run it once, in evaluation mode, to see where features can be taken.

    Args:
        network: The network.
        example: Input, 1×C×S×S.

    Raises:
        ModelError: The network cannot be traced.
    """
    traced = trace(network, training=False)
    modules = dict(network.named_modules())
    attentions = attention.find(traced.graph, modules, traced.paths)
    inner = tuple(f"{path}." for path in attentions)  # heads and weights in there are no maps
    outputs: dict[str, fx.Node] = {}
    shapes: dict[fx.Node, tuple[int, ...]] = {}
    forms: dict[fx.Node, tuple[Form, tuple[int, ...]]] = {}
    tell = Forms((example.shape[2], example.shape[3]))

    class Shapes(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            value = super().run_node(n)
            if n.op in {"get_attr", "output"}:
                return value
            path = traced.paths.get(n, "")
            if isinstance(value, Tensor):
                shapes[n] = tuple(value.shape)
            if n in shapes and shapes[n][:1] == (1,) and not (len(shapes[n]) == 4 and path.startswith(inner)):
                before = next((forms[i][0] for i in n.all_input_nodes if i in forms and len(shapes[i]) == 4), None)
                form = tell.of(shapes[n][1:], before, _permutes(n))
                if form is not None:
                    forms[n] = form
            for around in _enclosing(path, modules) if n.op != "placeholder" else ():
                outputs.pop(around, None)  # the last node inside a module is its output
                if n in forms:
                    outputs[around] = n
            return value

    training = network.training
    with torch.no_grad():
        Shapes(fx.GraphModule(network.eval(), traced.graph)).run(example)
    network.train(training)

    def layer(path: str, node: fx.Node) -> Layer:
        form, shape = forms.get(node, ("vector", shapes[node][-1:]))
        return Layer(path, shape, form)

    layers = tuple(layer(path, node) for path, node in outputs.items())
    before = {path: node.all_input_nodes[0] for path, node in outputs.items() if _is_activation(node, modules)}
    read = _read_by_classifier(traced.graph, modules)
    pooled = last_pooled(traced.graph, modules)
    ends = [path for path, node in outputs.items() if node is pooled]
    return Survey(
        layers,
        {path: layer(traced.paths[node], node) for path, node in before.items() if node in forms and node in traced.paths},
        layer(traced.paths[read], read) if read in shapes and read.op != "placeholder" else None,
        resolutions.by_resolution(layers, modules),
        resolutions.blocks(layers, modules, traced.paths.values()),
        tuple(_attention_layers(attentions, modules, shapes)),
        layer(min(ends, key=len) if ends else traced.paths[pooled], pooled) if pooled in forms else None,
        tuple(example.shape[2:]),
    )


def _permutes(node: fx.Node) -> bool:
    return getattr(node.target, "__name__", node.target) in ("permute", "movedim", "moveaxis", "transpose")


def _read_by_classifier(graph: fx.Graph, modules: Mapping[str, nn.Module]) -> fx.Node | None:
    """What the last linear layer reads, in front of dropout."""
    linear = [
        node
        for node in graph.nodes
        if node.target is F.linear or (node.op == "call_module" and isinstance(modules[node.target], nn.Linear))
    ]
    read = linear[-1].all_input_nodes[0] if linear else None
    while read is not None and read.op == "call_module" and isinstance(modules[read.target], nn.Dropout | nn.Identity):
        read = read.all_input_nodes[0]
    return read


def _attention_layers(
    found: Mapping[str, attention.Attention], modules: Mapping[str, nn.Module], shapes: Mapping[fx.Node, tuple[int, ...]]
) -> Iterator[Layer]:
    """Those of the attentions whose queries, keys and values are as many and as wide."""
    for path, one in found.items():
        seen = [shapes.get(source) for source in one.sources]
        if one.module and seen[0] is not None and len(seen[0]) == 3:
            module = cast(nn.MultiheadAttention, modules[one.module])
            yield Layer(path, (3, module.num_heads, seen[0][1 if module.batch_first else 0], module.head_dim), "attention")
        elif not one.module and seen[0] is not None and len(seen[0]) == 4 and len(set(seen)) == 1:
            yield Layer(path, (3, *seen[0][1:]), "attention")


_ACTIVATIONS = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Hardswish, nn.Mish,
    F.relu, F.relu6, F.leaky_relu, F.elu, F.gelu, F.silu, F.hardswish, F.mish, torch.relu, torch.relu_,
    "relu", "relu_",
)  # fmt: skip


def _is_activation(node: fx.Node, modules: Mapping[str, nn.Module]) -> bool:
    called = type(modules[node.target]) if node.op == "call_module" else node.target  # type: ignore[index]
    return called in _ACTIVATIONS


def _enclosing(path: str, modules: Collection[str]) -> list[str]:
    """All modules a node is inside of: ``layer1.0.add`` → ``layer1.0``, ``layer1``."""
    parts = path.split(".")
    prefixes = (".".join(parts[:count]) for count in range(len(parts), 0, -1))
    return [prefix for prefix in prefixes if prefix and prefix in modules]


def _copy_results(graph: fx.Graph) -> None:
    """Leave no operator that writes into its operand: that may be a feature."""
    for node in graph.nodes:
        if node.op == "call_function" and node.target in _NOT_IN_PLACE:
            node.target = _NOT_IN_PLACE[node.target]
        elif node.op == "call_method" and node.target.endswith("_") and not node.target.endswith("__"):
            node.target = node.target.removesuffix("_")
        if "inplace" in node.kwargs:
            node.kwargs = {**node.kwargs, "inplace": False}


_NOT_IN_PLACE = {
    operator.iadd: operator.add, operator.isub: operator.sub, operator.imul: operator.mul,
    operator.itruediv: operator.truediv, torch.relu_: torch.relu,
}  # fmt: skip
