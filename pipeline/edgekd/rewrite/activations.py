"""Activations replaced: modules by what they compute, functions in the ``forward`` that calls them.

A module without parameters is what its values say: timm's own Swish, a hand-written ``x * relu6(x + 3) / 6`` and
``nn.Hardswish`` are all found. A function is found by running the model once, and changed in a ``torch.fx`` graph of
only that module whose ``forward`` calls it, in which all children are opaque.
"""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from edgekd.errors import cause_of
from edgekd.models.torchvision import import_torchvision
from edgekd.task.named import Inputs, call

Function = Callable[[Tensor], Tensor]

GATES = ("sigmoid", "hardsigmoid")
_REFERENCES: dict[str, tuple[Function, ...]] = {
    "relu": (F.relu,),
    "relu6": (F.relu6,),
    "hardswish": (F.hardswish,),
    "silu": (F.silu,),
    "gelu": (F.gelu, lambda x: F.gelu(x, approximate="tanh"), lambda x: x * torch.sigmoid(1.702 * x)),
    "sigmoid": (torch.sigmoid,),
    "hardsigmoid": (F.hardsigmoid,),
}
_MODULES: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "sigmoid": nn.Sigmoid,
    "hardsigmoid": nn.Hardsigmoid,
}
_TARGETS: dict[str, Function] = {"relu": F.relu, "relu6": F.relu6, "sigmoid": torch.sigmoid, "hardsigmoid": F.hardsigmoid}
_CALLS: dict[Any, str] = {
    F.relu: "relu", torch.relu: "relu", Tensor.relu: "relu", "relu": "relu",
    F.relu6: "relu6",
    F.hardswish: "hardswish",
    F.silu: "silu",
    F.gelu: "gelu",
    F.sigmoid: "sigmoid", torch.sigmoid: "sigmoid", Tensor.sigmoid: "sigmoid", "sigmoid": "sigmoid",
    F.hardsigmoid: "hardsigmoid",
}  # fmt: skip
"""Functions and names of methods, as eager code and as fx write them."""
_GATED = {"sigmoid": "silu", "hardsigmoid": "hardswish"}  # x * sigmoid(x) is SiLU
_PRODUCTS = (operator.mul, torch.mul, "mul")
_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


@dataclass(frozen=True)
class Replaced:
    """The network, what was replaced as (path, kind), and what could not be, with the reason."""

    model: nn.Module
    places: tuple[tuple[str, str], ...]
    left: tuple[str, ...]


def replace(model: nn.Module, targets: Mapping[str, str], example: Inputs) -> Replaced:
    """Replace activations.

    Args:
        model: Changed in place, but for modules whose own ``forward`` calls a function that is replaced.
        targets: What becomes of a kind: ``{"hardswish": "relu6"}``.
        example: One sample.
    """
    places: list[tuple[str, str]] = []
    for parent, name, path, kind in list(_modules(model)):
        if kind in targets:
            setattr(parent, name, _MODULES[targets[kind]]())
            places.append((path, kind))
    # x * sigmoid(x) is a SiLU that shows itself as a sigmoid.
    wanted = {*targets, *(gate for gate, kind in _GATED.items() if kind in targets)}
    left = []
    calls = _calls(model, example)
    for path in dict.fromkeys(path for path, kind in calls if kind in wanted):
        owner = model.get_submodule(path)
        try:
            graphs = [_own_graph(owner, training) for training in (True, False)]
        except Exception as error:  # whatever the user's forward meets in a tracer
            kinds = sorted({kind for where, kind in calls if where == path and kind in wanted})
            left.append(f"{' and '.join(kinds)} in the forward of {path or type(model).__name__}, which cannot be traced: "
                        f"{cause_of(error)}")  # fmt: skip
            continue
        kinds_found = [_replace_calls(graph, targets) for graph in graphs][1]
        if kinds_found:
            places += [(path, kind) for kind in kinds_found]
            model = _put(model, path, _graph_module(owner, graphs))
    return Replaced(model, tuple(places), tuple(left))


def census(model: nn.Module, example: Inputs) -> dict[str, int]:
    """Count the activations of each kind, the most frequent first; other kinds are not counted."""
    found = Counter(kind for *_, kind in _modules(model))
    found.update(kind for _, kind in _calls(model, example))
    return dict(found.most_common())


def _modules(model: nn.Module) -> Iterator[tuple[nn.Module, str, str, str]]:
    """Parent, name, path and kind of every activation module; nothing inside of one."""
    seen: set[nn.Module] = set()
    waiting = [("", model)]
    while waiting:
        prefix, parent = waiting.pop()
        for name, child in parent.named_children():
            path = f"{prefix}.{name}" if prefix else name
            kind = _kind(child)
            if kind is not None:
                yield parent, name, path, kind
            elif child not in seen:
                seen.add(child)
                waiting.append((path, child))


