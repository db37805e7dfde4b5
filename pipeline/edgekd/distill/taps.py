"""Features as outputs of a traced graph.

Forward hooks do not survive ``torch.export``, which quantization-aware training needs. So a tapped network is a graph that
returns ``(logits, feature, ...)``; it shares the modules, and thus the weights, with the network it was made from.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx, nn

from edgekd.errors import ModelError, did_you_mean
from edgekd.vision import import_torchvision

if TYPE_CHECKING:
    from torch.fx import GraphModule


@dataclass(frozen=True)
class Layer:
    """A place where a feature can be taken: module path and shape of the feature (C, H, W) for one image."""

    path: str
    shape: tuple[int, int, int]


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


def layers(network: nn.Module, example: Tensor) -> list[Layer]:
    """Modules of the traced network whose output is a feature map, with its shape, in the order in which they end."""
    node_names(network)  # a clear error for what cannot be traced
    tracer = import_torchvision().models.feature_extraction.NodePathTracer()
    training = network.training
    network.eval()
    graph = tracer.trace(network)
    modules = {name for name, _ in network.named_modules() if name}
    found: dict[str, Layer] = {}

    class Shapes(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            value = super().run_node(n)
            name = "" if n.op in {"placeholder", "output"} else tracer.node_to_qualname.get(n, "")
            for path in _enclosing(name, modules):
                found.pop(path, None)  # the last node inside a module is its output
                if isinstance(value, Tensor) and value.ndim == 4:
                    found[path] = Layer(path, (value.shape[1], value.shape[2], value.shape[3]))
            return value

    with torch.no_grad():
        Shapes(fx.GraphModule(network, graph)).run(example)
    network.train(training)
    return list(found.values())


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
    return extractor
