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
        self.names: tuple[str, ...] = ()
        if paths:
            nodes = node_names(network)
            unknown = [path for path in paths if not any(n == path or n.startswith(f"{path}.") for n in nodes)]
            if unknown:
                modules = {name for name, _ in network.named_modules() if name}
                raise ModelError(
                    f"there is no layer {unknown[0]!r} in {type(network).__name__}",
                    did_you_mean(unknown[0], modules if len(modules) < 40 else sorted(modules)[:40]),
                )
            self.names = tuple(f"tap{index}" for index in range(len(paths)))
            wanted = dict(zip(paths, self.names, strict=True))
            logits = nodes[-1]
            if logits in wanted:
                raise ModelError(f"layer {logits!r} is the output itself", "choose an earlier layer")
            self.network = _extractor(network, {**wanted, logits: "logits"})

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return logits and the tapped features, in the order of the paths."""
        out: Any = self.network(x)
        return (out["logits"], *(out[name] for name in self.names)) if self.names else (out,)


def node_names(network: nn.Module) -> list[str]:
    """Names of all nodes of the traced network, in order; the last one is the output.

    Raises:
        ModelError: The network cannot be traced.
    """
    extraction = import_torchvision().models.feature_extraction
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the two modes differ wherever there is dropout: expected
        try:
            train, _ = extraction.get_graph_node_names(network)
        except Exception as error:  # whatever the user's forward meets in a tracer
            raise ModelError(
                f"{type(network).__name__} cannot be traced, so no feature can be taken from it: {error}",
                "feature losses need a forward without data-dependent control flow; kd needs no features",
            ) from error
    return list(train)


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
            if n.op != "placeholder" and isinstance(value, Tensor) and value.ndim == 4:
                for path in _enclosing(tracer.node_to_qualname.get(n, ""), modules):
                    found.pop(path, None)  # the last node inside a module is its output
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


def _extractor(network: nn.Module, wanted: dict[str, str]) -> GraphModule:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        extractor: GraphModule = import_torchvision().models.feature_extraction.create_feature_extractor(
            network, return_nodes=wanted
        )
    return extractor
