"""Choose the next values of a search: a function of the recipe and of the trials so far, so that it can resume."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from edgekd.errors import StageError
from edgekd.loading import tuned
from edgekd.recipe import Recipe
from edgekd.recipe.base import need
from edgekd.recipe.tune import TRIALS, Range, Tune
from edgekd.results.tuning import TrialRecord
from edgekd.task.base import task_of

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

KD = "tune.kd"
"""The search of the baseline tuned_kd."""
STARTUP = 4
"""Trials after the first that are drawn at random before TPE models them: Optuna's 10 are most of a search of 12."""


def check(tune: Tune) -> None:
    """Refuse a sampler that is not installed.

    Raises:
        StageError: Optuna is missing.
    """
    if tune.sampler != "grid" and find_spec("optuna") is None:
        raise StageError(
            f"tune.sampler: {tune.sampler} needs Optuna, which is not installed",
            "pip install 'edgekd[tune]', or write sampler: grid with lists of values",
        )


def count(recipe: Recipe) -> int:
    """Number of trials of a search."""
    tune = need(recipe.tune, "tune")
    return len(tuned.grid(recipe)) if tune.sampler == "grid" else tune.trials or TRIALS


def suggest(recipe: Recipe, finished: Sequence[TrialRecord]) -> dict[str, Any]:
    """The values of the trial after these, by their keys; those of the first are the recipe's own."""
    tune = need(recipe.tune, "tune")
    if tune.sampler == "grid":
        return tuned.grid(recipe)[len(finished)]
    return _sampled(recipe, tune, finished) if finished else tuned.own(recipe)


def _sampled(recipe: Recipe, tune: Tune, finished: Sequence[TrialRecord]) -> dict[str, Any]:
    """Ask Optuna, which is told all that is known; each trial has a seed of its own, so that nothing else is kept."""
    import numpy as np
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    seed = int(np.random.SeedSequence([recipe.seed, len(finished)]).generate_state(1)[0])
    sampler: optuna.samplers.BaseSampler = optuna.samplers.RandomSampler(seed=seed)
    if tune.sampler == "tpe":
        sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=STARTUP + 1)
    higher = task_of(recipe.task).metrics[0].better == "higher"
    scores = [trial.score for trial in finished if trial.score is not None]
    worst = min(0.0, *scores) if higher else max(0.0, *scores)
    study = optuna.create_study(sampler=sampler, direction="maximize" if higher else "minimize")
    space = {key: _distribution(recipe, key, one) for key, one in tune.search.items()}
    for trial in finished:
        if all(_contains(space[key], value) for key, value in trial.values.items()):  # the recipe's own may be outside
            # One that failed is worse than all others: left out, TPE would go there again.
            value = worst if trial.score is None else trial.score
            told = optuna.trial.create_trial(params=dict(trial.values), distributions=space, value=value)
            study.add_trial(told)
    asked = study.ask(fixed_distributions=space).params
    return {key: tuned.typed(recipe, key, _rounded(value, tune.search[key])) for key, value in asked.items()}


def _distribution(recipe: Recipe, key: str, one: Any) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if not isinstance(one, Range):
        return CategoricalDistribution(one)
    if tuned.whole(recipe, key):
        return IntDistribution(int(one.low), int(one.high), log=one.log, step=int(one.step or 1))
    high = one.high if one.step is None else one.points()[-1]
    return FloatDistribution(one.low, high, log=one.log, step=one.step)


def _contains(space: BaseDistribution, value: Any) -> bool:
    try:
        return bool(space._contains(space.to_internal_repr(value)))
    except (ValueError, TypeError):  # such as a mapping of layers, or null
        return False


def _rounded(value: Any, one: Any) -> Any:
    """Three significant digits: more cannot be told apart by a search, nor be read."""
    if not isinstance(value, float) or not isinstance(one, Range) or one.step is not None:
        return value
    return min(max(float(f"{value:.3g}"), one.low), one.high)


def search_of(stage: str) -> str:
    """The search whose values a stage uses: the baseline tuned_kd has one of its own."""
    return KD if stage == KD or stage.partition(".")[0] == "tuned_kd" else "tune"
