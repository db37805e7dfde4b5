"""The search for the values of the distillation: all trials, what was chosen, and how sure that is."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from edgekd.errors import joined
from edgekd.report import facts
from edgekd.report.charts.svg import NARROW, WIDE, Canvas, Scale, chart, nice_step, padded, tick_text
from edgekd.report.findings import search
from edgekd.report.metric import MetricWords
from edgekd.report.page import Block, Bullets, Cell, Chart, Column, Section, Table
from edgekd.report.words import count, one_line, plural, shorten, sig
from edgekd.results.run import RunResult
from edgekd.results.tuning import TrialRecord, TuningRecord, word

WORDS = {"best": "its best epoch, the one a run keeps", "last": "its last epoch"}


def section(result: RunResult) -> Section:
    """Every trial of the search, in figures and in pictures."""
    title, record = "Search for the values of the distillation", result.tuning
    if record is None:
        return Section("tuning", title, missing="Nothing was searched.")
    sentences = [f"{line[:1].upper()}{line[1:]}." for line in search(record, facts.noun(result))]
    notes = (
        *sentences,
        "The best score of several is too optimistic; the figures on the test split are not, because "
        "the search does not use it. Each trial is one training with one seed.",
        *_alone(result),
    )
    listed = Bullets(tuple(map(one_line, notes)))
    blocks: tuple[Block, ...] = (listed, _table(record, facts.noun(result)), _by_trial(record), _by_value(record))
    lead = (
        f"{plural(len(record.trials), 'student')} of {plural(record.epochs, 'epoch')}, chosen by {record.sampler}, compared "
        f"by {record.metric.label} on the validation split in {WORDS[record.epoch]}."
    )
    return Section("tuning", title, blocks, lead)


def _alone(result: RunResult) -> Iterator[str]:
    plain = (model.name for model in result.models if model.role == "baseline" and model.name != "tuned_kd")
    names = [facts.label_of(result, name) for name in plain]
    if names:
        yield (
            f"Not tuned: {joined(names)}, with the recipe's own values. What distillation gains over that is in part "
            "what any search would gain."
        )


def _table(record: TuningRecord, noun: str) -> Table:
    metric = MetricWords(record.metric)
    columns = (
        Column("Trial"),
        *(Column(one_line(label)) for label in record.labels.values()),
        Column(f"Validation {metric.name}", metric.unit, "number"),
        Column("Work", "s", "number"),
    )
    rows = []
    for trial in record.trials:
        best = trial.number == record.best
        note = ", ".join(text for text, told in (("as written", trial.number == 1), ("chosen", best)) if told)
        score = Cell("failed", "bad", one_line(shorten(trial.reason, 120)), mark=True)
        if trial.score is not None:
            score = Cell(metric.value(trial.score), "good" if best else "", mark=best)
        values = (Cell(one_line(word(trial.values[key]))) for key in record.labels)
        rows.append((Cell(str(trial.number), note=note), *values, score, Cell(sig(trial.seconds))))
    note = f"Of {count(record.images)} {noun}s. Seconds are what the training took when it was done."
    return Table("Trials", columns, tuple(rows), note)


def _scores(record: TuningRecord) -> dict[int, float]:
    """The scores in the metric's unit, by trial."""
    return {number: MetricWords(record.metric).factor * score for number, score in record.scores.items()}


def _by_trial(record: TuningRecord) -> Chart:
    """Draw the score of each trial and the best so far."""
    title, scores, metric = "Score by trial", _scores(record), MetricWords(record.metric)
    best_of = max if record.metric.better == "higher" else min
    best = [(number, best_of(scores[n] for n in scores if n <= number)) for number in scores]
    drawn = []
    for width, height in ((WIDE, 260), (NARROW, 240)):
        canvas = Canvas(width, height)
        x = Scale(0.5, len(record.trials) + 0.5, 48, width - 12)
        y = Scale(*padded(scores.values(), 0.1, metric.room, metric.ceiling), height - 44, 28)
        _axes(canvas, y, x, f"Validation {metric.axis}")
        stride = max(1, round(nice_step(max(1, len(record.trials) - 1), 12)))
        for number in range(1, len(record.trials) + 1, stride):
            canvas.text(x(number), y.start + 18, str(number), "tick", "middle")
        canvas.text((x.start + x.end) / 2, height - 6, "trial", "axis", "middle")
        if len(best) > 1:
            canvas.path([(x(number), y(value)) for number, value in best], "frontier")
        for trial in record.trials:
            _mark(canvas, x(trial.number), y, trial, record)
        drawn.append(canvas)
    listed = "; ".join(f"trial {t.number}: {_told(record, t) if t.number in scores else 'failed'}" for t in record.trials)
    caption = "Filled: the trial that was chosen. Triangle at the bottom: a trial that failed. Line: the best so far."
    return chart("trials", title, f"{listed}.", caption, *drawn)


