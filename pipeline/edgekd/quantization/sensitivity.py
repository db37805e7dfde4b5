"""Sensitivity: which layers int8 hurts, and by how much.

A layer's own noise comes from its weights and from the range of its output. Each layer is quantized alone, and what is
left of the signal is measured twice: at the layer's own output and at the logits. The logits decide: a depthwise
convolution whose channels differ a thousandfold has a fine signal-to-noise ratio at its output, which the great channels
make, and has lost all that the small ones carry.

The measure is the one of Sheng et al. 2018 (arXiv:1803.08607, §3): SQNR = 10·log10(Σ float² / Σ (float - int8)²) dB. At
the logits what all samples share, and what all classes of a sample share, is taken off first, as
:func:`~edgekd.metrics.fidelity.sqnr` does: it says nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor, fx

from edgekd.progress import Progress, Silent
from edgekd.quantization import answer
from edgekd.quantization.backend import FakeQuantizeBase
from edgekd.quantization.graph import constant
from edgekd.quantization.naming import layer_path, operator_name
from edgekd.quantization.weighted_layers import ACTIVATIONS, fake_quantizer, scale_of
from edgekd.results.layers import EXACT_DB
from edgekd.task.named import Inputs, in_order

aten = torch.ops.aten
_COMPUTES = {aten.conv2d.default, aten.linear.default, aten.matmul.default, aten.bmm.default}


@dataclass(frozen=True)
class Sensitivity:
    """Noise of one layer in int8; decibels, more is better, ``EXACT_DB`` at the most.

    Attributes:
        name: Name of the graph node.
        path: Path of the module it comes from; ``input`` for the rounding of the input, with its name where
            there are several.
        op: Operator, such as ``conv2d`` or ``add``.
        alone_db: At its own output, with this layer alone in int8.
        logits_db: At the logits, with this layer alone in int8.
        total_db: At its own output, with the whole graph in int8: what has piled up on the way.
        cause: Where most of its own noise at the logits comes from: the rounding of its ``weight``, or of its ``output``.
        keep_float: What has to be in float for that noise to go, as ``prepare`` takes it: the layer, for its output also
            what reads it.
        float_bytes: What its own weights need more in float32 than in int8.
        gives: Names of the outputs that it gives, or that are computed from its result with no other convolution or product.
    """

    name: str
    path: str
    op: str
    alone_db: float
    logits_db: float
    total_db: float
    cause: Literal["weight", "output"]
    keep_float: tuple[str, ...]
    float_bytes: int
    gives: tuple[str, ...] = ()


def measure(
    module: fx.GraphModule, batches: Sequence[Inputs], progress: Progress | None = None, *, classes: bool = False
) -> tuple[Sensitivity, ...]:
    """Measure every layer of a quantized graph, the worst at the logits first.

    Takes one pass for the layers' own outputs, and for each layer one from that layer on.

    Args:
        module: ``prepare(...).module`` with ranges; it is not changed.
        batches: Samples. A few dozen in all are enough, for ratios, not accuracies, are measured.
        progress: Where to report.
        classes: Whether the primary output are logits of classes, (N, classes).
    """
    layers = _layers(module)
    logits = answer.primary(module.graph)
    signals = {layer.node: _Signals(logits=_Deviations(classes), output=_Deviations(classes)) for layer in layers}
    task = (progress or Silent()).task("what int8 does to each layer", len(layers) * len(batches))
    with torch.no_grad(), _as_they_are(module), task as told:
        for batch in batches:
            exact = _run(module, batch, frozenset())
            rounded = _run(module, batch, frozenset(node for node in module.graph.nodes if fake_quantizer(module, node)))
            for layer in layers:
                found = signals[layer.node]
                reference = exact[layer.end]
                found.alone.add(reference, _alone(module, layer, exact))
                found.total.add(reference, rounded[layer.outputs[0] if layer.outputs else layer.end])
                found.logits.add(exact[logits], _run(module, batch, layer.own, exact)[logits])
                if layer.weights and layer.outputs:
                    found.output.add(exact[logits], _run(module, batch, frozenset(layer.outputs), exact)[logits])
                told.advance(1, layer.node.name)
    given = _given(module, layers)
    rows = [replace(_row(module, layer, signals[layer.node]), gives=given[layer.node]) for layer in layers]
    return tuple(sorted(rows, key=lambda row: (row.logits_db, row.alone_db)))


def exact_outputs(module: fx.GraphModule, batch: Inputs) -> dict[str, tuple[float, Tensor]]:
    """Return, by layer, the scale of its quantized output and that output in the float network.

    Args:
        module: ``prepare(...).module`` with ranges.
        batch: Samples.
    """
    with torch.no_grad(), _as_they_are(module):
        exact = _run(module, batch, frozenset())
    found = {}
    for layer in _layers(module):
        scale = scale_of(module, layer.outputs[0]) if layer.outputs else None
        if scale is not None:
            found[layer.node.name] = (float(scale[0]), exact[layer.end])
    return found


@dataclass
class _Sums:
    """Signal and noise over all batches."""

    signal: float = field(default=0.0, init=False)
    noise: float = field(default=0.0, init=False)

    def add(self, exact: Tensor, rounded: Tensor) -> None:
        self.signal += float(exact.double().square().sum())
        self.noise += float((exact.double() - rounded.double()).square().sum())

    @property
    def db(self) -> float:
        if self.noise == 0:
            return EXACT_DB
        if not math.isfinite(self.noise):  # a division by what int8 rounds to 0
            return -EXACT_DB
        return min(EXACT_DB, 10 * math.log10(self.signal / self.noise)) if self.signal else -EXACT_DB


@dataclass
class _Deviations(_Sums):
    """The same of the primary output, whose signal is what differs from sample to sample."""

    classes: bool = False
    _n: int = field(default=0, init=False)
    _mean: Tensor | None = field(default=None, init=False)

    def add(self, exact: Tensor, rounded: Tensor) -> None:
        exact, noise = exact.double(), exact.double() - rounded.double()
        if self.classes:
            exact, noise = (values - values.mean(dim=-1, keepdim=True) for values in (exact, noise))
        self.noise += float(noise.square().sum())
        n, mean = len(exact), exact.mean(dim=0)
        if self._mean is None:
            self.signal, self._n, self._mean = float((exact - mean).square().sum()), n, mean
            return
        # Chan, Golub and LeVeque 1983: the sum of squares about the mean of two parts together.
        apart, total = mean - self._mean, self._n + n
        self.signal += float((exact - mean).square().sum() + apart.square().sum() * self._n * n / total)
        self._n, self._mean = total, self._mean + apart * n / total


@dataclass
class _Signals:
    logits: _Deviations
    output: _Deviations
    alone: _Sums = field(default_factory=_Sums)
    total: _Sums = field(default_factory=_Sums)


@dataclass(frozen=True)
class _Layer:
    """An operator and its own quantizers; ``end`` is it or the activation function that it is one with.

    ``operands`` round a tensor once more, to the one scale of a concatenation.
    """

    node: fx.Node
    end: fx.Node
    weights: tuple[fx.Node, ...]
    operands: tuple[fx.Node, ...]
    outputs: tuple[fx.Node, ...]

    @property
    def own(self) -> frozenset[fx.Node]:
        return frozenset((*self.weights, *self.operands, *self.outputs))


def _layers(module: fx.GraphModule) -> list[_Layer]:
    """Every operator, and the input, that has a quantizer of its own."""
    found: list[_Layer] = []
    ends: set[fx.Node] = set()
    for node in module.graph.nodes:
        if node.op not in {"call_function", "placeholder"} or node in ends:
            continue
        rounded = [arg for arg in node.all_input_nodes if fake_quantizer(module, arg)]
        weights = tuple(arg for arg in rounded if arg.args[0].op == "get_attr")
        operands = tuple(arg for arg in rounded if fake_quantizer(module, arg.args[0]))
        end = node
        outputs = _quantizers_of(module, end)
        readers = [user for user in node.users if user.op != "output"]
        if not outputs and len(readers) == 1 and readers[0].target in ACTIVATIONS:
            outputs = _quantizers_of(module, readers[0])
            end = readers[0] if outputs else node
        own = {module.get_submodule(str(quantizer.target)) for quantizer in outputs}
        moved = any(module.get_submodule(str(arg.target)) in own for arg in rounded)
        if operands or ((weights or outputs) and not moved):  # what only moves values has the scale of its input, no noise
            found.append(_Layer(node, end, weights, operands, outputs))
            ends.add(end)
    return found


def _given(module: fx.GraphModule, layers: Sequence[_Layer]) -> dict[fx.Node, tuple[str, ...]]:
    """Return the outputs that each layer gives: the layers on each way back from one, to the first convolution or product.

    What lies behind that, such as a sum, has the steps of its operands: in float alone it gives nothing back. The way ends
    there, too, where it is in float, and int8 does not round its result; another reader of it may.
    """
    ends = {node: layer for layer in layers for node in (layer.node, layer.end)}
    found: dict[fx.Node, list[str]] = {layer.node: [] for layer in layers}
    for name, output in answer.outputs(module.graph).items():
        seen: set[tuple[fx.Node, bool]] = set()
        waiting = [(output, False)]
        while waiting:
            node, rounded = waiting.pop()
            if (node, rounded) in seen:
                continue
            seen.add((node, rounded))
            layer = ends.get(node)
            if layer and (rounded or layer.weights) and node.op != "placeholder":
                found[layer.node].append(name)
            if node.target not in _COMPUTES:
                rounds = fake_quantizer(module, node) is not None
                waiting += [(before, rounds) for before in node.all_input_nodes]
    return {node: tuple(dict.fromkeys(names)) for node, names in found.items()}


def _quantizers_of(module: fx.GraphModule, node: fx.Node) -> tuple[fx.Node, ...]:
    return tuple(user for user in node.users if fake_quantizer(module, user))


@contextmanager
def _as_they_are(module: fx.GraphModule) -> Iterator[None]:
    """Rounding on and ranges frozen in all fake quantizers; their switches come back."""
    own = [child for child in module.modules() if isinstance(child, FakeQuantizeBase)]
    before = [(child.fake_quant_enabled.clone(), child.observer_enabled.clone()) for child in own]
    for child in own:
        child.enable_observer(False)
        child.enable_fake_quant(True)
    try:
        yield
    finally:
        for child, (fake_quant, observer) in zip(own, before, strict=True):
            child.fake_quant_enabled.copy_(fake_quant)
            child.observer_enabled.copy_(observer)


class _Interpreter(fx.Interpreter):
    """Runs a prepared graph with some of its quantizers."""

    def __init__(self, module: fx.GraphModule, active: frozenset[fx.Node]) -> None:
        super().__init__(module, garbage_collect_values=False)
        self._own = module
        self._active = active

    def run_node(self, n: fx.Node) -> Any:
        if n not in self._active and fake_quantizer(self._own, n):
            return self.env[n.args[0]]  # type: ignore[index]  # a quantizer reads a node
        return super().run_node(n)


def _run(
    module: fx.GraphModule, batch: Inputs, active: frozenset[fx.Node], known: dict[fx.Node, Any] | None = None
) -> dict[fx.Node, Any]:
    """Values of all nodes; those of ``known`` that no active quantizer changes are taken over."""
    interpreter = _Interpreter(module, active)
    changed = _readers(active)
    start = {node: value for node, value in (known or {}).items() if node not in changed}
    interpreter.run(*in_order(module, batch).values(), initial_env=start)
    return interpreter.env


def _readers(nodes: frozenset[fx.Node]) -> set[fx.Node]:
    """The nodes and all that is computed from them."""
    found: set[fx.Node] = set()
    waiting = list(nodes)
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting.extend(node.users)
    return found


def _alone(module: fx.GraphModule, layer: _Layer, exact: dict[fx.Node, Any]) -> Tensor:
    """The layer's output from exact inputs with its own quantizers on."""
    interpreter = _Interpreter(module, layer.own)
    interpreter.env = dict(exact)
    for node in (*layer.weights, *layer.operands, layer.node, layer.end, *layer.outputs[:1]):
        if node.op != "placeholder":
            interpreter.env[node] = interpreter.run_node(node)
    out: Tensor = interpreter.env[layer.outputs[0] if layer.outputs else layer.end]
    return out


