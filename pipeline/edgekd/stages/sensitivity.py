"""What int8 does to each layer of the quantized student, and the layers that are given back to float for it.

The end of the quantize stage, of both methods; what is found goes into its graph.json.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial
from typing import TYPE_CHECKING, Any

from edgekd.errors import QuantizeError
from edgekd.records_json import to_json
from edgekd.rundir import LayerRecord, RepairRecord
from edgekd.stages import figures, training
from edgekd.stages.context import Context

if TYPE_CHECKING:
    from torch import Tensor, nn

    from edgekd.data import DataSet
    from edgekd.quantize.qat import Prepared
    from edgekd.quantize.sensitivity import Sensitivity

    Quantize = Callable[[Collection[str]], Prepared]

ALL_INT8 = "all_int8.safetensors"
"""The state before a repair, which its cost is measured against."""


def conclude(
    context: Context, images: DataSet, seen: Tensor, student: nn.Module, quantized: Prepared, requantize: Quantize,
    taps: tuple[str, ...], val_top1: float | None,
) -> None:  # fmt: skip
    """Write ``weights.safetensors`` and ``graph.json``: the state, repaired where the recipe asks, and what it is made of.

    Args:
        context: The quantize stage's.
        images: A repair is decided on their validation split.
        seen: Training images that the layers are looked at with, (N, C, S, S).
        student: The float student.
        quantized: Its quantized graph.
        requantize: Makes the same graph with some layers in float.
        taps: The graph's features.
        val_top1: Top-1 of the quantized graph on the validation split, from 0 to 1; None where images have no labels.
    """
    from edgekd.quantize import qat
    from edgekd.quantize.footprint import footprint

    settings = context.recipe.quantize
    assert settings is not None
    found: dict[str, Any] = {"taps": taps, "val_top1": val_top1, "keep_float": settings.named_float()}
    rows = _measured(context, quantized, seen)
    if settings.keep_float == "auto" and rows:
        repaired = _repair(context, images, student, quantized, requantize, rows)
        if repaired is not None:
            training.save(qat.state(quantized.module), context.out / ALL_INT8)
            quantized, record = repaired
            rows = _measured(context, quantized, seen)
            found |= {"keep_float": record.keep_float, "val_top1": record.after, "repair": to_json(record)}
    for line in quantized.copies:
        context.progress.say(f"  {line}")
    for op in quantized.float_ops:
        context.progress.say(f"  stays float: {op}")
    training.save(qat.state(quantized.module), context.out / "weights.safetensors")
    layers = [to_json(_layer(row)) for row in rows]
    said = [f"{line}." for line in quantized.copies]
    if advice := footprint(quantized.module).advice():
        context.progress.say(f"  advice: {advice}")
        said.append(f"Advice: {advice}.")
    context.write("graph.json", found | {"float_ops": quantized.float_ops, "layers": layers, "findings": said})


def _measured(context: Context, quantized: Prepared, seen: Tensor) -> tuple[Sensitivity, ...]:
    """What int8 does to each layer, the worst first; empty where it cannot be measured."""
    from edgekd.quantize.sensitivity import measure

    work = partial(measure, quantized.module, [seen], context.progress)
    return figures.measured(context, "what int8 does to each layer", work) or ()


def _repair(
    context: Context, images: DataSet, student: nn.Module, quantized: Prepared, requantize: Quantize,
    rows: tuple[Sensitivity, ...],
) -> tuple[Prepared, RepairRecord] | None:  # fmt: skip
    """The graph with the fewest layers in float that meets the accuracy gate; None if all may be, or have to be, int8."""
    import torch

    from edgekd.distill.feed import Normalize
    from edgekd.distill.loop import accuracy
    from edgekd.quantize.repair import repair

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    gate = context.recipe.gates.accuracy_drop
    assert gate is not None
    assert gate.max is not None
    say, normalize = context.progress.say, Normalize(images).to(device)
    what = "top-1" if images.measure == "accuracy" else "agreement with the teacher"

    def top1(network: nn.Module) -> float:
        found = accuracy(network.to(device), images.val, normalize, device)
        network.cpu()
        return found

    made: dict[frozenset[str], Prepared] = {frozenset(): quantized}

    def evaluate(names: frozenset[str]) -> float:
        if names not in made:
            made[names] = requantize(sorted(names))
        found = top1(made[names].module)
        say(f"  keep_float: validation {what} {100 * found:.1f} % with {len(names)} operators in float")
        return found

    before = top1(student)
    say(f"  keep_float: validation {what} {100 * before:.1f} % all in float, and at least {100 * (before - gate.max):.1f} %")
    try:
        found = repair(rows, evaluate, before - gate.max)
    except QuantizeError as error:  # the gate decides on the test split; int8 everywhere is the better file to look at
        say(f"  keep_float: nothing is given back to float: {error.message}")
        if context.recipe.quantize is not None and context.recipe.quantize.method == "qat":
            say("  keep_float: int8 training went astray; quantize: {method: ptq, keep_float: auto} keeps the float weights")
        return None
    if not found.keep_float:
        say("  keep_float: not needed")
        return None
    paths = tuple(dict.fromkeys(_layer(row).label for row in found.layers))
    say(f"  keep_float: {len(found.layers)} of {len(rows)} layers stay in float: {', '.join(paths)}")
    record = RepairRecord(
        limit=before - gate.max,
        float_top1=before,
        before=found.tried[0].top1,
        after=found.top1,
        keep_float=found.keep_float,
        layers=tuple(_layer(row) for row in found.layers),
        candidates=len(rows),
    )
    return made[frozenset(found.keep_float)], record


def _layer(row: Sensitivity) -> LayerRecord:
    return LayerRecord(row.name, row.path, row.op, row.alone_db, row.logits_db, row.total_db, row.cause)
