"""Metrics of agreement: how close outputs are to those of a reference. Targets are the reference's outputs, by name."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgekd.metrics import fidelity
from edgekd.metrics.base import Arrays, Rows, mean
from edgekd.registry import metrics
from edgekd.results.layers import EXACT_DB


@metrics.register("agreement")
class Agreement:
    """Share of samples to which both networks give the same class."""

    name = "agreement"
    label = "same top-1"
    unit = "%"
    better: Literal["higher", "lower"] = "higher"

    def per_sample(self, outputs: Arrays, targets: Any, primary: str) -> Rows:
        """Return 1 where both have the same greatest logit, else 0, (N, 1)."""
        same: Rows = (outputs[primary].argmax(axis=1) == targets[primary].argmax(axis=1)).astype(np.float64)[:, None]
        return same

    def reduce(self, rows: Rows, weights: NDArray[np.float64] | None = None) -> float:
        """Return the share, 0 to 1."""
        return mean(rows, weights)


@metrics.register("sqnr_db")
class Sqnr:
    """Signal-to-noise ratio of the primary output: the reference's variance to the mean square of the error."""

    name = "sqnr_db"
    label = "SQNR"
    unit = "dB"
    better: Literal["higher", "lower"] = "higher"

    def per_sample(self, outputs: Arrays, targets: Any, primary: str) -> Rows:
        """Return the power of the signal and of the noise, (N, 2)."""
        return np.stack(fidelity.powers(targets[primary], outputs[primary]), axis=1)

    def reduce(self, rows: Rows, weights: NDArray[np.float64] | None = None) -> float:
        """Return the ratio in dB, from -EXACT_DB to EXACT_DB."""
        signal, noise = (float(np.average(rows[:, column], weights=weights)) for column in (0, 1))
        if noise == 0:
            return EXACT_DB
        return fidelity.capped(10 * math.log10(signal / noise)) if signal else -EXACT_DB


@metrics.register("expected_drop")
class ExpectedDrop:
    """Accuracy that is expected to be lost, by the reference's own confidence."""

    name = "expected_drop"
    label = "expected drop"
    unit = "%"
    better: Literal["higher", "lower"] = "lower"

    def per_sample(self, outputs: Arrays, targets: Any, primary: str) -> Rows:
        """Return what each sample is expected to lose, a probability, (N, 1)."""
        return fidelity.expected_losses(targets[primary], outputs[primary])[:, None]

    def reduce(self, rows: Rows, weights: NDArray[np.float64] | None = None) -> float:
        """Return the mean, -1 to 1."""
        return mean(rows, weights)
