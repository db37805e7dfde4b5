"""The protocol of a metric: a row of numbers for each sample, and one value of all rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from edgekd.results.models import MetricFacts

Arrays = Mapping[str, NDArray[Any]]
Rows = NDArray[np.float64]
"""N×k: what a metric keeps of each of N samples, such as whether its class was found."""


class Metric(Protocol):
    """A figure of quality. Registered under its name; see docs/extending.md.

    Rows are kept, so that a value can be had again for a part of the samples, with an interval by resampling, or for two
    models paired by sample, without running anything again.
    """

    name: str
    """Its key in ``run.json`` and in gates, such as ``top1``."""
    label: str
    """Its name in tables and sentences, such as ``top-1``."""
    unit: str
    """As a reader sees it: ``%`` for a share, which is 0 to 1 in ``run.json``; empty for none."""
    better: Literal["higher", "lower"]

    def per_sample(self, outputs: Arrays, targets: Any, primary: str) -> Rows | None:
        """Return N×k rows; None where the metric says nothing about these outputs, such as top-5 of five classes.

        Args:
            outputs: By name, each with N as its first dimension.
            targets: What the task's samples have: labels (N), values (N×…), or the outputs of a reference.
            primary: Name of the output that is the task's answer.
        """
        ...

    def reduce(self, rows: Rows, weights: NDArray[np.float64] | None = None) -> float:
        """Return the value of all rows; ``weights`` (N) counts each sample that often."""
        ...


def mean(rows: Rows, weights: NDArray[np.float64] | None = None) -> float:
    """Return the (weighted) mean of N×1 rows."""
    return float(np.average(rows[:, 0], weights=weights)) if weights is not None else float(rows[:, 0].mean())


def value_of(metric: Metric, output: NDArray[Any], targets: Any, primary: str) -> float:
    """Return a task's first metric of a primary output."""
    rows = metric.per_sample({primary: output}, targets, primary)
    assert rows is not None, "a task's first metric is about all of its outputs"
    return metric.reduce(rows)


def shown(metric: Metric, value: float) -> str:
    """Write a value for a log: ``91.4 %``, ``0.312``.

    Example:
        >>> from edgekd.metrics.classification import Top1
        >>> shown(Top1(), 0.914)
        '91.4 %'
    """
    return f"{100 * value:.1f} %" if metric.unit == "%" else f"{value:.4g} {metric.unit}".rstrip()


def facts(metric: Metric) -> MetricFacts:
    """Return what a record keeps of a metric."""
    return MetricFacts(metric.name, metric.label, metric.unit, metric.better)