@dataclass(frozen=True)
class _Axis:
    """Where the values of one key are drawn: a number at its place, anything else in columns."""

    places: dict[Any, float]
    ticks: tuple[tuple[float, str], ...]
    low: float
    high: float


def _axis(record: TuningRecord, key: str) -> _Axis:
    values = [trial.values[key] for trial in record.trials]
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        log = key in record.log and min(values) > 0  # as written it may be 0
        places = {word(value): math.log10(value) if log else float(value) for value in values}
        low, high = padded(places.values(), 0.08, 1e-12)
        if high - low < 1e-9:
            low, high = low - 1, high + 1
        if log:
            ticks = tuple((math.log10(at), word(at)) for at in _decades(low, high))
        else:
            step = nice_step(high - low, 4)
            ticks = tuple((at, tick_text(at, step)) for at in Scale(low, high, 0, 1).ticks(4))
        return _Axis(places, ticks, low, high)
    kinds = list(dict.fromkeys(word(value) for value in values))
    return _Axis({kind: float(n) for n, kind in enumerate(kinds)}, tuple((float(n), k) for n, k in enumerate(kinds)), -0.5,
                 len(kinds) - 0.5)  # fmt: skip


def _decades(low: float, high: float) -> list[float]:
    """1, 2 or 5 times powers of ten between two logarithms; only powers where those are enough."""
    found = [m * 10.0**e for e in range(math.floor(low), math.ceil(high) + 1) for m in (1, 2, 5)]
    inside = [float(f"{at:.3g}") for at in found if low <= math.log10(at) <= high]
    powers = [at for at in inside if math.log10(at).is_integer()]
    return powers if len(powers) > 2 else inside


def _by_value(record: TuningRecord) -> Chart:
    """Draw the score over the values of each key, a panel a key."""
    title, scores, metric = "Score by value", _scores(record), MetricWords(record.metric)
    keys = list(record.labels)
    bounds = padded(scores.values(), 0.1, metric.room, metric.ceiling)
    drawn = []
    for width, across, panel in ((WIDE, min(3, len(keys)), 220), (NARROW, 1, 200)):
        canvas = Canvas(width, -(-len(keys) // across) * panel)
        size = (width - (across - 1) * 28) / across
        for index, key in enumerate(keys):
            left, top = index % across * (size + 28), index // across * panel
            axis = _axis(record, key)
            x = Scale(axis.low, axis.high, left + 44, left + size - 10)
            y = Scale(*bounds, top + panel - 50, top + 28)
            name = f"{record.labels[key]}{' (logarithmic)' if key in record.log else ''}"
            _axes(canvas, y, x, shorten(name, 40), top, left)
            longest = max(4, int((x.end - x.start) / max(1, len(axis.ticks)) / 7))
            for at, text in axis.ticks:
                canvas.text(x(at), y.start + 18, shorten(text, longest), "tick", "middle")
            for trial in record.trials:
                _mark(canvas, x(axis.places[word(trial.values[key])]), y, trial, record)
        drawn.append(canvas)
    listed = "; ".join(
        f"{record.labels[key]}: " + ", ".join(f"{word(t.values[key])} {_told(record, t)}" for t in _done(record))
        for key in keys
    )
    caption = (
        f"Validation {metric.axis}. All values change at a time from trial to trial, so a panel shows a tendency and no "
        "cause. Filled: chosen."
    )
    return chart("values", title, f"{listed}.", caption, *drawn)


def _told(record: TuningRecord, trial: TrialRecord) -> str:
    metric = MetricWords(record.metric)
    return "failed" if trial.score is None else f"{metric.plain(trial.score)} {metric.unit}".rstrip()


def _done(record: TuningRecord) -> Sequence[TrialRecord]:
    return [trial for trial in record.trials if trial.score is not None]


def _axes(canvas: Canvas, y: Scale, x: Scale, title: str, top: float = 0, left: float = 0) -> None:
    canvas.text(left, top + 14, title, "axis")
    step = nice_step(y.high - y.low, 4)
    for tick in y.ticks(4):
        canvas.line(x.start, y(tick), x.end, y(tick), "grid")
        canvas.text(x.start - 8, y(tick) + 4, tick_text(tick, step), "tick", "end")
    canvas.line(x.start, y.start, x.end, y.start, "base")


def _mark(canvas: Canvas, x: float, y: Scale, trial: TrialRecord, record: TuningRecord) -> None:
    if trial.score is None:
        canvas.marker("triangle", x, y.start - 6, "dot hollow", 5, f"trial {trial.number}: failed")
        return
    style = "dot" if trial.number == record.best else "dot hollow"
    value = MetricWords(record.metric).factor * trial.score
    canvas.marker("circle", x, y(value), style, 5, f"trial {trial.number}: {_told(record, trial)}")
