"""tune: the values of the distillation that are best on the validation split. Each trial trains the student with others.

A trial is a finished piece of work of its own in the cache, so an interrupted search goes on, a longer one begins where a
shorter one ended, and two searches share what both try.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgekd import cache, environment, reads
from edgekd.assembly import launch, samples, search
from edgekd.assembly.context import OUTPUT, Context, read_output
from edgekd.assembly.outputs import TrialOutput
from edgekd.assembly.stage import Node, Work
from edgekd.data import fingerprint
from edgekd.errors import LayerError, StageError, TrainingError
from edgekd.loading import tuned
from edgekd.loading.conflicts.tune import refused
from edgekd.metrics.base import facts, shown
from edgekd.progress import Silent, Task
from edgekd.reads import watch
from edgekd.recipe import Recipe
from edgekd.recipe.base import need
from edgekd.recipe.distill import Distill
from edgekd.recipe.tune import Range
from edgekd.results import codec
from edgekd.results.tuning import TrialRecord, TuningRecord, words
from edgekd.stages import distill
from edgekd.task.base import task_of

STEPS = 1000  # of the progress bar, for each trial


def chosen(recipe: Recipe, done: Mapping[str, Path], stage: str = "") -> Recipe:
    """The recipe with the values that the finished search of a stage has chosen; as it is without one."""
    searched = search.search_of(stage)
    if recipe.tune is None or searched not in done:
        return recipe
    return tuned.with_values(recipe, read(done[searched]).chosen.values)


def read(folder: Path) -> TuningRecord:
    """Return the record of the finished stage."""
    return read_output(TuningRecord, folder)


def finished(recipe: Recipe, inputs: Mapping[str, str], hashed: str, processes: int = 1, folder: Path | None = None) -> int:
    """Return the number of trials of a search that are done already, counted from the first.

    Args:
        recipe: The recipe.
        inputs: Keys of the stages that it reads.
        hashed: Hash of the data.
        processes: How many train together.
        folder: The recipe's.
    """
    known: list[TrialRecord] = []
    for number in range(1, search.count(recipe) + 1):
        values = search.suggest(recipe, known)
        trial = _impossible(recipe, number, values)
        if trial is None:
            entry, _ = cache.lookup(cache.key_of(_material(recipe, values, inputs, hashed, processes)), folder)
            if entry is None:
                break
            trial = _read(entry, recipe, number, values)
        known.append(trial)
    return len(known)


def _impossible(recipe: Recipe, number: int, values: tuned.Values) -> TrialRecord | None:
    """The trial that fails before it is tried: its values cannot be together. None for all others."""
    reason = refused(recipe, values)
    return TrialRecord(number, values, "failed", 0.0, reason=reason) if reason else None


def _budget(recipe: Recipe) -> Distill:
    """The distill section of a trial."""
    budget = need(recipe.distill, "distill")
    return budget.model_copy(update={"epochs": need(recipe.tune, "tune").epochs or budget.epochs})


def _of(recipe: Recipe, values: tuned.Values) -> Recipe:
    """The recipe of a trial."""
    changed = tuned.with_values(recipe, values)
    return changed.model_copy(update={"distill": _budget(changed), "tune": None})


def _material(
    recipe: Recipe, values: tuned.Values, inputs: Mapping[str, str], hashed: str, processes: int
) -> dict[str, Any]:
    """What decides a trial's result."""
    several: dict[str, Any] = {"processes": processes} if processes > 1 else {}  # each has batches of its own
    several |= {"threads": recipe.threads} if recipe.threads else {}
    several |= {"reads": reads.declared(recipe.reads)} if recipe.reads else {}
    return several | {
        "stage": "trial",
        "version": distill.DistillStage.version,
        "config": distill.config(_of(recipe, values)),
        "inputs": dict(inputs),
        "data": hashed,
        "packages": environment.versions(launch.PACKAGES),
    }


def _trial(context: Context, number: int, values: tuned.Values, material: dict[str, Any]) -> TrialRecord:
    """Train one student, or read what came of it before. Its curve is kept, its weights are not."""
    key = cache.key_of(material)
    with cache.locked(key):
        entry, _ = cache.lookup(key, context.folder)
        if entry is None:
            with cache.scratch() as folder, watch.recording(context.files) as recorder:
                started = time.monotonic()
                work = folder / "work"
                work.mkdir()
                try:
                    trial = replace(context, recipe=_of(context.recipe, values), name="trial", out=work)
                    trained = distill.DistillStage().run(trial)
                    found = TrialOutput(None if trained is None else trained.curve)
                except (TrainingError, LayerError) as error:  # these values cannot be trained; others can
                    found = TrialOutput(failure=error.message.removeprefix("distilled: "))
                shutil.rmtree(work)
                codec.write(found, folder / OUTPUT)
                entry = cache.commit(folder, key, material, time.monotonic() - started, context.reads(recorder))
    return _read(entry, context.recipe, number, values)


