"""Quantization-aware training: a float model to a graph that trains in int8, to the int8 graph.

The process that trains and the process that exports are two. The second calls ``prepare`` on the same model and then
``load_state``: the graph it gets is the trained one, bit for bit.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from edgekd.errors import CheckpointError, QuantizeError
from edgekd.quantization import answer
from edgekd.quantization.backend import FakeQuantize, FakeQuantizeBase, convert_pt2e, prepare_qat_pt2e
from edgekd.quantization.bias import round_biases
from edgekd.quantization.graph import allow_mode_switch, constant
from edgekd.quantization.naming import describe
from edgekd.quantization.normalise import normalise
from edgekd.quantization.passes.sharing import separate_copies
from edgekd.quantization.quantizer import Int8Quantizer, WeightBits, ancestors
from edgekd.quantization.weighted_layers import fake_quantizer, scale_of
from edgekd.results.runtime import FloatOperation
from edgekd.task.named import Inputs


@dataclass(frozen=True)
class Prepared:
    """A model ready for quantization-aware training.

    Attributes:
        module: Takes what the model takes, with any N, and returns what the model returns. Its parameters are the folded
            weights; its fake quantizers observe ranges and round until told otherwise.
        float_ops: Operations that stay in float.
        copies: Weights that the network shares between layers and the graph cannot, each as a sentence.
    """

    module: fx.GraphModule
    float_ops: tuple[FloatOperation, ...]
    copies: tuple[str, ...] = ()


def prepare(model: nn.Module, example: Inputs, *, weight_bits: WeightBits = 8, keep_float: Collection[str] = ()) -> Prepared:
    """Fold, trace, normalise and put a fake quantizer at every tensor that will be int8.

    Args:
        model: A float model that returns its answer, or a tuple with its answer first and features for distillation behind
            it; the answer is a tensor, or a mapping of all outputs that are shipped. It is not changed.
        example: As in ``trace``.
        weight_bits: 8, or 7 for processors with AVX2 but without VNNI.
        keep_float: What to leave in float: paths of modules, with all that is inside, or ``%`` and the name of a node.

    Raises:
        QuantizeError: The model cannot be traced, or has no layer of a name in ``keep_float``.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(10))
        >>> _ = net(torch.zeros(1, 3, 8, 8))
        >>> prepared = prepare(net, torch.zeros(1, 3, 8, 8))
        >>> prepared.module(torch.zeros(4, 3, 8, 8)).shape, prepared.float_ops
        (torch.Size([4, 10]), ())
    """
    return prepare_graph(normalise(model, example), weight_bits=weight_bits, keep_float=keep_float)


def prepare_graph(
    graph_module: fx.GraphModule, *, weight_bits: WeightBits = 8, keep_float: Collection[str] = ()
) -> Prepared:
    """Put a fake quantizer at every tensor that will be int8: ``prepare`` without its first half.

    Args:
        graph_module: What ``normalise`` returned; it becomes the prepared module.
        weight_bits: As in ``prepare``.
        keep_float: As in ``prepare``.

    Raises:
        QuantizeError: The graph has no layer of a name in ``keep_float``, or has a constant of -inf or inf in int8.
    """
    copies = separate_copies(ancestors(*answer.outputs(graph_module.graph).values()))
    quantizer = Int8Quantizer(weight_bits, keep_float)
    with _quiet():
        module = prepare_qat_pt2e(graph_module, quantizer)
    allow_mode_switch(module)
    _check_constants(module)
    return Prepared(module, quantizer.float_ops, copies)


def _check_constants(module: fx.GraphModule) -> None:
    """See that constants have an int8 scale; weights are looked at when their values matter.

    Raises:
        QuantizeError: One is infinite.
    """
    for node in module.graph.nodes:
        value = constant(module, node.args[0]) if fake_quantizer(module, node) else None
        if value is not None and not isinstance(value, nn.Parameter) and bool(torch.isinf(value).any()):
            (reader, *_) = node.users
            kind = "-inf" if bool(torch.isneginf(value).any()) else "inf"
            raise QuantizeError(
                f"{describe(reader)} reads a constant of {kind}, as a mask has, and no int8 scale holds it beside others",
                "mask in the forward() of the student with a number near the other values, such as -24.0 instead of -inf",
            )


def set_observers(module: nn.Module, enabled: bool) -> None:
    """Let the fake quantizers follow the ranges of their tensors, or not."""
    for fake_quantize in _fake_quantizers(module):
        fake_quantize.enable_observer(enabled)


def set_fake_quant(module: nn.Module, enabled: bool) -> None:
    """Let the fake quantizers round, or pass values through, as for calibration only."""
    for fake_quantize in _fake_quantizers(module):
        fake_quantize.enable_fake_quant(enabled)


def freeze_observers(module: nn.Module) -> None:
    """Keep all ranges as they are from now on; values are rounded as before."""
    set_observers(module, False)


def state(module: nn.Module) -> dict[str, Tensor]:
    """Return everything that ``load_state`` needs, as separate contiguous tensors (safetensors can store them)."""
    return {name: value.detach().clone().contiguous() for name, value in module.state_dict().items()}


def load_state(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Restore weights, ranges, scales and switches from ``state``.

    Args:
        module: ``prepare(...).module`` of the same model.
        state: What ``state()`` returned.

    Raises:
        CheckpointError: The state belongs to another model, input size or version of edgekd.
    """
    own = module.state_dict()
    missing, unknown = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    if missing or unknown:
        parts = [f"lacks {missing[0]} and {len(missing) - 1} more"] if missing else []
        parts += [f"has {unknown[0]} and {len(unknown) - 1} more that the model does not have"] if unknown else []
        raise CheckpointError(
            f"the quantized state does not fit the model: it {'; it '.join(parts)}",
            "rebuild it from the model that it was trained from",
        )
    try:
        module.load_state_dict(dict(state))
    except RuntimeError as error:
        raise CheckpointError(
            f"the quantized state does not fit the model: {str(error).splitlines()[-1].strip()}",
            "rebuild it from the model that it was trained from",
        ) from error


