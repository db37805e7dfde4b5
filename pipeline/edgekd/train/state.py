"""One network in training: the average of its weights, its figures, and the weights of its best epoch by validation."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from edgekd.data.dataset import DataSet
from edgekd.distill.terms import Terms
from edgekd.errors import TrainingError
from edgekd.metrics.base import Rows
from edgekd.models import tied
from edgekd.results.run import Curve
from edgekd.task.base import Purpose

State = dict[str, Tensor]


class NetworkState:
    """One network in a training loop.

    Args:
        name: What its curve is called.
        network: Trained by the loop.
        terms: Its loss.
        ema: Decay of the average of its weights, or None.
        snapshot: How its weights are taken.
        purpose: Its task, whose first metric decides about the best epoch.
        labelled: Whether the targets of the training samples are known.

    Attributes:
        kept: What is validated and kept: the network, or the average of it.
        best: Weights of the best epoch so far.
        best_epoch: Which one that is; -1 before the first.
        scores: The metric on the validation split after each epoch.
    """

    def __init__(
        self, name: str, network: nn.Module, terms: Terms, ema: float | None, snapshot: Callable[[nn.Module], State],
        *, purpose: Purpose, labelled: bool,
    ) -> None:  # fmt: skip
        self.name, self.network, self.terms, self._snapshot = name, network, terms, snapshot
        self._average = AveragedModel(network, multi_avg_fn=_decay(ema), use_buffers=True) if ema else None
        self.kept: nn.Module = self._average.module if self._average is not None else network
        self.best, self.best_epoch = self.weights(), -1
        self.metric, self._primary, self._labelled = purpose.task.metrics[0], purpose.signature.primary, labelled
        self.scores: list[float] = []
        self._train: list[float] = []
        self._lr: list[float] = []
        self._values: dict[str, list[float]] = {name: [] for name in terms.names}
        self._begin()

    def weights(self) -> State:
        """A copy of the weights as they are now."""
        return tied.copied(self._snapshot(self.kept))

    def step(self, values: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Count a step that the network has done: the value of each term, and logits N×classes."""
        if self._average is not None:
            self._average.update_parameters(self.network)
        self._sums += values.detach().cpu() * len(labels)
        if self._labelled:
            outputs = {self._primary: logits.detach().float().cpu().numpy()}
            rows = self.metric.per_sample(outputs, labels.cpu().numpy(), self._primary)
            self._rows += [] if rows is None else [rows]
        self._seen += len(labels)

    def epoch(self, score: float, lr: float) -> None:
        """End an epoch with the metric on the validation split.

        Raises:
            TrainingError: The metric is NaN or infinite, which no epoch can be compared with.
        """
        self._check_finite("validation", score)
        for term, value in zip(self.terms.names, (self._sums / self._seen).tolist(), strict=True):
            self._values[term].append(value)
        if self._rows:
            self._train.append(self.metric.reduce(np.concatenate(self._rows)))
            self._check_finite("training", self._train[-1])
        self.scores.append(score)
        self._lr.append(lr)
        self._begin()

    @property
    def improved(self) -> bool:
        """True if the epoch that has ended is better than the best one."""
        last, best = self.scores[-1], self.scores[self.best_epoch]
        return last > best if self.metric.better == "higher" else last < best

    def keep(self) -> None:
        """Take the epoch that has ended for the best."""
        self.best, self.best_epoch = self.weights(), len(self.scores) - 1

    def curve(self, seconds: float, data: DataSet) -> Curve:
        """Return what was seen of the data."""
        return Curve(
            model=self.name,
            terms={term: tuple(values) for term, values in self._values.items()},
            train={self.metric.name: tuple(self._train)} if self._train else {},
            val={self.metric.name: tuple(self.scores)},
            lr=tuple(self._lr),
            best_epoch=self.best_epoch,
            seconds=seconds,
            pairs=tuple(f"{term.name}: {pair}" for term in self.terms.terms for pair in term.pairs),
            of=data.of,
        )

    def _check_finite(self, split: str, value: float) -> None:
        if not math.isfinite(value):
            raise TrainingError(
                f"{self.name}: {self.metric.label} ({self.metric.name}) of the {split} split is {value} after epoch "
                f"{len(self.scores) + 1}",
                "correct the samples that the metric is not defined for, or the metric: reduce() must give a finite number; "
                "the first metric of the task decides about the best epoch",
            )

    def _begin(self) -> None:
        self._sums, self._seen = torch.zeros(len(self.terms.names)), 0
        self._rows: list[Rows] = []


def _decay(share: float) -> Any:
    function: Any = get_ema_multi_avg_fn  # torch has no types for it
    return function(share)
