"""The int8 rules: which tensor of a graph gets which scale, by the TensorFlow Lite specification.

Weights are symmetric, one scale an output channel. Activations are affine, one scale a tensor, but for the second operand
of a product of matrices, which is symmetric. Operators that only move or select values share the scale of their input;
sigmoid, softmax and tanh have the scale that the specification fixes. An activation function right behind a layer is one
with it, so the scale sits behind the activation.
ONNX Runtime and OpenVINO take any graph that follows these rules.

Source: https://ai.google.dev/edge/litert/conversion/tensorflow/quantization/quantization_spec
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, fx

from edgekd.errors import QuantizeError, did_you_mean
from edgekd.quantization import answer, floats
from edgekd.quantization.backend import (
    DerivedQuantizationSpec,
    FakeQuantize,
    FixedQParamsQuantizationSpec,
    MovingAverageMinMaxObserver,
    MovingAveragePerChannelMinMaxObserver,
    QuantizationAnnotation,
    QuantizationSpec,
    Quantizer,
    SharedQuantizationSpec,
)
from edgekd.quantization.naming import describe, layer_path, operator_name, source
from edgekd.quantization.observers import HoldingMinMaxObserver
from edgekd.quantization.weighted_layers import ACTIVATIONS
from edgekd.results.runtime import FloatOperation

aten = torch.ops.aten
WeightBits = Literal[7, 8]

# Smallest scales. They keep an int32 bias, in steps of (input scale × weight scale), within range for channels and
# tensors that are all but dead, which folded networks have.
_SMALLEST_ACTIVATION_SCALE = 2.0**-16
_SMALLEST_WEIGHT_SCALE = 2.0**-20

_WEIGHTED = {aten.conv2d.default, aten.linear.default}
_BINARY = {aten.add.Tensor, aten.mul.Tensor, aten.sub.Tensor}
# One operand, a result with a scale of its own; functions of one value are a table of 256 in every runtime.
_UNARY = {aten.mean.dim, aten.gelu.default, aten.leaky_relu.default}
_PRODUCTS = {aten.matmul.default, aten.bmm.default}
_FLOAT: dict[Any, str] = {
    aten.layer_norm.default: "no runtime has layer normalisation in int8",
    aten.native_layer_norm.default: "no runtime has layer normalisation in int8",
    aten.elu.default: "no int8 ELU in the TensorFlow Lite converter; ReLU and PReLU have one",
    aten.celu.default: "no int8 CELU in the TensorFlow Lite converter; ReLU and PReLU have one",
    aten.selu.default: "no int8 SELU in the TensorFlow Lite converter; ReLU and PReLU have one",
    aten.mish.default: "no int8 Mish in the TensorFlow Lite converter; ReLU6 and SiLU have one",
    aten.group_norm.default: "no runtime has group normalisation in int8",
    aten.instance_norm.default: "no runtime has instance normalisation in int8",
    aten.conv1d.default: "no int8 rule for one-dimensional convolutions",
}
# What TensorFlow Lite can fuse: (lowest, highest) value; other clamps have no int8 operator.
_CLAMP_RANGES = {(0.0, 6.0), (-1.0, 1.0), (0.0, 1.0), (0.0, None)}
_FUSE_INTO = _WEIGHTED | _BINARY
_MOVES = {
    aten.view.default,
    aten.reshape.default,
    aten.flatten.using_ints,
    aten.permute.default,
    aten.transpose.int,
    aten.squeeze.dim,
    aten.squeeze.dims,
    aten.unsqueeze.default,
    aten.expand.default,
    aten.pixel_shuffle.default,
}
_SELECTS = {
    aten.max_pool2d.default,
    aten.avg_pool2d.default,
    aten.slice.Tensor,
    aten.index_select.default,
    aten.constant_pad_nd.default,
    aten.cat.default,
    aten.amax.default,
    aten.upsample_nearest2d.vec,
}
_PARTS = {aten.slice.Tensor, aten.index_select.default, aten.cat.default}
_FIXED: dict[Any, tuple[float, int]] = {
    aten.sigmoid.default: (1 / 256, -128),
    aten.softmax.int: (1 / 256, -128),
    aten._softmax.default: (1 / 256, -128),
    aten.tanh.default: (1 / 128, 0),
}


def activation_spec(qscheme: torch.qscheme = torch.per_tensor_affine) -> QuantizationSpec:
    """Int8, one scale a tensor; affine, or symmetric with a zero point of 0."""
    return QuantizationSpec(
        dtype=torch.int8,
        quant_min=-128,
        quant_max=127,
        qscheme=qscheme,
        observer_or_fake_quant_ctr=FakeQuantize.with_args(
            observer=MovingAverageMinMaxObserver, eps=_SMALLEST_ACTIVATION_SCALE
        ),
    )


def weight_spec(bits: WeightBits) -> QuantizationSpec:
    """Symmetric int8, one scale an output channel, values in ±127 for 8 bits and ±63 for 7."""
    limit = 2 ** (bits - 1) - 1
    return QuantizationSpec(
        dtype=torch.int8,
        quant_min=-limit,
        quant_max=limit,
        qscheme=torch.per_channel_symmetric,
        ch_axis=0,
        observer_or_fake_quant_ctr=FakeQuantize.with_args(
            observer=MovingAveragePerChannelMinMaxObserver,
            averaging_constant=1.0,  # weights are known exactly: no averaging over steps
            eps=_SMALLEST_WEIGHT_SCALE,
        ),
    )


def fixed_spec(scale: float, zero_point: int) -> FixedQParamsQuantizationSpec:
    """Int8 with the scale that the specification fixes for an operator."""
    return FixedQParamsQuantizationSpec(
        dtype=torch.int8,
        scale=scale,
        zero_point=zero_point,
        quant_min=-128,
        quant_max=127,
        qscheme=torch.per_tensor_affine,
    )


def scaled_spec(x: fx.Node, node: fx.Node, factor: float) -> DerivedQuantizationSpec:
    """Int8 with the scale of the operand ``x`` of ``node`` times ``factor``: the same integers, renamed."""
    return DerivedQuantizationSpec(
        derived_from=[(x, node)],
        derive_qparams_fn=partial(_scaled, factor=factor),
        dtype=torch.int8,
        quant_min=-128,
        quant_max=127,
        qscheme=torch.per_tensor_affine,
    )


def _scaled(quantizers: list[FakeQuantize], *, factor: float) -> tuple[Tensor, Tensor]:
    scale, zero_point = quantizers[0].calculate_qparams()
    return scale * factor, zero_point


class Int8Quantizer(Quantizer):  # type: ignore[misc]  # torchao ships no types
    """Annotate a normalised graph (see ``normalise``) with the int8 rules.

    Only what the shipped outputs depend on is annotated: feature outputs are cut off before export. An operator without
    a rule stays float and is listed. Integers stay as they are, and what comes from integer inputs alone, such as a mask,
    stays float.

    Args:
        weight_bits: 8, or 7 for processors with AVX2 but without VNNI, whose int8 kernels saturate with 8.
        keep_float: What to leave in float: paths of modules, with all that is inside, or ``%`` and the name of a node.

    Attributes:
        float_ops: After ``annotate``, the operations left in float.
    """

    def __init__(self, weight_bits: WeightBits = 8, keep_float: Collection[str] = ()) -> None:
        super().__init__()
        self._keep_float = frozenset(keep_float)
        self.float_ops: tuple[FloatOperation, ...] = ()
        self._affine = activation_spec()
        self._symmetric = activation_spec(torch.per_tensor_symmetric)
        self._second_operands: set[fx.Node] = set()
        self._concatenated: set[fx.Node] = set()
        self._weight = weight_spec(weight_bits)
        self._selecting: list[fx.Node] = []
        self._constants: dict[str, float] = {}
        self._shipped: set[fx.Node] = set()

    def annotate(self, model: fx.GraphModule) -> fx.GraphModule:
        """Write the annotations into the nodes of ``model`` and return it."""
        self._shipped = {*answer.outputs(model.graph).values()}
        live = ancestors(*self._shipped)
        self._constants = {name: float(value) for name, value in model.named_buffers() if value.numel() == 1}
        products = (node for node in live if node.target in _PRODUCTS)
        self._second_operands = {origin for node in products for origin in self._origins(node.args[1])}
        concatenations = (node for node in live if node.target is aten.cat.default)
        self._concatenated = {origin for node in concatenations for x in node.all_input_nodes for origin in self._origins(x)}
        _check_names(self._keep_float, model.graph)
        kept = _kept(model.graph, self._keep_float, live)
        float_ops = self._annotate(model, live, kept)
        between = floats.between(
            model.graph, live, set(float_ops), _BINARY, _BINARY | _UNARY | ACTIVATIONS | _MOVES | _SELECTS
        )
        if between:
            for node in live:
                node.meta.pop("quantization_annotation", None)
            self._selecting.clear()
            float_ops = self._annotate(model, live, between | kept)
        for node in (*between, *kept):  # what only moves values costs nothing more in float
            if node.target in _MOVES | _SELECTS and kept.get(node, _HANDED_ON) == _HANDED_ON:
                float_ops.pop(node, None)
        asked = {source(node) for node in kept}
        self.float_ops = tuple(
            FloatOperation(layer_path(node), operator_name(node), node.name, reason, node in asked)
            for node, reason in float_ops.items()
        )
        return model

    def _annotate(self, module: fx.GraphModule, live: set[fx.Node], kept: dict[fx.Node, str]) -> dict[fx.Node, str]:
        """Write the annotations of all but what is ``kept``; return what stays in float, with the reason."""
        float_ops: dict[fx.Node, str] = {}
        of_integers = floats.of_integers(module)
        for node in module.graph.nodes:
            if node.op != "call_function" or node not in live or not _is_float_tensor(node) or node in of_integers:
                continue
            if node in kept:
                float_ops[source(node)] = kept[node]
                continue
            rule = _RULES.get(node.target)
            missing = _FLOAT.get(source(node).target, f"no int8 rule for {operator_name(node)}")
            reason = rule(self, node, live) if rule else missing
            # What reads no tensor, such as zeros of the batch size, is no operator that costs anything.
            if reason and any(isinstance(x.meta.get("val"), Tensor) for x in source(node).all_input_nodes):
                float_ops[source(node)] = reason
        return float_ops

    def validate(self, model: fx.GraphModule) -> None:
        """Nothing to check: ``annotate`` lists what it cannot quantize."""

    def prepare_obs_or_fq_callback(self, model: fx.GraphModule, edge_or_node_to_obs_or_fq: dict[Any, Any]) -> None:
        """Let scales that several tensors share cover all of them.

        A plain moving average would settle between a wide tensor and a narrow one, and clip the wide one.
        """
        for node in self._selecting:
            fake_quantize = edge_or_node_to_obs_or_fq.get(node)
            if isinstance(fake_quantize, FakeQuantize):
                observer = fake_quantize.activation_post_process
                if type(observer) is MovingAverageMinMaxObserver:
                    fake_quantize.activation_post_process = HoldingMinMaxObserver.like(observer)

    # Each rule annotates one node, or returns why it cannot.

    def _weighted(self, node: fx.Node, live: set[fx.Node]) -> str:
        x, weight = node.args[0], node.args[1]
        assert isinstance(x, fx.Node)
        if not isinstance(weight, fx.Node) or weight.op != "get_attr":
            return f"the weight of {operator_name(node)} is computed in the graph"
        self._set(node, live, {x: self._input(x), weight: self._weight})
        return ""

    def _two_operands(self, node: fx.Node, live: set[fx.Node]) -> str:
        operands = [arg for arg in node.args if isinstance(arg, fx.Node)]
        if len(operands) != 2 or node.kwargs:
            return f"{operator_name(node)} with a factor or a scalar"
        inputs = {operand: self._input(operand) for operand in operands}
        factor = self._factor(node)
        if factor and node not in self._concatenated and self._fused_activation(node, live) is None:
            # An observed range would be all but this one, and rounding to steps that are all but equal loses a bit.
            # In front of a concatenation it is observed: there the scale has to be wide enough for all operands.
            self._write(node, inputs, scaled_spec(operands[0], node, factor))
        else:
            self._set(node, live, inputs)
        return ""

    def _unary(self, node: fx.Node, live: set[fx.Node]) -> str:
        x = node.args[0]
        assert isinstance(x, fx.Node)
        self._set(node, live, {x: self._input(x)})
        return ""

    def _activation_function(self, node: fx.Node, live: set[fx.Node]) -> str:
        x = node.args[0]
        assert isinstance(x, fx.Node)
        reason = _unsupported_clamp(node)
        if reason:
            return reason
        if self._fused_activation(x, live) is node:
            self._write(node, {}, self._activation(node))
        else:
            self._write(node, {x: self._input(x)}, self._activation(node))
        return ""

    def _fixed(self, node: fx.Node, live: set[fx.Node]) -> str:
        x = node.args[0]
        assert isinstance(x, fx.Node)
        self._write(node, {x: self._input(x)}, fixed_spec(*_FIXED[node.target]))
        return ""

    def _shared(self, node: fx.Node, live: set[fx.Node]) -> str:
        reason = _unsupported_selection(node)
        if reason:
            return reason
        # One, or the operands of a concatenation; a symbolic size is no tensor, and indices have no scale.
        operands = _float_operands(node)
        fixed = {x: _fixed_scale(x) for x in operands}
        first = next((x for x in operands if fixed[x] is None), operands[0])
        # A fixed scale does not grow with the other operands: such a one is rounded once more, to a scale that does.
        own = self._input(first) if fixed[first] is None or len(set(fixed.values())) == 1 else self._activation(node)
        shared = SharedQuantizationSpec((first, node))
        self._write(node, {first: own, **{x: shared for x in operands if x is not first}}, shared)
        if node.target in _SELECTS:
            self._selecting.append(node)
        return ""

    def _input(self, producer: fx.Node) -> Any:
        """Return the spec of an operand: the one its producer has, where that is quantized."""
        annotation = producer.meta.get("quantization_annotation")
        if annotation is not None and annotation.output_qspec is not None:
            return SharedQuantizationSpec(producer)
        return self._activation(producer)

    def _factor(self, node: fx.Node) -> float:
        """Return the positive constant that a product has as its second operand, or 0."""
        factor = node.args[1] if node.target is aten.mul.Tensor else None
        return max(0.0, self._constants.get(str(factor.target), 0.0)) if isinstance(factor, fx.Node) else 0.0

    def _origins(self, operand: Any) -> Iterator[fx.Node]:
        """Where the scale of an operand is from: through what only moves or selects values, or renames integers."""
        if not isinstance(operand, fx.Node):
            return
        yield operand
        if operand.target in _MOVES | _SELECTS or self._factor(operand):
            for before in operand.all_input_nodes:
                yield from self._origins(before)

    def _activation(self, node: fx.Node) -> QuantizationSpec:
        """Return the spec of a result with a scale of its own.

        XNNPACK as TensorFlow 2.21 has it takes the second operand of a product of matrices for one whose
        zero point is 0.
        """
        return self._symmetric if node in self._second_operands else self._affine

    def _fused_activation(self, node: fx.Node, live: set[fx.Node]) -> fx.Node | None:
        """Return the activation that the operator ``node`` is fused with, if any."""
        if node.target not in _FUSE_INTO or node in self._shipped:
            return None
        readers = [user for user in node.users if user in live]
        if len(readers) == 1 and readers[0].target in ACTIVATIONS and not _unsupported_clamp(readers[0]):
            return readers[0]
        return None

    def _set(self, node: fx.Node, live: set[fx.Node], inputs: dict[fx.Node, Any]) -> None:
        fused = self._fused_activation(node, live)
        self._write(node, inputs, None if fused is not None else self._activation(node))

    @staticmethod
    def _write(node: fx.Node, inputs: dict[fx.Node, Any], output: Any) -> None:
        node.meta["quantization_annotation"] = QuantizationAnnotation(
            input_qspec_map=inputs, output_qspec=output, _annotated=True
        )


_RULES: dict[Any, Callable[[Int8Quantizer, fx.Node, set[fx.Node]], str]] = {
    **dict.fromkeys(_WEIGHTED, Int8Quantizer._weighted),
    **dict.fromkeys(_BINARY | _PRODUCTS, Int8Quantizer._two_operands),
    **dict.fromkeys(_UNARY, Int8Quantizer._unary),
    **dict.fromkeys(ACTIVATIONS, Int8Quantizer._activation_function),
    **dict.fromkeys(_FIXED, Int8Quantizer._fixed),
    **dict.fromkeys(_MOVES | _SELECTS, Int8Quantizer._shared),
}


def _is_named(node: fx.Node, name: str) -> bool:
    """Return whether ``name`` means a node: ``%add_2`` by its own name, ``features.3`` by the module it is inside of."""
    return f"%{node.name}" == name or f"{layer_path(node)}.".startswith(f"{name}.")


_HANDED_ON = "only moves values that are kept in float"
_ACTIVATED = "activation function of what is kept in float"
_FOLLOWS = _MOVES | _SELECTS | ACTIVATIONS


def _kept(graph: fx.Graph, names: Collection[str], live: set[fx.Node]) -> dict[fx.Node, str]:
    """What stays in float because of ``names``, each with the reason.

    All operands of a concatenation share a scale, so that of one in int8 would round the others too: what feeds a
    concatenation that is kept in float is kept as well. What takes a part of a result or puts several together, and what
    moves or selects from one for an output or an operator without an int8 rule, is kept too, and so is an activation
    function in front of it: one scale for all would round what is kept.
    """
    kept = _fed(graph, names)
    for node in graph.nodes:
        follows = node.target in _FOLLOWS and node in live and node not in kept
        operands = [x for x in _float_operands(node) if x.op != "get_attr"] if follows else []
        if operands and all(x in kept for x in operands) and _hands_on(node, live):
            kept[node] = _ACTIVATED if node.target in ACTIVATIONS else _HANDED_ON
    return kept


def _hands_on(node: fx.Node, live: set[fx.Node]) -> bool:
    """Tell whether a value is parted or joined in the end, or no operator in int8 reads it."""
    if node.target in _PARTS:
        return True
    readers = [reader for reader in node.users if reader in live and _is_float_tensor(reader)]
    if any(reader.target in _FOLLOWS and _hands_on(reader, live) for reader in readers):
        return True
    return all(reader.target not in _RULES for reader in readers)


def _fed(graph: fx.Graph, names: Collection[str]) -> dict[fx.Node, str]:
    """What ``names`` mean, and what feeds a concatenation among it."""
    kept = {node: "kept in float" for node in graph.nodes if any(_is_named(node, name) for name in names)}
    waiting = list(kept)
    while waiting:
        node = waiting.pop()
        if node.target is not aten.cat.default:
            continue
        for feeding in _producers(node):
            if feeding not in kept:
                kept[feeding] = f"feeds {describe(node)}, which is kept in float"
                waiting.append(feeding)
    return kept


def _producers(node: fx.Node) -> Iterator[fx.Node]:
    """What computes the operands of a node: through what only moves values, and a layer with its activation function."""
    for operand in node.all_input_nodes:
        while operand.target in _MOVES | _SELECTS and len(operand.all_input_nodes) == 1:
            yield operand
            operand = operand.all_input_nodes[0]
        yield operand
        if operand.target in ACTIVATIONS:
            yield operand.all_input_nodes[0]


def _check_names(names: Collection[str], graph: fx.Graph) -> None:
    nodes = [node for node in graph.nodes if node.op == "call_function"]
    for name in sorted(names):
        if not any(_is_named(node, name) for node in nodes):
            raise QuantizeError(f"keep_float: the graph has no layer {name!r}", did_you_mean(name, map(layer_path, nodes)))


def ancestors(*nodes: fx.Node) -> set[fx.Node]:
    """Return nodes and all that they are computed from."""
    found, waiting = set(), list(nodes)
    while waiting:
        current = waiting.pop()
        if current not in found:
            found.add(current)
            waiting.extend(current.all_input_nodes)
    return found


def _is_float_tensor(node: fx.Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and value.is_floating_point()


def _float_operands(node: fx.Node) -> list[fx.Node]:
    return [x for x in node.all_input_nodes if _is_float_tensor(x)]


def _fixed_scale(node: fx.Node) -> tuple[float, int] | None:
    """Return the scale and zero point that a rule fixes for a result, also through what only moves its values."""
    if node.target in _MOVES | _SELECTS:
        scales = {_fixed_scale(x) for x in _float_operands(node)}
        return scales.pop() if len(scales) == 1 else None
    return _FIXED.get(node.target)


def _unsupported_clamp(node: fx.Node) -> str:
    if node.target is not aten.clamp.default:
        return ""
    low, high = [*node.args[1:], None, None][:2]
    if (low, high) in _CLAMP_RANGES:
        return ""
    return f"clamp to [{low}, {high}] has no int8 operator"


def _unsupported_selection(node: fx.Node) -> str:
    if node.target is aten.constant_pad_nd.default and len(node.args) > 2 and node.args[2] != 0:
        return f"padding with {node.args[2]}"
    return ""
