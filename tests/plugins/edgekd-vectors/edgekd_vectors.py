"""A task for edgekd: values from a vector, and the metric that it is measured by."""

from __future__ import annotations

import numpy as np

from edgekd.errors import DataError
from edgekd.task.base import Port, Signature

VECTOR = "x"
"""Name of the input: that of the array x_train in an archive of numpy."""


class MeanAbsoluteError:
    """Mean absolute error of the values."""

    name, label, unit, better = "mae", "MAE", "", "lower"

    def per_sample(self, outputs, targets, primary):
        """Return the mean error of each sample, (N, 1)."""
        wanted = targets[primary] if isinstance(targets, dict) else targets
        error = np.abs(outputs[primary].astype(np.float64) - wanted)
        return error.reshape(len(error), -1).mean(axis=1)[:, None]

    def reduce(self, rows, weights=None):
        """Return the mean."""
        return float(np.average(rows[:, 0], weights=weights))


class VectorRegression:
    """Values (N×M) from a vector (N×D): mean squared error."""

    kind = "vector-regression"
    gives = ()
    metrics = (MeanAbsoluteError(),)
    agreement = MeanAbsoluteError()

    def signature(self, samples):
        """Return N×D → N×M."""
        shape, dtype = samples.inputs.get(VECTOR, ((), ""))
        if len(samples.inputs) != 1 or len(shape) != 1 or dtype != "float32":
            raise DataError(f"{self.kind} takes one vector, called {VECTOR}", "give x_train as float32, N×D")
        values = samples.target or ("M",)
        return Signature((Port(VECTOR, ("N", *shape), kind="features"),), (Port("values", ("N", *values)),), "values")

    def builder_args(self, samples):
        """Return the number of values."""
        return {"values": samples.target[0]} if samples.target else {}

    def stratum(self, targets):
        """Balance nothing."""
        return None

    def criterion(self, primary, target, smoothing):
        """Return the mean squared error."""
        from torch.nn import functional as F

        return F.mse_loss(primary, target)
