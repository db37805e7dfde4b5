"""Conflicts between gates and the task: each holds a figure that the task has."""

from __future__ import annotations

from collections.abc import Iterator

from edgekd.errors import did_you_mean
from edgekd.recipe import Recipe
from edgekd.recipe.gates import DropGate, MetricGate
from edgekd.task.base import task_of

Found = Iterator[tuple[str, str, str]]

OF_CLASSES = ("accuracy_drop", "expected_drop", "agreement", "top1")
"""Gates of figures that only a task with classes has."""


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
                yield f"{place}.{field}", f"{task.kind} has no metric {name!r}", did_you_mean(name, known)
    if "classes" in task.gives:
        return
    for key in OF_CLASSES:
        given = getattr(recipe.gates, key)
        if given is not None and given.level != "off":
            hint = f"write drop: {{metric: {known[0]}, max: NUMBER}}, or metric: {{name: {known[0]}, ...}}"
            yield f"gates.{key}", f"{task.kind} has no classes, which this gate is about", hint
