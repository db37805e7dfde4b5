"""The quality of outputs by all metrics of a task, as records keep it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from edgekd.metrics.base import Arrays, Metric, Rows
from edgekd.metrics.intervals import drop, figure
from edgekd.results.fidelity import Figure
from edgekd.results.models import Estimate, Metrics, Of, Split

MetricRows = dict[str, tuple[Metric, Rows]]
"""Metrics with their rows, by name."""


def rows_of(metrics: Sequence[Metric], outputs: Arrays, targets: Any, primary: str) -> MetricRows:
    """Return each metric with its rows, by name; without those that say nothing about these outputs.

    Args:
        metrics: Of the task.
        outputs: By name, each with N as its first dimension.
        targets: Of the same N samples, as the metrics take them.
        primary: Name of the output that is the task's answer.
    """
    found = ((metric, metric.per_sample(outputs, targets, primary)) for metric in metrics)
    return {metric.name: (metric, rows) for metric, rows in found if rows is not None}


def drops(rows: MetricRows, reference: MetricRows) -> dict[str, Figure]:
    """Return what each metric has lost against a reference, paired by sample, where it is finite; more is worse."""
    found = {name: drop(metric, reference[name][1], own) for name, (metric, own) in rows.items() if name in reference}
    return {name: lost for name, lost in found.items() if math.isfinite(lost.value)}


def not_finite(rows: MetricRows) -> dict[str, float]:
    """Return the metrics whose value is NaN or infinite, by name: such a value is no figure of a report."""
    values = {name: metric.reduce(own) for name, (metric, own) in rows.items()}
    return {name: value for name, value in values.items() if not math.isfinite(value)}


def measured(rows: MetricRows, n: int, split: Split = "test", of: Of = "labels") -> Metrics:
    """Return the values of metrics with their intervals; what is not finite is absent.

    Args:
        rows: As :func:`rows_of` returns them.
        n: Number of samples.
        split: Which ones.
        of: What the outputs were held against.
    """
    absent = not_finite(rows)
    figures = {name: figure(metric, own) for name, (metric, own) in rows.items() if name not in absent}
    return Metrics(split, n, {name: Estimate(found.value, found.low, found.high) for name, found in figures.items()}, of)
