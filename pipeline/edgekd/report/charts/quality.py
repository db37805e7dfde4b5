"""Charts of quality: accuracy against latency with budgets, and where the accuracy went."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from edgekd.report.charts.svg import CHAR, NARROW, WIDE, Anchor, Canvas, Scale, Shape, chart, nice_step, padded, tick_text
from edgekd.report.difference import Difference
from edgekd.report.metric import MetricWords, capitalized
from edgekd.report.page import Chart
from edgekd.report.words import shorten

FAR = 6
"""Lines above and below a point that its name may move away, where others are in the way."""
SIZE, RING = 5.5, 3.0
"""Radius of a marker, and by how much one is larger that lies around another."""
ANCHORS: tuple[Anchor, ...] = ("middle", "start", "end")
SHAPES: dict[str, Shape] = {"onnx": "circle", "tflite": "square", "openvino": "diamond"}
OTHER_SHAPES: tuple[Shape, ...] = ("pentagon", "hexagon", "wedge")
"""Shapes of other formats, in the order of their names; no triangle, which is the sign of a doubt."""


@dataclass(frozen=True)
class Point:
    """An artifact in the Pareto chart: p50 in ms with its interval, the metric in its unit."""

    label: str
    shape: Shape
    filled: bool
    p50: float
    low: float
    high: float
    value: float
    doubt: bool = False


@dataclass(frozen=True)
class Budget:
    """A gate as a line: ``x`` is a latency in ms not to be exceeded, ``y`` a value of the metric that is to be reached."""

    axis: Literal["x", "y"]
    value: float
    label: str


@dataclass(frozen=True)
class Panel:
    """A device in the Pareto chart."""

    device: str
    points: tuple[Point, ...]
    budgets: tuple[Budget, ...]


@dataclass(frozen=True)
class Step:
    """A row of the accuracy chart: a value in the metric's unit, and its difference from what it is compared with."""

    label: str
    value: float
    text: str
    change: Difference | None = None
    against: str = ""

    @property
    def delta(self) -> str:
        """The difference with its sign, without unit and interval."""
        return self.change.metric.change(self.change.change) if self.change else ""

    @property
    def interval(self) -> str:
        """The interval of the difference; empty where there is none."""
        return self.change.interval.strip() if self.change else ""

    @property
    def reference(self) -> float | None:
        """The value it is compared with, in the metric's unit."""
        return self.value - self.change.change * self.change.metric.factor if self.change else None


def shapes(formats: Iterable[str]) -> dict[str, Shape]:
    """Return a shape for each format, each its own as far as there are shapes."""
    others = sorted({*formats} - {*SHAPES})
    return SHAPES | {name: OTHER_SHAPES[number % len(OTHER_SHAPES)] for number, name in enumerate(others)}


def pareto(panels: Sequence[Panel], caption: str, metric: MetricWords) -> Chart:
    """Draw the metric over latency.

    Each device has a panel with a latency axis of its own, for devices differ by orders of magnitude; the other axis is one.
    """
    title = f"{capitalized(metric.name)} against latency"
    told = []
    for panel in panels:
        where = f"On {panel.device}: " if len(panels) > 1 else ""
        points = "; ".join(f"{p.label}: {_told(p.value, metric)} at {p.p50:.3g} ms" for p in panel.points)
        told.append(where + points + "".join(f"; budget {budget.label}" for budget in panel.budgets))
    drawn = (_panels(panels, metric, WIDE, 400), _panels(panels, metric, NARROW, 340))
    return chart("pareto", title, f"{'. '.join(told)}.", caption, *drawn)


