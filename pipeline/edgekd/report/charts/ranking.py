"""The chart of a study: methods by their mean, with the interval that the seeds leave and the seeds themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgekd.report.charts.svg import CHAR, NARROW, WIDE, Canvas, Scale, chart, nice_step, padded, tick_text
from edgekd.report.metric import MetricWords
from edgekd.report.page import Chart
from edgekd.report.words import shorten

ROW = 30


@dataclass(frozen=True)
class Dot:
    """A method: mean, interval and seeds in the metric's unit; a baseline is drawn hollow."""

    label: str
    mean: float
    low: float
    high: float
    seeds: tuple[float, ...]
    baseline: bool


def ranking(name: str, title: str, dots: Sequence[Dot], reference: tuple[str, float] | None, metric: MetricWords) -> Chart:
    """Draw methods in their order, the best on top; ``reference`` is a line: its label and its value."""
    caption = (
        f"Dot: mean over seeds of the test {metric.name} of the kept epoch; hollow: a baseline. Whisker: its 95 % interval "
        "by Student's t. Ticks below: the seeds. Where whiskers overlap, the order is open. The axis does not start at 0."
    )
    told = "; ".join(
        f"{dot.label}: {metric.measured(_text(dot.mean, metric))}, "
        f"interval {_text(dot.low, metric)} to {_text(dot.high, metric)}"
        for dot in dots
    )
    wide, narrow = (_ranking(dots, reference, width, metric) for width in (WIDE, NARROW))
    return chart(name, title, f"{told}.", caption, wide, narrow)


def _text(value: float, metric: MetricWords) -> str:
    return metric.fine(value / metric.factor)


def _ranking(dots: Sequence[Dot], reference: tuple[str, float] | None, width: int, metric: MetricWords) -> Canvas:
    canvas = Canvas(width, 58 + ROW * len(dots))
    gutter = min(max(len(dot.label) for dot in dots) * CHAR + 12, width * 0.34)
    bounds = padded(
        (value for dot in dots for value in (dot.low, dot.high, *dot.seeds)), 0.05, 0.4 * metric.room, metric.ceiling
    )
    x = Scale(*bounds, gutter, width - (70 if width == WIDE else 12))
    about = 8 if width == WIDE else 4
    step, bottom = nice_step(x.high - x.low, about), 24 + ROW * len(dots)
    for tick in x.ticks(about):
        canvas.line(x(tick), 24, x(tick), bottom, "grid")
        canvas.text(x(tick), bottom + 16, tick_text(tick, step), "tick", "middle")
    canvas.text(x.end, bottom + 32, f"Test {metric.axis}", "axis", "end")
    if reference:
        canvas.line(x(reference[1]), 20, x(reference[1]), bottom, "mark")
        canvas.text(x(reference[1]), 14, reference[0], "note", "middle")
    for number, dot in enumerate(dots):
        y = 24 + ROW * (number + 0.5)
        canvas.text(0, y + 4, shorten(dot.label, max(4, int((gutter - 8) / CHAR))), "" if dot.baseline else "name")
        canvas.line(x(dot.low), y, x(dot.high), y, "whisker")
        for end in (dot.low, dot.high):
            canvas.line(x(end), y - 4, x(end), y + 4, "whisker")
        for seed in dot.seeds:
            canvas.line(x(seed), y + 6, x(seed), y + 12, "mark")
        canvas.marker(
            "circle",
            x(dot.mean),
            y,
            "dot hollow" if dot.baseline else "dot",
            hover=f"{dot.label}: {metric.measured(_text(dot.mean, metric))}",
        )
        if width == WIDE:
            canvas.text(width, y + 4, _text(dot.mean, metric), "figure", "end")
    return canvas
