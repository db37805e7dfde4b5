"""Sensitivity of each layer of the quantized student, and the layers that are given back to float.

The end of the quantize stage, of both methods.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from edgekd.assembly import figures, networks
from edgekd.assembly.context import Context
from edgekd.assembly.outputs import Int8Graph
from edgekd.errors import QuantizeError
from edgekd.recipe.base import need
from edgekd.recipe.gates import DEFAULTS, Gates
from edgekd.results.fidelity import Fidelity
from edgekd.results.layers import LayerRecord, RepairRecord
from edgekd.results.models import MetricFacts, Of

if TYPE_CHECKING:
    from torch import nn

    from edgekd.data.dataset import DataSet
    from edgekd.quantization.qat import Prepared
    from edgekd.quantization.repair import Repair
    from edgekd.quantization.sensitivity import Sensitivity
    from edgekd.task.named import Inputs

    Quantize = Callable[[Collection[str]], Prepared]

ALL_INT8 = "all_int8.safetensors"
"""The state before a repair, which its cost is measured against."""


@dataclass(frozen=True)
class Quantized:
    """A quantized student.

    Attributes:
        graph: The quantized graph.
        student: The float student.
        again: Makes the same graph with some layers in float.
        val_score: The task's first metric of the graph on the validation split; None without labels.
        taps: The graph's features.
    """

    graph: Prepared
    student: nn.Module
    again: Quantize
    val_score: float | None
    taps: tuple[str, ...] = ()


def conclude(context: Context, images: DataSet, seen: Inputs, done: Quantized) -> Int8Graph:
    """Write ``weights.safetensors``, the state, repaired where the recipe asks, and return what it is made of.

    Args:
        context: The quantize stage's.
        images: A repair is decided on their validation split.
        seen: Training samples that the layers are looked at with.
        done: The quantized student.
    """
    from edgekd.quantization import qat
    from edgekd.quantization.footprint import footprint

    quantized, val_score = done.graph, done.val_score
    settings = need(context.recipe.quantize, "quantize")
    keep_float, repair = tuple(settings.named_float()), None
    measured = partial(_measured, context, seen=seen, classes="classes" in images.purpose.task.gives)
    rows = measured(quantized, needed=settings.keep_float == "auto")
    if settings.keep_float == "auto":
        repaired = _repair(context, images, done, rows)
        if repaired is not None:
            networks.save(qat.state(quantized.module), context.out / ALL_INT8)
            quantized, repair = repaired
            rows = measured(quantized, needed=False)
            keep_float = repair.keep_float
            val_score = None if repair.of == "float" else repair.after
    for line in quantized.copies:
        context.progress.say(f"  {line}")
    for op in quantized.float_ops:
        context.progress.say(f"  stays float: {op}")
    networks.save(qat.state(quantized.module), context.out / "weights.safetensors")
    return Int8Graph(
        taps=done.taps,
        val_score=val_score,
        keep_float=keep_float,
        float_ops=tuple(quantized.float_ops),
        layers=tuple(map(_layer, rows)),
        copies=tuple(quantized.copies),
        float_weights=footprint(quantized.module, quantized.float_ops),
        repair=repair,
    )


def _measured(
    context: Context, quantized: Prepared, *, seen: Inputs, classes: bool, needed: bool
) -> tuple[Sensitivity, ...]:
    """What int8 does to each layer, the worst first; empty where it cannot be measured and is not ``needed``."""
    from edgekd.quantization.sensitivity import measure

    work = partial(measure, quantized.module, [seen], context.progress, classes=classes)
    return work() if needed else figures.measured(context, "what int8 does to each layer", work) or ()


@dataclass(frozen=True)
class _Enough:
    """What a repair aims at, on the validation split: the recipe's limits as they are, those that hold unasked with room.

    The estimate of an unasked gate has to lie half-way from its limit to no loss at all, for the gate itself asks it of the
    whole interval on the test split.
    """

    drop: float | None
    expected_drop: float | None
    agreement: float | None
    sqnr_db: float | None
    lost: float | None

    @classmethod
    def of(cls, gates: Gates, *, labelled: bool) -> _Enough:
        def limit(name: Literal["accuracy_drop", "expected_drop", "agreement", "sqnr_db", "lost_classes"]) -> float | None:
            gate = getattr(gates, name)
            return None if gate is None or gate.level == "off" else gate.max if gate.max is not None else gate.min

        drop, expected, agreement = limit("accuracy_drop"), limit("expected_drop"), limit("agreement")
        sqnr_db = limit("sqnr_db")
        lost = DEFAULTS["lost_classes"]["max"] if gates.lost_classes is None else limit("lost_classes")
        if labelled:
            return cls(DEFAULTS["accuracy_drop"]["max"] / 2 if drop is None else drop, expected, agreement, sqnr_db, lost)
        return cls(
            None,
            DEFAULTS["expected_drop"]["max"] / 2 if expected is None else expected,
            (1 + DEFAULTS["agreement"]["min"]) / 2 if agreement is None else agreement,
            DEFAULTS["sqnr_db"]["min"] + 3 if sqnr_db is None else sqnr_db,
            lost,
        )

    def met(self, found: Fidelity) -> bool:
        slack = 1e-9  # as in a gate
        drop, expected, agreement = next(iter(found.drops.values()), None), found.expected_drop, found.agreement
        return (
            (self.drop is None or drop is None or drop.value <= self.drop + slack)
            and (self.expected_drop is None or expected is None or expected.value <= self.expected_drop + slack)
            and (self.agreement is None or agreement is None or agreement.value >= self.agreement - slack)
            and (self.sqnr_db is None or found.sqnr_db.value >= self.sqnr_db - slack)
            and (self.lost is None or found.lost_classes is None or len(found.lost_classes.lost) <= self.lost + slack)
        )


def _repair(
    context: Context, images: DataSet, done: Quantized, rows: tuple[Sensitivity, ...]
) -> tuple[Prepared, RepairRecord] | None:
    """The graph with the fewest layers in float that is close enough; None if all may be, or have to be, int8."""
    import torch

    from edgekd.data.batches import Prepare
    from edgekd.metrics import fidelity, quality
    from edgekd.metrics.base import facts
    from edgekd.quantization import answer
    from edgekd.quantization.repair import repair
    from edgekd.train.loop import primary_of

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    say, prepare = context.progress.say, Prepare(images).to(device)
    split = images.val if len(images.val) else images.train
    where = "validation" if len(images.val) else f"training {images.noun}s"
    labels = split.labels if split.labelled else None
    enough = _Enough.of(context.recipe.gates, labelled=labels is not None)

    def logits(network: nn.Module) -> Any:
        found = primary_of(network.to(device), split, prepare, device)
        network.cpu()
        return found.numpy()

    exact, purpose = logits(done.student), images.purpose
    metric, classes = purpose.task.metrics[0], "classes" in purpose.task.gives

    def measured(outputs: Any) -> quality.MetricRows:
        primary = purpose.signature.primary
        return {} if labels is None else quality.rows_of((metric,), {primary: outputs}, labels, primary)

    known = measured(exact)
    scale = _Scale(facts(metric), metric.reduce(known[metric.name][1])) if known else None
    if scale is not None and not math.isfinite(scale.base):
        say(f"  keep_float: no layer is given back to float: {metric.label} is {scale.base} on {where}")
        return None
    made: dict[frozenset[str], Prepared] = {frozenset(): done.graph}

    def evaluate(names: frozenset[str]) -> Fidelity:
        if names not in made:
            made[names] = done.again(sorted(names))
        own = logits(made[names].module)
        drops = quality.drops(measured(own), known)
        found = fidelity.compare(networks.float_name(context.recipe), exact, own, drops, classes=classes)
        say(f"  keep_float: {where}, {_in_words(found, scale)} with {len(names)} operators in float")
        return found

    say(f"  keep_float: {where}, needed: {_needed(enough, scale)}")
    primary, *others = answer.outputs(done.graph.module.graph)
    if others:
        say(f"  keep_float: auto looks at {primary} alone, not at {', '.join(others)}")
    try:
        found = repair(rows, evaluate, enough.met)
    except QuantizeError as error:  # the gate decides on the test split; int8 everywhere is the better file to look at
        say(f"  keep_float: no layer is given back to float: {error.message}")
        if context.recipe.quantize is not None and context.recipe.quantize.method == "qat":
            say("  keep_float: int8 training diverged; quantize: {method: ptq, keep_float: auto} keeps the float weights")
        return None
    if not found.keep_float:
        say("  keep_float: not needed")
        return None
    paths = tuple(dict.fromkeys(_layer(row).label for row in found.layers))
    say(f"  keep_float: {len(found.layers)} of {len(rows)} layers stay in float: {', '.join(paths)}")
    return made[frozenset(found.keep_float)], _record(found, len(rows), enough, scale, metric.name, images.of)


def _record(
    found: Repair[Fidelity], candidates: int, enough: _Enough, scale: _Scale | None, metric: str, of: Of
) -> RepairRecord:
    """Return the record of a repair.

    Args:
        found: The repair.
        candidates: Number of layers that could be given back.
        enough: Its aim.
        scale: The metric that decides; None without labels.
        metric: The name of the task's first metric.
        of: Who labelled the samples.
    """
    before, after = found.tried[0].result, found.result
    by_labels = enough.drop is not None and scale is not None
    return RepairRecord(
        metric=metric if by_labels else "agreement",
        limit=scale.after(enough.drop) if scale is not None and enough.drop is not None else enough.agreement or 0.0,
        reference=scale.base if scale is not None else 1.0,
        before=_reached(before, scale),
        after=_reached(after, scale),
        keep_float=found.keep_float,
        layers=tuple(_layer(row) for row in found.layers),
        candidates=candidates,
        of=of if by_labels else "float",
        sqnr_limit=enough.sqnr_db,
        sqnr_before=None if enough.sqnr_db is None else before.sqnr_db.value,
        sqnr_after=None if enough.sqnr_db is None else after.sqnr_db.value,
    )


@dataclass(frozen=True)
class _Scale:
    """The metric that decides, and its value of the float student."""

    metric: MetricFacts
    base: float

    def after(self, drop: float) -> float:
        """Return the value of a network that has lost ``drop``."""
        return self.base - drop if self.metric.better == "higher" else self.base + drop

    def told(self, value: float) -> str:
        """Write a value of the metric."""
        return f"{100 * value:.1f} %" if self.metric.unit == "%" else f"{value:.4g} {self.metric.unit}".rstrip()


def _reached(found: Fidelity, scale: _Scale | None) -> float:
    """The metric of a network whose fidelity is known; its agreement with the float student where there are no labels."""
    if scale is not None:
        return scale.after(found.drops[scale.metric.name].value)
    return found.agreement.value if found.agreement else 0.0


def _in_words(found: Fidelity, scale: _Scale | None) -> str:
    parts = []
    if scale is not None:
        parts.append(f"{scale.metric.label} {scale.told(_reached(found, scale))}")
    elif found.expected_drop is not None:
        parts.append(f"expected drop {100 * found.expected_drop.value:.2f} points")
    if found.agreement is not None:
        parts.append(f"agreement with float {100 * found.agreement.value:.1f} %")
    if found.lost_classes is not None and found.lost_classes.lost:
        parts.append(f"{len(found.lost_classes.lost)} of {found.lost_classes.looked_for} classes never given again")
    return ", ".join((*parts, f"SQNR {found.sqnr_db.value:.1f} dB"))


def _needed(enough: _Enough, scale: _Scale | None) -> str:
    drop = None
    if enough.drop is not None and scale is not None:
        side = "least" if scale.metric.better == "higher" else "most"
        drop = f"{scale.metric.label} at {side} {scale.told(scale.after(enough.drop))} (float {scale.told(scale.base)})"
    parts = [
        drop,
        None if enough.expected_drop is None else f"expected drop at most {100 * enough.expected_drop:.2f} points",
        None if enough.agreement is None else f"agreement with float at least {100 * enough.agreement:.1f} %",
        None if enough.sqnr_db is None else f"SQNR at least {enough.sqnr_db:.1f} dB",
    ]
    return ", ".join(part for part in parts if part)


def _layer(row: Sensitivity) -> LayerRecord:
    return LayerRecord(
        row.name, row.path, row.op, row.alone_db, row.logits_db, row.total_db, row.cause, gives=row.gives
    )  # fmt: skip
