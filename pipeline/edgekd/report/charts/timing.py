"""Charts of time on a device: the range of latencies, how block medians moved over the session, sustained minutes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgekd.report.charts.svg import CHAR, NARROW, WIDE, Canvas, Scale, chart, nice_step, padded, tick_text
from edgekd.report.page import Chart
from edgekd.report.words import shorten


@dataclass(frozen=True)
class Range:
    """Latencies of an artifact in ms; ``low`` and ``high`` bound the median; the texts are what is written.

    ``p90`` and ``p99`` are None where the agent does not give them.
    """

    label: str
    p50: float
    p90: float | None
    p99: float | None
    low: float
    high: float
    p50_text: str
    p99_text: str
    doubt: bool


@dataclass(frozen=True)
class Blocks:
    """Medians of blocks in the order they ran, with what they say in words."""

    label: str
    medians: tuple[float, ...]
    text: str
    doubt: bool


@dataclass(frozen=True)
class Course:
    """Medians of ten seconds each, in order."""

    label: str
    medians: tuple[float, ...]
    text: str


DOTS = 24
"""Blocks that are drawn as dots, at most; of more the line is enough."""
STEP_S = 10
"""Seconds of a median of the sustained minutes."""


def ranges(name: str, device: str, rows: Sequence[Range], caption: str, stamp: str = "") -> Chart:
    """Draw p50 (dot, with the median's interval), p90 (tick) and p99 (end of the line) of each artifact."""
    title = f"Latency on {device}"
    told = "; ".join(f"{row.label}: p50 {row.p50_text} ms, p99 {row.p99_text} ms" for row in rows)
    drawn = (_ranges(rows, WIDE), _ranges(rows, NARROW))
    return chart(f"{name}-latency", title, f"{told}.", caption, *drawn, stamp=stamp)


def _ranges(rows: Sequence[Range], width: int) -> Canvas:
    narrow = width == NARROW
    height, top = (48, 28) if narrow else (34, 28)
    canvas = Canvas(width, top + height * len(rows) + 40)
    # Each column is as wide as its longest figure, so that two never touch.
    last, first = (max(44.0, CHAR * max(map(len, texts))) for texts in
                   ([row.p99_text for row in rows], [row.p50_text for row in rows]))  # fmt: skip
    column = width - last - 12
    x = Scale(0, max(_end(row) for row in rows) * 1.05, 8 if narrow else 150, column - first - (12 if narrow else 50))
    bottom = top + height * len(rows)
    about = 4 if narrow else 8
    for tick in x.ticks(about):
        canvas.line(x(tick), top - 6, x(tick), bottom, "grid")
        canvas.text(x(tick), bottom + 16, tick_text(tick, nice_step(x.high, about)), "tick", "middle")
    canvas.text(x.end, bottom + 34, "ms (lower is better)", "axis", "end")
    canvas.text(column, 14, "p50, ms", "axis", "end")
    canvas.text(width, 14, "p99, ms", "axis", "end")
    for index, row in enumerate(rows):
        middle = top + index * height + height * (0.68 if narrow else 0.5)
        text = shorten(row.label, 30 if narrow else 19) + (" △" if row.doubt else "")
        if narrow:
            canvas.text(8, middle - 14, text, "name")
        else:
            canvas.text(136, middle + 4, text, "name", "end")
        canvas.line(x(row.p50), middle, x(_end(row)), middle, "range")
        if row.p90 is not None:
            canvas.line(x(row.p90), middle - 5, x(row.p90), middle + 5, "whisker")
        if row.p99 is not None:
            canvas.line(x(row.p99), middle - 3, x(row.p99), middle + 3, "range")
        canvas.rect(x(row.low), middle - 6, x(row.high) - x(row.low), 12, "interval")
        canvas.marker("circle", x(row.p50), middle, "dot", 4.5)
        canvas.text(column, middle + 4, row.p50_text, "figure", "end")
        canvas.text(width, middle + 4, row.p99_text, "note", "end")
    return canvas


def _end(row: Range) -> float:
    return max(row.high, row.p90 or 0.0, row.p99 or 0.0)


def drift(name: str, device: str, rows: Sequence[Blocks], caption: str, stamp: str = "") -> Chart:
    """Draw each artifact's block medians as a change in percent from their own median, all on one scale."""
    title = f"Block medians over the session on {device}"
    told = "; ".join(f"{row.label}: {row.text}" for row in rows)
    changes = [_changes(row.medians) for row in rows]
    # At least ±5 %: on a tighter scale the noise of a calm machine would look like drift.
    reach = padded([-5.0, 5.0, *(value for change in changes for value in change)], 0.05, 0.5)
    drawn = (_drift(rows, changes, reach, WIDE, 4), _drift(rows, changes, reach, NARROW, 2))
    return chart(f"{name}-drift", title, f"{told}.", caption, *drawn, stamp=stamp)


def _changes(medians: Sequence[float]) -> tuple[float, ...]:
    ordered = sorted(medians)
    middle = (ordered[len(ordered) // 2] + ordered[~(len(ordered) // 2)]) / 2
    return tuple((value / middle - 1) * 100 for value in medians)


def _drift(
    rows: Sequence[Blocks],
    changes: Sequence[tuple[float, ...]],
    reach: tuple[float, float],
    width: int,
    across: int,
) -> Canvas:
    gap, height = 20, 128
    reached = max(5.0, nice_step(reach[1] - reach[0], 4))  # so that three ticks never touch
    across = min(across, len(rows)) if width == WIDE and len(rows) > 2 else across
    size = (width - gap * (across - 1)) / across
    canvas = Canvas(width, height * -(-len(rows) // across))
    for index, (row, values) in enumerate(zip(rows, changes, strict=True)):
        left, top = index % across * (size + gap), index // across * height
        x = Scale(0, max(1, len(values) - 1), left + 40, left + size - 6)
        y = Scale(*reach, top + 92, top + 24)
        canvas.text(left, top + 13, shorten(row.label, int(size / 8)) + (" △" if row.doubt else ""), "name")
        for tick in (-reached, 0.0, reached):
            if not reach[0] <= tick <= reach[1]:
                continue
            canvas.line(x.start, y(tick), left + size, y(tick), "base" if tick == 0 else "grid")
            text = f"{tick:+.0f} %".replace("-", "−") if tick else "0 %"
            canvas.text(x.start - 5, y(tick) + 4, text, "tick", "end")
        dots = [(x(i), y(value)) for i, value in enumerate(values)]
        canvas.path(dots, "line s0")
        for dot in dots if len(dots) <= DOTS else ():
            canvas.marker("circle", *dot, "point s0", 2.5)
        canvas.text(left, top + 112, row.text, "note")
    return canvas


def sustained(name: str, device: str, rows: Sequence[Course], caption: str, stamp: str = "") -> Chart:
    """Draw the latency of each artifact over minutes without a pause, as a change from its own first ten seconds."""
    title = f"Latency over minutes without a pause on {device}"
    told = "; ".join(f"{row.label}: {row.text}" for row in rows)
    changes = [tuple((value / row.medians[0] - 1) * 100 for value in row.medians) for row in rows]
    reach = padded([-5.0, 5.0, *(value for change in changes for value in change)], 0.05, 0.5)
    drawn = (_courses(rows, changes, reach, WIDE), _courses(rows, changes, reach, NARROW))
    return chart(f"{name}-sustained", title, f"{told}.", caption, *drawn, stamp=stamp)


def _courses(rows: Sequence[Course], changes: Sequence[tuple[float, ...]], reach: tuple[float, float], width: int) -> Canvas:
    height, legend = 220, 18 * len(rows)
    canvas = Canvas(width, height + legend + 14)
    longest = max(len(change) for change in changes) * STEP_S / 60
    x = Scale(0, longest, 52, width - 10)
    y = Scale(*reach, height - 36, 12)
    for tick in y.ticks(5):
        canvas.line(x.start, y(tick), x.end, y(tick), "base" if tick == 0 else "grid")
        text = f"{tick:+.0f} %".replace("-", "−") if tick else "0 %"
        canvas.text(x.start - 6, y(tick) + 4, text, "tick", "end")
    about = 4 if width == NARROW else 8
    for tick in x.ticks(about):
        canvas.text(x(tick), y.start + 18, tick_text(tick, nice_step(longest, about)), "tick", "middle")
    canvas.text(x.end, y.start + 34, "minutes", "axis", "end")
    for index, (row, values) in enumerate(zip(rows, changes, strict=True)):
        canvas.path([(x((i + 1) * STEP_S / 60), y(value)) for i, value in enumerate(values)], f"line s{index % 6}")
        line = height + 14 + 18 * index
        canvas.path([(x.start, line - 4), (x.start + 26, line - 4)], f"line s{index % 6}")
        canvas.text(x.start + 34, line, f"{shorten(row.label, 30)}: {row.text}", "note")
    return canvas
