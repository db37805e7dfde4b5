"""One network in training: the average of its weights, its figures, and the weights of its best epoch by validation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from edgekd.data.dataset import DataSet
from edgekd.distill.terms import Terms
from edgekd.models import tied
from edgekd.results.run import Curve

State = dict[str, Tensor]


class Learner:
    """One network in a training loop.

    Args:
        name: What its curve is called.
        network: Trained by the loop.
        terms: Its loss.
        ema: Decay of the average of its weights, or None.
        snapshot: How its weights are taken.

    Attributes:
        kept: What is validated and kept: the network, or the average of it.
        best: Weights of the best epoch so far.
        best_epoch: Which one that is; -1 before the first.
        val_top1: Of each epoch.
    """

    def __init__(
        self, name: str, network: nn.Module, terms: Terms, ema: float | None, snapshot: Callable[[nn.Module], State]
    ) -> None:
        self.name, self.network, self.terms, self._snapshot = name, network, terms, snapshot
        self._average = AveragedModel(network, multi_avg_fn=_decay(ema), use_buffers=True) if ema else None
        self.kept: nn.Module = self._average.module if self._average is not None else network
        self.best, self.best_epoch = self.weights(), -1
        self.val_top1: list[float] = []
        self._train_top1: list[float] = []
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
        self._right += int((logits.argmax(1) == labels).sum())
        self._seen += len(labels)

    def epoch(self, val_top1: float, lr: float) -> None:
        """End an epoch."""
        for term, value in zip(self.terms.names, (self._sums / self._seen).tolist(), strict=True):
            self._values[term].append(value)
        self._train_top1.append(self._right / self._seen)
        self.val_top1.append(val_top1)
        self._lr.append(lr)
        self._begin()

    def keep(self) -> None:
        """Take the epoch that has ended for the best."""
        self.best, self.best_epoch = self.weights(), len(self.val_top1) - 1

    def curve(self, seconds: float, data: DataSet) -> Curve:
        """Return what was seen of the data."""
        return Curve(
            model=self.name,
            terms={term: tuple(values) for term, values in self._values.items()},
            train_top1=tuple(self._train_top1) if data.train.labelled else (),
            val_top1=tuple(self.val_top1),
            lr=tuple(self._lr),
            best_epoch=self.best_epoch,
            seconds=seconds,
            pairs=tuple(f"{term.name}: {pair}" for term in self.terms.terms for pair in term.pairs),
            measure=data.measure,
        )

    def _begin(self) -> None:
        self._sums, self._right, self._seen = torch.zeros(len(self.terms.names)), 0, 0


def _decay(share: float) -> Any:
    function: Any = get_ema_multi_avg_fn  # torch has no types for it
    return function(share)