def _read(entry: cache.Entry, recipe: Recipe, number: int, values: tuned.Values) -> TrialRecord:
    found = read_output(TrialOutput, entry.path)
    seconds = round(entry.seconds, 1)
    if found.curve is None:
        return TrialRecord(number, values, "failed", seconds, reason=found.failure)
    (scores,) = found.curve.val.values()
    epoch = found.curve.best_epoch if need(recipe.tune, "tune").metric == "best" else -1
    return TrialRecord(number, values, "done", seconds, scores[epoch], scores)


@dataclass
class _Part:
    """Progress of one trial as a part of the bar over all."""

    whole: Task
    done: int = 0

    def task(self, name: str, total: int) -> AbstractContextManager[Task]:
        """Advance the bar over all; a trial has one long task, its training."""
        return self._task(total)

    @contextmanager
    def _task(self, total: int) -> Iterator[Task]:
        part, seen = self, 0

        class Share:
            def advance(self, steps: int = 1, note: str = "") -> None:
                nonlocal seen
                seen += steps
                target = min(STEPS - 1, STEPS * seen // max(1, total))
                part.whole.advance(max(0, target - part.done), note)
                part.done = max(part.done, target)

        yield Share()

    def say(self, text: str) -> None:
        """Drop the line: it would come once for each trial."""


class TuneStage:
    """A search for the values of the distillation."""

    name = "tune"
    version = 3
    reused = True
    optional = False

    def packages(self, name: str) -> tuple[str, ...]:
        """Name what decides its result."""
        return (*launch.PACKAGES, "optuna")

    def nodes(self, recipe: Recipe) -> Iterator[Node]:
        """Yield one for the recipe's own search and one for that of tuned_kd: each with the first seed, for all seeds."""
        for part in distill.trainings(recipe):
            if part.recipe.tune and part.seed == recipe.seed:
                yield Node(search.search_of(part.stage), self, distill.reads(part.recipe), part.recipe)

    def work(self, recipe: Recipe) -> Work:
        """Train a student a trial."""
        return Work.TRIALS

    def config(self, recipe: Recipe, name: str) -> dict[str, Any]:
        """The search, and what decides a student without it.

        Raises:
            StageError: The sampler is not installed, or there are several processes that all would have to search.
        """
        tune = need(recipe.tune, "tune")
        search.check(tune)
        if "TORCHELASTIC_RUN_ID" in os.environ:
            raise StageError(
                "tune does not run under torchrun", "use edgekd run --processes N, or write the values it has chosen"
            )
        return {**distill.config(recipe), "tune": tune.model_dump(mode="json")}

    def run(self, context: Context) -> TuningRecord:
        """Search.

        Raises:
            TrainingError: No trial could be trained.
        """
        recipe, trials, metric = context.recipe, list[TrialRecord](), task_of(context.recipe.task).metrics[0]
        sign = 1 if metric.better == "higher" else -1
        tune = need(recipe.tune, "tune")
        hashed, count = fingerprint.of(recipe.data), search.count(recipe)
        # a finished stage's folder is named by its key
        inputs = {name: folder.name for name, folder in context.inputs.items()}
        labels = {key: tuned.label(recipe, key) for key in tune.search}
        with context.progress.task("trials", count * STEPS) as task:
            for number in range(1, count + 1):
                values = search.suggest(recipe, trials)
                bar = _Part(task) if context.processes == 1 else Silent()
                trial = _impossible(recipe, number, values)
                if trial is None:
                    with reads.hashing() as files:
                        material = _material(recipe, values, inputs, hashed, context.processes)
                    trial = _trial(replace(context, progress=bar, files=files), number, values, material)
                task.advance(STEPS - (bar.done if isinstance(bar, _Part) else 0))
                trials.append(trial)
                came = f"failed: {trial.reason}" if trial.score is None else f"{shown(metric, trial.score)} on validation"
                context.progress.say(f"  trial {number}/{count}: {words(values, labels)}: {came}")
        scores = {trial.number: trial.score for trial in trials if trial.score is not None}
        if not scores:
            raise TrainingError(
                f"none of {count} trials could be trained; the first: {trials[0].reason}", "search other values"
            )
        record = TuningRecord(
            sampler=tune.sampler, metric=facts(metric), epoch=tune.metric, epochs=_budget(recipe).epochs,
            images=len(samples.images(context).val),
            labels=labels, log=tuple(key for key, one in tune.search.items() if isinstance(one, Range) and one.log),
            trials=tuple(trials), best=max(scores, key=lambda number: (sign * scores[number], -number)),
        )  # fmt: skip
        best = record.chosen
        score = shown(metric, record.scores[best.number])
        context.progress.say(f"  chosen: {words(best.values, labels)} ({score} in trial {best.number} of {count})")
        return record
