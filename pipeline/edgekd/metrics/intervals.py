"""Figures of metrics with their 95 % intervals, from the rows of each sample."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from edgekd.metrics.base import Metric, Rows, mean
from edgekd.results.fidelity import Figure
from edgekd.statistics import paired_shares, wilson

RESAMPLES = 1000
"""Of a bootstrap: the ends of a 95 % interval are then the 25th values from both ends."""


def figure(metric: Metric, rows: Rows) -> Figure:
    """Return a metric of N samples: of a share with Wilson's interval, of anything else with a bootstrap's."""
    n, value = len(rows), metric.reduce(rows)
    if is_share(metric, rows):
        return Figure(value, n, *wilson(value, n))
    return Figure(value, n, *_bootstrap(n, lambda weights: metric.reduce(rows, weights)))


def drop(metric: Metric, reference: Rows, rows: Rows) -> Figure:
    """Return what a model has lost against a reference, paired by sample; more is worse, whichever way the metric goes.

    Args:
        metric: Of both.
        reference: Rows of the model that is compared with.
        rows: Rows of the model, of the same samples in the same order.
    """
    n, sign = len(rows), 1 if metric.better == "higher" else -1
    if is_share(metric, reference) and is_share(metric, rows):
        before, after = reference[:, 0] > 0, rows[:, 0] > 0
        lost, gained = int((before & ~after).sum()), int((~before & after).sum())
        if sign < 0:
            lost, gained = gained, lost
        return Figure((lost - gained) / n, n, *paired_shares(lost, gained, n))

    def lost_by(weights: NDArray[np.float64] | None) -> float:
        return sign * (metric.reduce(reference, weights) - metric.reduce(rows, weights))

    return Figure(lost_by(None), n, *_bootstrap(n, lost_by))


def is_share(metric: Metric, rows: Rows) -> bool:
    """Tell whether a metric of these rows is the share of samples that have a 1."""
    return rows.shape[1] == 1 and bool(np.isin(rows, (0.0, 1.0)).all()) and metric.reduce(rows) == mean(rows)


def _bootstrap(n: int, value: Callable[[NDArray[np.float64]], float]) -> tuple[float, float] | tuple[()]:
    """Return the 95 % percentile interval (Efron 1979, *Bootstrap methods*); () for one sample, or without finite values.

    The resamples are the same in every call of the same ``n``, so that figures are reproduced.
    """
    if n < 2:
        return ()
    random = np.random.default_rng(n)
    found = [value(np.bincount(random.integers(0, n, n), minlength=n).astype(np.float64)) for _ in range(RESAMPLES)]
    if not np.isfinite(found).all():
        return ()
    low, high = np.percentile(found, (2.5, 97.5))
    return float(low), float(high)
