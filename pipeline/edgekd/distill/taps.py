"""Features as outputs of a traced graph.

Forward hooks do not survive ``torch.export``, which quantization-aware training needs. So a tapped network is a graph that
returns ``(logits, feature, ...)``; it shares the modules, and thus the weights, with the network it was made from.
"""

from __future__ import annotations

import operator
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from edgekd.distill.pooling import last_pooled
from edgekd.errors import ModelError, did_you_mean
from edgekd.vision import import_torchvision

if TYPE_CHECKING:
    from torch.fx import GraphModule


@dataclass(frozen=True)
class Layer:
    """A place where a feature can be taken.

    Attributes:
        path: Module path, or the name of a node of the traced graph.
        shape: Of the feature for one image: (C, H, W), or (D,).
    """

    path: str
    shape: tuple[int, ...]

    @property
    def channels(self) -> int:
        """Number of channels."""
        return self.shape[0]

    @property
    def size(self) -> tuple[int, ...]:
        """Height and width."""
        return self.shape[1:]


@dataclass(frozen=True)
class Survey:
    """Where features can be taken from a network.

    Attributes:
        layers: Modules whose output is a feature map, in the order in which they end.
        preactivations: For those of them that end in an activation: what it is applied to. By path.
        embedding: What the classifier, the last linear layer, reads; None without a linear layer.
        last_map: What the last pooling over height and width reads; None without one.
    """

    layers: tuple[Layer, ...]
    preactivations: Mapping[str, Layer]
    embedding: Layer | None
    last_map: Layer | None


class Tapped(nn.Module):
    """A network that returns ``(logits, *features)``.

    Args:
        network: The network; its modules are shared, not copied.
        paths: Module paths whose outputs are wanted, in this order. None: the network need not be traceable.

    Raises:
        ModelError: A path does not exist or the network cannot be traced.
    """

    def __init__(self, network: nn.Module, paths: Sequence[str] = ()) -> None:
        super().__init__()
        self.network: nn.Module = network
        self._nodes: dict[bool, tuple[str, ...]] = {}  # by mode: what is returned, logits first
        if paths:
            train, evaluation = node_names(network)
            self._nodes = {True: _resolved(network, paths, train), False: _resolved(network, paths, evaluation)}
            self.network = _extractor(network, self._nodes)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return logits and the tapped features, in the order of the paths."""
        out: Any = self.network(x)
        return tuple(out[node] for node in self._nodes[self.training]) if self._nodes else (out,)


def _resolved(network: nn.Module, paths: Sequence[str], nodes: Sequence[str]) -> tuple[str, ...]:
    """The node that gives the logits, and for each path the last node inside it: two paths may end in one node."""
    found = [nodes[-1]]
    for path in paths:
        inside = [node for node in nodes if node == path or node.startswith(f"{path}.")]
        if not inside:
            modules = {name for name, _ in network.named_modules() if name}
            raise ModelError(
                f"there is no layer {path!r} in {type(network).__name__}",
                did_you_mean(path, modules if len(modules) < 40 else sorted(modules)[:40]),
            )
        if inside[-1] == nodes[-1]:
            raise ModelError(f"layer {path!r} is the output itself", "choose an earlier layer")
        found.append(inside[-1])
    return tuple(found)


def node_names(network: nn.Module) -> tuple[list[str], list[str]]:
    """Names of all nodes of the network traced in train mode and in eval mode, in order; the last one is the output.

    Raises:
        ModelError: The network cannot be traced.
    """
    extraction = import_torchvision().models.feature_extraction
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the two modes differ wherever there is dropout: expected
        try:
            train, evaluation = extraction.get_graph_node_names(network)
        except Exception as error:  # whatever the user's forward meets in a tracer
            raise ModelError(
                f"{type(network).__name__} cannot be traced, so no feature can be taken from it: {error}",
                "feature losses need a forward without data-dependent control flow; kd needs no features",
            ) from error
    return list(train), list(evaluation)


def survey(network: nn.Module, example: Tensor) -> Survey:
    """Trace a network and run it once, in evaluation mode, to see where features can be taken.

    Raises:
        ModelError: The network cannot be traced.
    """
    node_names(network)  # a clear error for what cannot be traced
    tracer = import_torchvision().models.feature_extraction.NodePathTracer()
    training = network.training
    network.eval()
    graph = tracer.trace(network)
    modules = {name for name, _ in network.named_modules() if name}
    found: dict[str, fx.Node] = {}
    shapes: dict[fx.Node, tuple[int, ...]] = {}

    class Shapes(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            value = super().run_node(n)
            name = "" if n.op in {"placeholder", "output"} else tracer.node_to_qualname.get(n, "")
            if isinstance(value, Tensor):
                shapes[n] = tuple(value.shape[1:])
            for path in _enclosing(name, modules):
                found.pop(path, None)  # the last node inside a module is its output
                if isinstance(value, Tensor) and value.ndim == 4:
                    found[path] = n
            return value

    with torch.no_grad():
        Shapes(fx.GraphModule(network, graph)).run(example)
    network.train(training)

    def layer(node: fx.Node) -> Layer:
        return Layer(tracer.node_to_qualname[node], shapes[node])

    calls = dict(network.named_modules())
    before = {path: node.all_input_nodes[0] for path, node in found.items() if _is_activation(node, calls)}
    linear = [node for node in graph.nodes if node.op == "call_module" and isinstance(calls[node.target], nn.Linear)]
    read = linear[-1].all_input_nodes[0] if linear else None
    while read is not None and read.op == "call_module" and isinstance(calls[read.target], nn.Dropout | nn.Identity):
        read = read.all_input_nodes[0]
    pooled = last_pooled(graph, calls)
    paths = [path for path, node in found.items() if node is pooled]
    return Survey(
        tuple(Layer(path, shapes[node]) for path, node in found.items()),
        {path: layer(node) for path, node in before.items() if node.op != "placeholder"},
        layer(read) if read is not None and read.op != "placeholder" else None,
        None if pooled is None else Layer(min(paths, key=len) if paths else layer(pooled).path, shapes[pooled]),
    )


_ACTIVATIONS = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Hardswish, nn.Mish,
    F.relu, F.relu6, F.leaky_relu, F.elu, F.gelu, F.silu, F.hardswish, F.mish, torch.relu, torch.relu_,
    "relu", "relu_",
)  # fmt: skip


def _is_activation(node: fx.Node, modules: Mapping[str, nn.Module]) -> bool:
    called = type(modules[node.target]) if node.op == "call_module" else node.target  # type: ignore[index]
    return called in _ACTIVATIONS


def _enclosing(path: str, modules: set[str]) -> list[str]:
    """All modules a node is inside of: ``layer1.0.add`` → ``layer1.0``, ``layer1``."""
    parts = path.split(".")
    prefixes = (".".join(parts[:count]) for count in range(len(parts), 0, -1))
    return [prefix for prefix in prefixes if prefix in modules]


def _extractor(network: nn.Module, nodes: dict[bool, tuple[str, ...]]) -> GraphModule:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        extractor: GraphModule = import_torchvision().models.feature_extraction.create_feature_extractor(
            network, train_return_nodes=list(nodes[True]), eval_return_nodes=list(nodes[False])
        )
    for graph in (cast(fx.Graph, extractor.train_graph), cast(fx.Graph, extractor.eval_graph)):
        _copy_results(graph)
    for module in extractor.modules():
        if hasattr(module, "inplace"):
            cast(Any, module).inplace = False
    extractor.recompile()
    return extractor


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