def _panels(panels: Sequence[Panel], metric: MetricWords, width: int, height: int) -> Canvas:
    alone = len(panels) == 1
    across = 1 if alone or width == NARROW else 2
    gap, size = 24, (width - 24 * (across - 1)) / across
    height = height if alone else 300
    canvas = Canvas(width, height * -(-len(panels) // across))
    floors = [b.value for panel in panels for b in panel.budgets if b.axis == "y"]
    quality = padded([*(p.value for panel in panels for p in panel.points), *floors], 0.3, metric.room, metric.ceiling)
    for index, panel in enumerate(panels):
        left, top = index % across * (size + gap), index // across * height
        _pareto(canvas, panel, quality, metric, (left, top, left + size, top + height), "" if alone else panel.device)
    return canvas


def _pareto(
    canvas: Canvas,
    panel: Panel,
    quality: tuple[float, float],
    metric: MetricWords,
    box: tuple[float, float, float, float],
    device: str,
) -> None:
    points, budgets = panel.points, panel.budgets
    left, top, right, bottom = box
    slowest = max(max(p.high, p.p50) for p in points)
    # A budget far from all points would press them into a corner: it is then named at the edge instead.
    near = [b for b in budgets if b.axis == "x" and b.value <= 2.5 * slowest]
    x = Scale(0, max([slowest, *(b.value for b in near)]) * 1.12, left + 48, right - 12)
    y = Scale(*quality, bottom - 48, top + 30)
    _grid(canvas, x, y, 8 if right - left > WIDE / 2 else 4)
    canvas.text(left + 48, top + 16, capitalized(metric.axis_on("the test split")), "axis")
    canvas.text(right - 12, bottom - 8, "Latency p50, ms (lower is better)", "axis", "end")
    if device:
        canvas.text(right - 12, top + 16, shorten(device, 22), "name", "end")
    taken: list[tuple[float, float, float, float]] = []
    for budget in budgets:
        if budget.axis == "y":
            at = y(budget.value)
            below = metric.facts.better == "higher"  # what is outside of the budget
            canvas.rect(x.start, at if below else y.end, x.end - x.start, y.start - at if below else at - y.end, "out")
            canvas.line(x.start, at, x.end, at, "budget")
            _label(canvas, taken, x.end - 6, at + 15 if below else at - 6, budget.label, "note", "end")
        elif budget in near:
            canvas.rect(x(budget.value), y.end, x.end - x(budget.value), y.start - y.end, "out")
            canvas.line(x(budget.value), y.end, x(budget.value), y.start, "budget")
            late = x(budget.value) > left + (right - left) * 0.6
            place = x(budget.value) + (-6 if late else 6)
            _label(canvas, taken, place, y.end + 13, budget.label, "note", "end" if late else "start")
        else:
            _label(canvas, taken, x.end - 6, y.end + 13, f"{budget.label} →", "note", "end")
    frontier = _frontier(points, metric)
    corners = [(x(frontier[0].p50), y(frontier[0].value))]
    for before, after in pairwise(frontier):
        corners += [(x(after.p50), y(before.value)), (x(after.p50), y(after.value))]
    canvas.path(corners, "frontier")
    _markers(canvas, points, metric, (x, y), taken)


def _markers(
    canvas: Canvas,
    points: Sequence[Point],
    metric: MetricWords,
    scales: tuple[Scale, Scale],
    taken: list[tuple[float, float, float, float]],
) -> None:
    """Draw the points and their names, which keep clear of what is ``taken``."""
    x, y = scales
    places = [(x(p.p50), y(p.value)) for p in points]
    sizes = nested(places, [p.filled for p in points])
    taken += [(cx - size - 2.5, cy - size - 2.5, cx + size + 2.5, cy + size + 2.5)
              for (cx, cy), size in zip(places, sizes, strict=True)]  # fmt: skip
    for p in points:
        canvas.line(x(p.low), y(p.value), x(p.high), y(p.value), "whisker")
        for end in (p.low, p.high):
            canvas.line(x(end), y(p.value) - 4, x(end), y(p.value) + 4, "whisker")
    for p, size in sorted(zip(points, sizes, strict=True), key=lambda drawn: -drawn[1]):
        style = "dot" if p.filled else "dot hollow"
        hover = f"{p.label}: {p.p50:.3g} ms, {_told(p.value, metric)}"
        canvas.marker(p.shape, x(p.p50), y(p.value), style, size, hover)
    for p, size in sorted(zip(points, sizes, strict=True), key=lambda named: named[0].p50):
        _name(canvas, p, size - SIZE, scales, taken)


def nested(places: Sequence[tuple[float, float]], filled: Sequence[bool]) -> list[float]:
    """Return a size for each marker: of those that lie on each other, one is drawn around the other, hollow ones outside.

    Args:
        places: Of the markers, in pixels.
        filled: Whether each is filled.
    """
    order = sorted(range(len(places)), key=lambda i: not filled[i])
    sizes = [SIZE] * len(places)
    for at, i in enumerate(order):
        under = [sizes[j] for j in order[:at] if math.dist(places[i], places[j]) < 2 * SIZE]
        sizes[i] = max(under) + RING if under else SIZE
    return sizes


def _name(
    canvas: Canvas, p: Point, more: float, scales: tuple[Scale, Scale], taken: list[tuple[float, float, float, float]]
) -> None:
    """Write the name of a point where there is room; ``more``: pixels by which its marker is larger than others."""
    x, y = scales
    text = shorten(p.label, 30) + (" △" if p.doubt else "")
    cx, cy = x(p.p50), y(p.value)
    up, down = cy - more, cy + more
    places: tuple[tuple[float, float, Anchor], ...] = (
        (max(x(p.high), cx + more) + 10, cy + 4, "start"),
        (min(x(p.low), cx - more) - 10, cy + 4, "end"),
        (cx, up - 13, "middle"),
        (cx, down + 21, "middle"),
        (cx + 8, up - 22, "start"),
        (cx + 8, down + 32, "start"),
        (cx + 8, down + 21, "end"),
        (cx + 8, up - 13, "end"),
        *((cx, cy + side * (35 + 15 * line), anchor) for anchor in ANCHORS for line in range(FAR) for side in (1, -1)),
    )
    free = [place for place in places if _is_free(taken, _box(*place[:2], text, place[2]), x, y)]
    inside = [place for place in places if _is_free((), _box(*place[:2], text, place[2]), x, y)]
    at, base, anchor = (*free, *inside, *places)[0]
    if abs(base - cy) > 32 + more:
        canvas.line(cx, cy, cx, base - (12 if base > cy else -4), "leader s5")
    _label(canvas, taken, at, base, text, "name halo", anchor)


def _told(value: float, metric: MetricWords) -> str:
    return metric.measured(metric.plain(value / metric.factor))


def _frontier(points: Sequence[Point], metric: MetricWords) -> list[Point]:
    best: list[Point] = []
    for p in sorted(points, key=lambda p: (p.p50, -metric.gain(p.value, 0.0))):
        if not best or metric.gain(p.value, best[-1].value) > 0:
            best.append(p)
    return best


def _box(x: float, y: float, text: str, anchor: Anchor) -> tuple[float, float, float, float]:
    width = len(text) * CHAR + text.count("△") * CHAR  # the sign is as wide as two letters
    left = {"start": x, "middle": x - width / 2, "end": x - width}[anchor]
    return left, y - 11, left + width, y + 3


def _is_free(
    taken: Sequence[tuple[float, float, float, float]], box: tuple[float, float, float, float], x: Scale, y: Scale
) -> bool:
    inside = box[0] >= x.start and box[2] <= x.end and box[1] >= y.end and box[3] <= y.start
    return inside and not any(
        box[0] < other[2] and other[0] < box[2] and box[1] < other[3] and other[1] < box[3] for other in taken
    )


def _label(
    canvas: Canvas,
    taken: list[tuple[float, float, float, float]],
    x: float,
    y: float,
    text: str,
    style: str,
    anchor: Anchor,
) -> None:
    taken.append(_box(x, y, text, anchor))
    canvas.text(x, y, text, style, anchor)


def _grid(canvas: Canvas, x: Scale, y: Scale, about: int) -> None:
    step = nice_step(y.high - y.low, 5)
    for tick in y.ticks(5):
        canvas.line(x.start, y(tick), x.end, y(tick), "grid")
        canvas.text(x.start - 8, y(tick) + 4, tick_text(tick, step), "tick", "end")
    step = nice_step(x.high - x.low, about)
    for tick in x.ticks(about):
        canvas.line(x(tick), y.start, x(tick), y.start + 4, "grid")
        canvas.text(x(tick), y.start + 18, tick_text(tick, step), "tick", "middle")
    canvas.line(x.start, y.start, x.end, y.start, "base")


def metric_steps(steps: Sequence[Step], caption: str, metric: MetricWords) -> Chart:
    """Draw the metric of each state of the model as a row, with a bar from the state it is compared with."""
    title = f"Where {metric.name} went"
    told = "; ".join(
        f"{s.label} {metric.measured(s.text)}" + (f" ({_changed(s.change)} against {s.against})" if s.change else "")
        for s in steps
    )
    drawn = (_steps(steps, metric, WIDE), _steps(steps, metric, NARROW))
    return chart("steps", title, f"{told}.", caption, *drawn)


def _changed(change: Difference) -> str:
    if not change.shown:
        return change.open
    return f"{change.metric.change(change.change)} {change.metric.change_unit}".rstrip() + change.interval


def _steps(steps: Sequence[Step], metric: MetricWords, width: int) -> Canvas:
    narrow = width == NARROW
    height, top = (58, 30) if narrow else (42, 34)
    canvas = Canvas(width, top + height * len(steps) + 26)
    values = [value for s in steps for value in (s.value, s.reference) if value is not None]
    reach = max(56.0, 12 + CHAR * max(max(len(step.delta), len(step.interval)) for step in steps))
    column = width - (6 if narrow else 202) - reach
    x = Scale(*padded(values, 0.12, metric.room, metric.ceiling), 8 if narrow else 190, column - (56 if narrow else 72))
    bottom = top + height * len(steps)
    about = 3 if narrow else 6
    for tick in x.ticks(about):
        canvas.line(x(tick), top - 6, x(tick), bottom, "grid")
        canvas.text(x(tick), bottom + 16, tick_text(tick, nice_step(x.high - x.low, about)), "tick", "middle")
    canvas.text(column, 14, metric.axis, "axis", "end")
    canvas.text(column + reach, 14, metric.change_unit, "axis", "end")
    if not narrow:
        canvas.text(column + reach + 16, 14, "against", "axis")
    for index, step in enumerate(steps):
        middle = top + index * height + height * (0.68 if narrow else 0.5)
        name = shorten(step.label, 32 if narrow else 26)
        if narrow:
            canvas.text(8, middle - 15, name, "name")
        else:
            canvas.text(174, middle + 4, name, "name", "end")
        kind = {"good": " gain", "bad": " loss"}.get(step.change.tone if step.change else "", "")
        if step.reference is not None:
            low, high = sorted((x(step.value), x(step.reference)))
            canvas.rect(low, middle - 4, high - low, 8, f"bar{kind}")
            canvas.line(x(step.reference), middle - 9, x(step.reference), middle + 9, "mark")
        canvas.marker("circle", x(step.value), middle, "dot")
        canvas.text(column, middle + 4, step.text, "figure", "end")
        beside = middle + (4 if narrow or not step.interval else -3)
        canvas.text(column + reach, beside, step.delta, f"figure{kind}" if kind else "note", "end")
        if step.interval:
            canvas.text(column + reach, beside + 15, step.interval, "note", "end")
        if not narrow:
            canvas.text(column + reach + 16, middle + 4, shorten(step.against, 28), "note")
    return canvas
