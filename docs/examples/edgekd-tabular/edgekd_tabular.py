"""A task for edgekd, values from a vector of numbers, and the metric of its outputs."""

from __future__ import annotations

import numpy as np

from edgekd.errors import DataError
from edgekd.task.base import Port, Signature


class RootMeanSquaredError:
    """Root of the mean squared error of the values."""

    name, label, unit, better = "rmse", "RMSE", "", "lower"

    def per_sample(self, outputs, targets, primary):
        """Return the mean squared error of each sample, (N, 1); targets are values, or the outputs of another network."""
        expected = targets[primary] if isinstance(targets, dict) else targets
        squared = (outputs[primary].astype(np.float64) - expected) ** 2
        return squared.reshape(len(squared), -1).mean(axis=1, keepdims=True)

    def reduce(self, rows, weights=None):
        """Return the root of the mean of all rows."""
        return float(np.sqrt(np.average(rows[:, 0], weights=weights)))


class TabularRegression:
    """Values (N×M) from a vector (N×D), trained with the mean squared error."""

    kind = "tabular-regression"  # the word of the Hugging Face hub
    gives = ()  # neither classes nor logits: losses that need them are refused
    metrics = (RootMeanSquaredError(),)
    agreement = RootMeanSquaredError()

    def signature(self, samples):
        """Return N×D → N×M: the network has the input x and the output values."""
        shape, dtype = samples.inputs.get("x", ((), ""))
        if len(samples.inputs) != 1 or len(shape) != 1 or dtype != "float32":
            raise DataError(f"{self.kind} needs one vector of numbers in each sample, called x", "give x as float32, N×D")
        x = Port("x", ("N", *shape), kind="features")
        values = Port("values", ("N", *(samples.target or ("M",))))  # M stays open until the targets are read
        return Signature((x,), (values,), primary="values")

    def builder_args(self, samples):
        """Return the number of values, an argument of the network's callable."""
        return {"values": samples.target[0]} if samples.target else {}

    def stratum(self, targets):
        """Return None: the validation split is not balanced by anything."""

    def criterion(self, primary, target, smoothing):
        """Return the mean squared error, the value of the loss `task`."""
        from torch.nn import functional as F  # here, so that `edgekd check` needs no torch

        return F.mse_loss(primary, target)