def _row(module: fx.GraphModule, layer: _Layer, found: _Signals) -> Sensitivity:
    output_makes_half = layer.outputs and (not layer.weights or found.output.noise >= found.logits.noise / 2)
    keep = dict.fromkeys((layer.node, layer.end) if layer.node.op == "call_function" else ())
    if output_makes_half:
        keep |= dict.fromkeys(_float_readers(module, layer.outputs))
    return Sensitivity(
        name=layer.node.name,
        path=layer_path(layer.node) if layer.node.op == "call_function" else _input(module, layer.node),
        op=operator_name(layer.node),
        alone_db=found.alone.db,
        logits_db=found.logits.db,
        total_db=found.total.db,
        cause="output" if output_makes_half else "weight",
        keep_float=tuple(f"%{node.name}" for node in keep),
        float_bytes=_weight_values(module, layer) * 3,
    )


def _input(module: fx.GraphModule, node: fx.Node) -> str:
    """Name an input as a layer; the only one is called ``input``."""
    return "input" if len(module.graph.find_nodes(op="placeholder")) == 1 else f"input {node.name}"


def _float_readers(module: fx.GraphModule, quantizers: Sequence[fx.Node]) -> Iterator[fx.Node]:
    """What reads a tensor and would have to round it; what only moves values hands the question on."""
    for quantizer in quantizers:
        for reader in quantizer.users:
            if reader.op != "call_function":
                continue
            yield reader
            following = _quantizers_of(module, reader)
            own = module.get_submodule(str(quantizer.target))
            shared = [user for user in following if module.get_submodule(str(user.target)) is own]
            yield from _float_readers(module, shared)


def _weight_values(module: fx.GraphModule, layer: _Layer) -> int:
    count = 0
    for quantizer in layer.weights:
        weight = constant(module, quantizer.args[0])
        assert weight is not None
        count += weight.numel()
    return count
