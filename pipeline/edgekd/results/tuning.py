"""Records of a search, as run.json has them, and in sentences."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from edgekd.results.models import MetricFacts


@dataclass(frozen=True)
class TrialRecord:
    """One student, trained with other values.

    Attributes:
        number: From 1; the first has the values as the recipe has them.
        values: By key of the recipe.
        state: ``failed``: it could not be trained, for ``reason``.
        score: What decides, on the validation split; None if it failed.
        val: The metric on the validation split after each epoch.
        seconds: Wall time of its training, when it was done.
        reason: Why it failed.
    """

    number: int
    values: Mapping[str, Any]
    state: Literal["done", "failed"]
    seconds: float
    score: float | None = None
    val: tuple[float, ...] = ()
    reason: str = ""


@dataclass(frozen=True)
class TuningRecord:
    """A finished search.

    Attributes:
        sampler: ``tpe``, ``random`` or ``grid``.
        metric: What decides: the task's first metric.
        epoch: Of which epoch: the ``best``, which a run keeps, or the ``last``.
        epochs: Of each trial.
        images: Of the validation split, which all is measured on.
        labels: What each key is called in tables.
        log: Keys that were searched by their logarithm.
        trials: All trials, in order.
        best: Number of the one that was chosen.
    """

    sampler: str
    metric: MetricFacts
    epoch: Literal["best", "last"]
    epochs: int
    images: int
    labels: Mapping[str, str]
    log: tuple[str, ...]
    trials: tuple[TrialRecord, ...]
    best: int

    @property
    def chosen(self) -> TrialRecord:
        """The trial whose values are used."""
        return self.trials[self.best - 1]

    @property
    def scores(self) -> dict[int, float]:
        """Scores of the trials that could be trained, by their numbers."""
        return {trial.number: trial.score for trial in self.trials if trial.score is not None}

    @property
    def error(self) -> float:
        """One standard error of the best score: of a share p of n images, √(p · (1 − p) / n); 0 of what is no share."""
        p = self.scores[self.best]
        return math.sqrt(p * (1 - p) / self.images) if self.metric.unit == "%" else 0.0

    @property
    def near(self) -> tuple[TrialRecord, ...]:
        """The trials that are within one standard error of the best, without it (Breiman et al. 1984, CART, §3.4.3)."""
        best = self.scores[self.best]
        others = (trial for trial in self.trials if trial.number != self.best and trial.score is not None)
        return tuple(trial for trial in others if self.metric.gain(trial.score or 0.0, best) >= -self.error)


def words(values: Mapping[str, Any], labels: Mapping[str, str]) -> str:
    """Values in words: ``kd temperature 4, lr 0.002``."""
    return ", ".join(f"{labels[key]} {word(value)}" for key, value in values.items())


def word(value: Any) -> str:
    """One value in words."""
    if value is None or isinstance(value, bool):
        return {None: "none", True: "true", False: "false"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)
