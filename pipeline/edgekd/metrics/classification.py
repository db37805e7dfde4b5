"""Metrics of classes: top-1, top-5 and cross-entropy. Targets are class numbers, (N,)."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgekd.metrics.base import Arrays, Rows, mean
from edgekd.registry import metrics

FIVE = 5


@metrics.register("top1")
class Top1:
    """Share of samples whose class has the greatest logit."""

    name = "top1"
    label = "top-1"
    unit = "%"
    better: Literal["higher", "lower"] = "higher"

    def per_sample(self, outputs: Arrays, targets: Any, primary: str) -> Rows:
        """Return 1 where the class is right, else 0, (N, 1)."""
        return _column(outputs[primary].argmax(axis=1) == np.asarray(targets))

    def reduce(self, rows: Rows, weights: NDArray[np.float64] | None = None) -> float:
        """Return the share, 0 to 1."""
        return mean(rows, weights)


@metrics.register("top5")
class Top5:
    """Share of samples whose class is among the five greatest logits; only of more than five classes."""

    name = "top5"
    label = "top-5"
    unit = "%"
    better: Literal["higher", "lower"] = "higher"

    def per_sample(self, outputs: Arrays, targets: Any, primary: str) -> Rows | None:
        """Return 1 where the class is among them, else 0, (N, 1)."""
        logits = outputs[primary]
        if logits.shape[1] <= FIVE:
            return None
        order = np.argsort(-logits, axis=1, kind="stable")
        return _column((order[:, :FIVE] == np.asarray(targets)[:, None]).any(axis=1))

    def reduce(self, rows: Rows, weights: NDArray[np.float64] | None = None) -> float:
        """Return the share, 0 to 1."""
        return mean(rows, weights)


@metrics.register("loss")
class CrossEntropy:
    """Cross-entropy of the logits' softmax, in nats."""

    name = "loss"
    label = "cross-entropy"
    unit = ""
    better: Literal["higher", "lower"] = "lower"

    def per_sample(self, outputs: Arrays, targets: Any, primary: str) -> Rows:
        """Return -log p of each sample's class, (N, 1)."""
        logits = outputs[primary]
        shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
        log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        return _column(-log_p[np.arange(len(logits)), np.asarray(targets)])

    def reduce(self, rows: Rows, weights: NDArray[np.float64] | None = None) -> float:
        """Return the mean."""
        return mean(rows, weights)


def _column(values: NDArray[Any]) -> Rows:
    column: Rows = values.astype(np.float64)[:, None]
    return column