def convert(module: fx.GraphModule, *, fold_weights: bool) -> fx.GraphModule:
    """Turn a trained graph into the int8 graph that returns the shipped outputs alone.

    Args:
        module: ``prepare(...).module``, trained or calibrated. It is not changed.
        fold_weights: Store weights as int8 (ONNX, and the reference numbers) or as float with a quantize node behind
            them (what the TFLite converter wants). Both compute the same.

    Returns:
        A graph of quantize, float and dequantize operators. It returns a tensor, or a tuple in the order of
        ``answer.outputs``. Run eagerly on the CPU, it gives the reference numbers of the int8 model.

    Raises:
        QuantizeError: A range was never observed.
    """
    unseen = [name for name, child in module.named_modules() if _is_unseen(child)]
    with _quiet():
        own = copy.deepcopy(module)
        answer.keep(own)
        if unseen and any(_is_unseen(child) for child in own.modules()):
            raise QuantizeError(
                f"{len(unseen)} tensors have no range yet, such as {unseen[0]}",
                "train, or run calibration batches through the prepared module, before converting it",
            )
        round_biases(own)
        converted: fx.GraphModule = convert_pt2e(own, fold_quantize=fold_weights)
    converted.graph.eliminate_dead_code()
    converted.delete_all_unused_submodules()
    converted.recompile()
    allow_mode_switch(converted)
    return converted.eval()


def output_scale(module: fx.GraphModule) -> tuple[float, int]:
    """Return scale and zero point (int8) of the primary output of a prepared module; a scale is one step, or LSB.

    Raises:
        QuantizeError: It is float.
    """
    found = scale_of(module, answer.primary(module.graph))
    if found is None:
        raise QuantizeError("the primary output is not quantized", "see float_ops for the operator that stays in float")
    scale, zero_point = found
    return float(scale), int(zero_point)


def _fake_quantizers(module: nn.Module) -> Iterator[FakeQuantizeBase]:
    return (child for child in module.modules() if isinstance(child, FakeQuantizeBase))


def _is_unseen(child: nn.Module) -> bool:
    if not isinstance(child, FakeQuantize):
        return False
    low = getattr(child.activation_post_process, "min_val", None)
    return low is not None and (low.numel() == 0 or bool(torch.isinf(low).any()))


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        # Copying a graph module rebuilds its pytree spec, and torch warns of its own class there.
        warnings.filterwarnings("ignore", category=FutureWarning, message=".*LeafSpec.*")
        yield
