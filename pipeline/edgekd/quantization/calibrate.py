"""Calibration: the ranges of a prepared graph from samples, without training.

Two passes in float: one for the exact range of every tensor, one for the histogram within it. Tensors that share a scale
share a fake quantizer, so its histogram holds the values of all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, fx, nn

from edgekd.errors import QuantizeError
from edgekd.progress import Task
from edgekd.quantization import qat
from edgekd.quantization.backend import FakeQuantize, FixedQParamsObserver
from edgekd.quantization.histogram import BINS, Histogram
from edgekd.quantization.naming import describe
from edgekd.quantization.weighted_layers import fake_quantizer
from edgekd.task.named import Inputs, call, count, named
from edgekd.task.named import batches as split

Choose = Callable[[Histogram], tuple[float, float]]
BATCH = 64


def check(inputs: Inputs) -> None:
    """Look at calibration samples before they decide anything.

    Args:
        inputs: What the network takes; integers and truth values need no range.

    Raises:
        ModelError: The inputs are not of the same number of samples.
        QuantizeError: There are none, one of them is not finite, or all of them are one constant.
    """
    total = count(inputs)
    if not total:
        raise QuantizeError(
            "calibration: there are no samples to take the ranges from",
            "give training samples, and quantize.calibration_images of 1 or more",
        )
    floats = [value for value in named(inputs).values() if value.is_floating_point()]
    finite = torch.stack([torch.isfinite(value).reshape(total, -1).all(1) for value in floats]).all(0) if floats else None
    if finite is not None and not finite.all():
        wrong = torch.nonzero(~finite).flatten().tolist()
        raise QuantizeError(
            f"calibration: {len(wrong)} of {total} samples have values that are NaN or infinite, the first is "
            f"sample {wrong[0]}",
            "check the training samples, and the mean and standard deviation that they are normalized with",
        )
    if len(floats) == len(named(inputs)) and all(value.min() == value.max() for value in floats):
        raise QuantizeError(
            f"calibration: every value of the {total} samples is {float(floats[0].min()):g}, which gives no range",
            "check the training samples",
        )


def calibrate(module: fx.GraphModule, inputs: Inputs, choose: Choose, task: Task, student: nn.Module | None = None) -> None:
    """Set every range of ``module`` by the values that ``inputs`` cause, and freeze it with rounding on.

    Weights and constants are known exactly and keep their whole range.

    Args:
        module: ``qat.prepare(...).module``; changed in place.
        inputs: Checked calibration samples.
        choose: A range from a histogram, such as ``histogram.mse``.
        task: Advanced by one for each sample of a pass, of which there are two.
        student: The float network that the graph was made from, which tells why a weight of the graph is not finite.

    Raises:
        QuantizeError: A weight, or a value inside of the network, is not finite.
    """
    _check_weights(module, student)
    tensors = activations(module)
    ranges: dict[FakeQuantize, tuple[float, float]] = dict.fromkeys(tensors, (0.0, 0.0))
    counts: dict[FakeQuantize, Tensor] = {}

    def widen(fake_quantize: FakeQuantize, x: Tensor) -> None:
        low, high = (float(end) for end in torch.aminmax(x))
        if not low <= high < float("inf") or low == -float("inf"):
            raise _not_finite(module, tensors[fake_quantize], x)
        before = ranges[fake_quantize]
        ranges[fake_quantize] = (min(before[0], low), max(before[1], high))

    def fill(fake_quantize: FakeQuantize, x: Tensor) -> None:
        low, high = ranges[fake_quantize]
        if low < high:
            found = torch.histc(x.float().cpu(), BINS, low, high).double()
            counts[fake_quantize] = counts[fake_quantize] + found if fake_quantize in counts else found

    qat.set_fake_quant(module, False)
    qat.set_observers(module, True)  # for weights and constants; those of activations are overwritten
    watched = list(tensors)
    _pass(module, inputs, widen, watched, task)
    qat.set_observers(module, False)
    _pass(module, inputs, fill, watched, task)
    for fake_quantize, (low, high) in ranges.items():
        if fake_quantize in counts:
            low, high = choose(Histogram(counts[fake_quantize], low, high))
        _set_range(fake_quantize, low, high)
    qat.set_fake_quant(module, True)


def _check_weights(module: fx.GraphModule, student: nn.Module | None) -> None:
    """See that the weights of a graph are finite, with the batch norms and factors that were folded into them.

    Raises:
        QuantizeError: One is not.
    """
    damaged = next((name for name, value in module.named_parameters() if not torch.isfinite(value).all()), None)
    if damaged is None:
        return
    own = student.state_dict() if student is not None else {}
    before = next((name for name, value in own.items() if not torch.isfinite(value).all()), None)
    if before is not None:
        where = f"{before} of the float student"
        raise QuantizeError(f"calibration: {where} has values that are NaN or infinite", "train the float student again")
    name = damaged.removeprefix("network.")
    raise QuantizeError(
        f"calibration: {name} has values that are NaN or infinite once the batch norms and factors behind it are folded in"
        + (", though all weights of the float student are finite" if own else ""),
        "look in forward() of the student for a factor or a divisor that is NaN, infinite or 0, and in its batch norms for "
        "a running_var below 0",
    )


def _not_finite(module: fx.GraphModule, name: str, x: Tensor) -> QuantizeError:
    """Say which operator gave values that are not finite, and what they may be of."""
    where = describe(next(node for node in module.graph.nodes if node.name == name))
    if bool(torch.isneginf(x).any()) and bool((torch.isfinite(x) | torch.isneginf(x)).all()):
        return QuantizeError(
            f"calibration: {where} gives -inf, as a mask does, and no int8 scale holds it beside other values",
            "mask with a number near the other values, such as x.masked_fill(mask, -24.0) in the forward() of the student",
        )
    return QuantizeError(
        f"calibration: {where} has values that are NaN or infinite, though the samples have none",
        "look in forward() of the student for a division, a logarithm, an overflow or a mask of -inf that hides a whole row",
    )


def activations(module: fx.GraphModule) -> dict[FakeQuantize, str]:
    """The fake quantizers whose range depends on the samples, each with the name of the first tensor that it rounds."""
    found: dict[FakeQuantize, str] = {}
    for node in module.graph.nodes:
        child = fake_quantizer(module, node)
        if not isinstance(child, FakeQuantize) or isinstance(child.activation_post_process, FixedQParamsObserver):
            continue
        source = node.args[0]
        if not child.is_per_channel and isinstance(source, fx.Node) and source.op != "get_attr":
            found.setdefault(child, source.name)
    return found


def batches(values: Tensor, size: int = BATCH) -> list[Tensor]:
    """Views of ``size`` values each, along the first dimension; the last may be smaller."""
    return [values[start : start + size] for start in range(0, len(values), size)]


def _set_range(fake_quantize: FakeQuantize, low: float, high: float) -> None:
    observer = fake_quantize.activation_post_process
    observer.min_val.fill_(low)
    observer.max_val.fill_(high)
    scale, zero_point = fake_quantize.calculate_qparams()
    fake_quantize.scale.copy_(scale)
    fake_quantize.zero_point.copy_(zero_point)


def _pass(
    module: fx.GraphModule,
    inputs: Inputs,
    look: Callable[[FakeQuantize, Tensor], None],
    watched: Sequence[FakeQuantize],
    task: Task,
) -> None:
    with torch.no_grad(), _hooks(watched, look):
        for batch in split(inputs, BATCH):
            call(module, batch)
            task.advance(count(batch))


@contextmanager
def _hooks(watched: Sequence[FakeQuantize], look: Callable[[FakeQuantize, Tensor], None]) -> Iterator[None]:
    def hook(fake_quantize: FakeQuantize, _: nn.Module, args: tuple[Tensor]) -> None:
        if args[0].numel():
            look(fake_quantize, args[0].detach())

    handles = [each.register_forward_pre_hook(partial(hook, each)) for each in watched]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
