"""Conflicts between gates and the task: each holds a figure that the task has."""

from __future__ import annotations

from collections.abc import Sequence

from edgekd.errors import did_you_mean
from edgekd.loading.conflicts.found import Found
from edgekd.recipe import Recipe
from edgekd.recipe.gates import DEFAULTS, DropGate, Gate, Gates, MetricGate
from edgekd.registry import metrics
from edgekd.results.gates import QUALITY
from edgekd.task.base import task_of

OF_CLASSES = ("accuracy_drop", "expected_drop", "agreement", "lost_classes", "top1")
"""Gates of figures that only a task with classes has."""

SIDE = {
    **{name: side for name, limit in DEFAULTS.items() for side in limit},
    **dict.fromkeys(("drop", "size_ratio", "latency_p50_ms", "latency_p90_ms", "peak_memory_mib"), "max"),
}
"""The side of the limit, by gate. A gate of a metric may have either: a metric may be an error, or a share of them."""

SHARES = ("accuracy_drop", "expected_drop", "agreement", "top1", "parity_top1", "worst_agreement")
"""Gates of shares, which are 0.01 in a recipe where tables print 1 % or 1 point."""

POSITIVE = (
    "lost_classes",
    "parity_lsb_p99",
    "parity_error",
    "size_ratio",
    "latency_p50_ms",
    "latency_p90_ms",
    "peak_memory_mib",
)
"""Gates of figures that are never below 0."""


def _hint(name: str, known: Sequence[str]) -> str:
    near = did_you_mean(name, known)
    return f"the task does not list it among its own; {near}" if name in metrics.names() else near


def of_metrics(recipe: Recipe) -> Found:
    """Find gates of metrics that the task does not have."""
    task = task_of(recipe.task)
    known = [metric.name for metric in task.metrics]
    gates: dict[str, tuple[DropGate | MetricGate, ...]] = {}
    for key, given in (("drop", recipe.gates.drop), ("metric", recipe.gates.metric)):
        gates[key] = given if isinstance(given, tuple) else () if given is None else (given,)
    for key, several in gates.items():
        for index, gate in enumerate(several):
            name, field = (gate.metric, "metric") if isinstance(gate, DropGate) else (gate.name, "name")
            if name not in known:
                place = f"gates.{key}[{index}]" if len(several) > 1 else f"gates.{key}"
                yield f"{place}.{field}", f"{task.kind} has no metric {name!r}", _hint(name, known)
    if "classes" in task.gives:
        return
    for key in OF_CLASSES:
        given = getattr(recipe.gates, key)
        if given is not None and given.level != "off":
            hint = f"write drop: {{metric: {known[0]}, max: NUMBER}}, or metric: {{name: {known[0]}, ...}}"
            yield f"gates.{key}", f"{task.kind} has no classes, which this gate is about", hint


def one_sided(recipe: Recipe) -> Found:
    """Find gates whose limit is on the side where every harm passes."""
    for name, gate in recipe.gates.limits():
        side = SIDE.get(name)
        if side is None or gate.level == "off" or getattr(gate, side) is not None:
            continue
        other, worse = ("min", "larger") if side == "max" else ("max", "smaller")
        message = f"this gate needs {side}, not {other}: a {worse} {name} is worse, and would pass"
        yield f"{_place(recipe.gates, name, gate)}.{other}", message, f"write {side}: NUMBER"


def without_meaning(recipe: Recipe) -> Found:
    """Find limits that no figure can exceed, or that none can meet: of a share as a percentage, and below 0."""
    for name, gate in recipe.gates.limits():
        for side, limit in (("max", gate.max), ("min", gate.min)):
            if limit is None or gate.level == "off":
                continue
            place, word = f"{_place(recipe.gates, name, gate)}.{side}", "points" if name.endswith("drop") else "%"
            if abs(limit) > 1 and _is_share(name, gate):
                message = f"{limit:g} is {100 * limit:g} {word}: this is a share, where 0.01 is 1 {word.rstrip('s')}"
                yield place, message, f"write {side}: {limit / 100:.10g} for {limit:g} {word}"
            elif limit < 0 and side == "max" and name in POSITIVE:
                yield place, f"{name} is never below 0, so this gate would always fail", f"write {side}: NUMBER above 0"


def _is_share(name: str, gate: Gate) -> bool:
    held = gate.metric if isinstance(gate, DropGate) else gate.name if isinstance(gate, MetricGate) else ""
    return name in SHARES or (held in metrics.names() and metrics.get(held)().unit == "%")


def unreachable(recipe: Recipe) -> Found:
    """Find gates without a limit that ``keep_float: auto`` could reach."""
    auto = recipe.quantize is not None and recipe.quantize.keep_float == "auto"
    for name in ("accuracy_drop", "expected_drop", "agreement", "sqnr_db") if auto else ():
        quality = getattr(recipe.gates, name)
        if quality is not None and quality.max is None and quality.min is None:
            side = "max: 0.01" if name.endswith("drop") else "min: 0.95" if name == "agreement" else "min: 15"
            yield (
                f"gates.{name}",
                "quantize: {keep_float: auto} needs a limit to reach, and this gate has none",
                f"write {name}: {{{side}}}, or name the layers: keep_float: [features.0]",
            )


def without_figure(recipe: Recipe) -> Found:
    """Find gates whose figure this recipe does not measure."""
    compresses = recipe.quantize is not None or any(item.precision not in (None, "float32") for item in recipe.export)
    for name, gate in recipe.gates.limits():
        if gate.level == "off":
            continue
        profiled = recipe.profile.names if recipe.profile else ()
        place = _place(recipe.gates, name, gate)
        if name.startswith(("latency", "peak_memory")) and gate.device not in profiled:
            meant = did_you_mean(gate.device, profiled)
            devices = ", ".join((*(recipe.profile.devices if recipe.profile else ()), gate.device))
            yield (
                f"{place}.device",
                f"nothing is profiled on {gate.device}, so this gate would have no figure",
                meant if meant.startswith("did you mean") else f"write profile: {{devices: [{devices}]}}",
            )
        elif gate.device != "host" and not name.startswith(("latency", "peak_memory")):
            hint = "remove device; it is a key of latency_p50_ms, latency_p90_ms and peak_memory_mib"
            yield f"{place}.device", "this figure is of a file on the test split, not of a device", hint
        elif gate.formats and not name.startswith(("latency", "peak_memory")):
            yield f"{place}.formats", "only a latency or memory gate is for single formats", "remove it here"
        elif not recipe.export and not name.startswith("parity"):
            yield f"gates.{name}", "nothing is exported, so this gate would have no figure", "add export: [onnx]"
        elif name in QUALITY and not compresses:
            yield (
                f"gates.{name}",
                "this gate compares compressed files with float, and nothing is compressed",
                "add quantize: {method: qat}",
            )
        elif name == "size_ratio" and recipe.quantize is None:
            yield (
                f"gates.{name}",
                "this gate compares int8 with float, and nothing is quantized",
                "add quantize: {method: qat}",
            )


def _place(gates: Gates, name: str, gate: Gate) -> str:
    """Return the key of a gate, which may be one of several of its name."""
    given = getattr(gates, name)
    number = next((index for index, one in enumerate(given) if one is gate), 0) if isinstance(given, tuple) else None
    return f"gates.{name}" if number is None else f"gates.{name}[{number}]"