def _kind(module: nn.Module) -> str | None:
    """The activation that ``module`` computes, if any: compared on values that tell all of them apart."""
    if isinstance(module, _CONTAINERS) or any(True for _ in (*module.parameters(), *module.buffers())):
        return None
    probe = torch.linspace(-8, 8, 97).reshape(1, 1, 1, 97)
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            out = module(probe.clone())
    except Exception:  # not a function of one tensor
        return None
    if not isinstance(out, Tensor) or out.shape != probe.shape:
        return None
    for kind, references in _REFERENCES.items():
        if any(torch.allclose(out, reference(probe), rtol=0, atol=1e-5) for reference in references):
            return kind
    return None


class _Recorder(TorchFunctionMode):
    """Notes every call of an activation function with the path of the module that makes it."""

    def __init__(self) -> None:
        super().__init__()
        self.stack = [""]
        self.found: list[tuple[str, str]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kind = _CALLS.get(func)
        if kind is not None:
            self.found.append((self.stack[-1], kind))
            with torch._C.DisableTorchFunction():  # F.sigmoid calls Tensor.sigmoid: one call, not two
                return func(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _calls(model: nn.Module, example: Inputs) -> list[tuple[str, str]]:
    """Path of the calling module and kind of every activation function that is not called by an activation module."""
    known = {path for *_, path, _ in _modules(model)}
    recorder = _Recorder()
    handles = []
    for path, module in model.named_modules():
        handles.append(module.register_forward_pre_hook(lambda _module, _args, path=path: recorder.stack.append(path)))
        handles.append(module.register_forward_hook(lambda _module, _args, _out: recorder.stack.pop() and None))
    training = model.training
    try:
        with torch.no_grad(), recorder:
            call(model.eval(), example)
    finally:
        model.train(training)
        for handle in handles:
            handle.remove()
    return [(path, kind) for path, kind in recorder.found if not any(f"{path}.".startswith(f"{own}.") for own in known)]


class _OwnForward(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return True


def _own_graph(module: nn.Module, training: bool) -> fx.Graph:
    before = module.training
    module.training = training  # of this module alone: its children are not looked into
    try:
        return _OwnForward().trace(module)
    finally:
        module.training = before


def _replace_calls(graph: fx.Graph, targets: Mapping[str, str]) -> list[str]:
    """Replace in one graph; returns the kinds found, one an entry."""
    products = {node: found for node in graph.nodes if (found := _gated_product(node)) is not None}
    parts = {gate for _, gate, _ in products.values()}  # a sigmoid inside of a SiLU is no gate
    kinds = []
    for node in list(graph.nodes):
        x, gate, kind = products.get(node) or (_operand(node), None, _call(node))
        if kind is None or node in parts or kind not in targets:
            continue
        node.op, node.target, node.args, node.kwargs = "call_function", _TARGETS[targets[kind]], (x,), {}
        kinds.append(kind)
        if gate is not None and not gate.users:
            graph.erase_node(gate)
    return kinds


def _call(node: object) -> str | None:
    if isinstance(node, fx.Node) and node.op in {"call_function", "call_method"}:
        return _CALLS.get(node.target)
    return None


def _operand(node: fx.Node) -> Any:
    return node.args[0] if node.args else node.kwargs.get("input")


def _gated_product(node: fx.Node) -> tuple[fx.Node, fx.Node, str] | None:
    """``x``, the gate and the kind of ``x * sigmoid(x)`` and ``x * hardsigmoid(x)``."""
    if node.target not in _PRODUCTS or len(node.args) != 2:
        return None
    for x, gate in (node.args, node.args[::-1]):
        kind = _GATED.get(_call(gate) or "")
        if kind is not None and isinstance(x, fx.Node) and isinstance(gate, fx.Node) and _operand(gate) is x:
            return x, gate, kind
    return None


def _graph_module(owner: nn.Module, graphs: list[fx.Graph]) -> nn.Module:
    """The module with a new forward: one graph, or one for each mode where they differ, as with functional dropout."""
    name = type(owner).__name__
    train, evaluation = graphs
    if train.python_code("self").src == evaluation.python_code("self").src:
        return fx.GraphModule(owner, evaluation, name).train(owner.training)
    dual: nn.Module = import_torchvision().models.feature_extraction.DualGraphModule(owner, train, evaluation, name)
    return dual.train(owner.training)


def _put(model: nn.Module, path: str, module: nn.Module) -> nn.Module:
    if not path:
        return module
    model.set_submodule(path, module)
    return model
