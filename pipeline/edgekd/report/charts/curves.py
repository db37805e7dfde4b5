"""Charts over epochs: validation accuracy of all networks, and the loss terms of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgekd.report.charts.svg import CHAR, NARROW, WIDE, Canvas, Scale, chart, nice_step, padded, spread, tick_text
from edgekd.report.metric import MetricWords
from edgekd.report.page import Chart
from edgekd.report.words import shorten, sig

SERIES = 6
"""Number of line styles in ``page.css``; each has its own colour and its own dashes."""


@dataclass(frozen=True)
class Line:
    """Values of epochs ``start`` + 1, 2, …; ``best`` is the index of the kept epoch, marked by a ring."""

    label: str
    values: tuple[float, ...]
    best: int | None = None
    start: int = 0


def validation(lines: Sequence[Line], caption: str, metric: MetricWords) -> Chart:
    """Draw the metric on the validation split over epochs for all networks; values are in the metric's unit."""
    title = f"Validation {metric.name} by epoch"
    told = "; ".join(f"{line.label}: {sig(line.values[0])} to {metric.measured(sig(line.values[-1]))}" for line in lines)
    drawn = []
    for width, height in ((WIDE, 320), (NARROW, 280)):
        canvas = Canvas(width, height)
        bounds = padded((value for line in lines for value in line.values), 0.1, metric.room, metric.ceiling)
        _plot(canvas, lines, bounds, (0, 0, width, height), f"Validation {metric.axis}", gutter=_gutter(lines, width))
        drawn.append(canvas)
    return chart("validation", title, f"{told}.", caption, *drawn)


def losses(networks: Mapping[str, Sequence[Line]], caption: str) -> Chart:
    """Draw the loss terms of each network over epochs, a panel a network; each panel has its own axis."""
    title = "Loss by term and epoch"
    told = "; ".join(
        f"{name}: " + ", ".join(f"{line.label} {sig(line.values[0])} to {sig(line.values[-1])}" for line in lines)
        for name, lines in networks.items()
    )
    drawn = []
    for width, across, panel in ((WIDE, 2 if len(networks) > 1 else 1, 230), (NARROW, 1, 210)):
        rows = -(-len(networks) // across)
        canvas = Canvas(width, rows * panel)
        size = (width - (across - 1) * 36) / across
        for index, (name, lines) in enumerate(networks.items()):
            left, top = index % across * (size + 36), index // across * panel
            highest = max(value for line in lines for value in line.values)
            bounds = (0.0, highest * 1.08 if highest > 0 else 1.0)
            _plot(canvas, lines, bounds, (left, top, size, panel - 14), name, gutter=_gutter(lines, width))
        drawn.append(canvas)
    return chart("losses", title, f"{told}.", caption, *drawn)


def _gutter(lines: Sequence[Line], width: int) -> float:
    longest = max(len(line.label) for line in lines)
    return min(longest * CHAR + 22, width * 0.34)


def _plot(
    canvas: Canvas,
    lines: Sequence[Line],
    bounds: tuple[float, float],
    frame: tuple[float, float, float, float],
    title: str,
    gutter: float,
) -> None:
    left, top, width, height = frame
    epochs = max(line.start + len(line.values) for line in lines)
    x = Scale(1, max(2, epochs), left + 44, left + width - gutter)
    y = Scale(*bounds, top + height - 40, top + 30)
    canvas.text(left, top + 14, shorten(title, 44), "axis")
    canvas.text((x.start + x.end) / 2, top + height - 4, "epoch", "axis", "middle")
    step = nice_step(y.high - y.low, 4)
    for tick in y.ticks(4):
        canvas.line(x.start, y(tick), x.end, y(tick), "grid")
        canvas.text(x.start - 8, y(tick) + 4, tick_text(tick, step), "tick", "end")
    stride = max(1, round(nice_step(max(1, epochs - 1), 8)))
    for epoch in range(1, epochs + 1, stride):
        canvas.text(x(epoch), y.start + 18, str(epoch), "tick", "middle")
    canvas.line(x.start, y.start, x.end, y.start, "base")
    ends = spread([y(line.values[-1]) for line in lines], 15, y.end, y.start)
    for index, (line, end) in enumerate(zip(lines, ends, strict=True)):
        style = f"s{index % SERIES}"
        dots = [(x(epoch), y(value)) for epoch, value in enumerate(line.values, line.start + 1)]
        if len(dots) > 1:
            canvas.path(dots, f"line {style}")
        else:
            canvas.marker("circle", *dots[0], f"point {style}", 3)
        if line.best is not None and 0 <= line.best < len(dots):
            canvas.marker("circle", *dots[line.best], f"ring {style}", 5)
        last = dots[-1][0] + 7, dots[-1][1]
        canvas.path([last, (max(x.end + 4, last[0]), end), (x.end + 10, end)], f"leader {style}")
        canvas.text(x.end + 14, end + 4, shorten(line.label, int((gutter - 14) / CHAR)), f"name {style}")
