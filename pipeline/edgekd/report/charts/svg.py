"""A small drawing kit for inline SVG: a canvas with classes instead of colours, and scales with round ticks.

Colours, fonts and dashes are in ``page.css``, so one drawing serves light, dark and print. All text is escaped here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from markupsafe import Markup, escape

from edgekd.report.page import Chart
from edgekd.report.words import plain

WIDE, NARROW = 960, 360
"""Widths in CSS pixels that every chart is drawn in: a screen and a phone; text keeps its size in both."""

CHAR = 7.4
"""Width of an average character of the 12-pixel label font, rather too wide than too narrow."""

Anchor = Literal["start", "middle", "end"]
Shape = Literal["circle", "square", "diamond", "triangle", "pentagon", "hexagon", "wedge"]


@dataclass(frozen=True)
class Scale:
    """A linear map from values to pixels."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:  # noqa: D102  # what it does is the class
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self, about: int) -> tuple[float, ...]:
        """Round values inside the scale, ``about`` so many."""
        step = nice_step(self.high - self.low, about)
        first = math.ceil(self.low / step - 1e-9)
        return tuple(round((first + i) * step, 10) for i in range(int((self.high - first * step) / step + 1e-9) + 1))


def nice_step(span: float, about: int) -> float:
    """The step of 1, 2 or 5 times a power of ten that cuts ``span`` into about so many parts."""
    raw = span / max(1, about)
    power = 10.0 ** math.floor(math.log10(raw))
    return next(power * factor for factor in (1.0, 2.0, 5.0, 10.0) if power * factor >= raw * 0.999)


def padded(values: Iterable[float], share: float, least: float, ceiling: float = math.inf) -> tuple[float, float]:
    """Bounds around values with room at both sides; never empty, so that equal values can be drawn too."""
    known = list(values)
    low, high = min(known), max(known)
    room = max((high - low) * share, least)
    return low - room, max(min(high + room, ceiling), high)


def tick_text(value: float, step: float) -> str:
    """Write a tick with the decimals its step needs."""
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    return f"{value:,.{decimals}f}".replace("-", "−")


_CORNERS: dict[Shape, tuple[float, tuple[tuple[float, float], ...]]] = {
    "square": (0.92, ((-1, -1), (1, -1), (1, 1), (-1, 1))),
    "diamond": (1.3, ((0, -1), (1, 0), (0, 1), (-1, 0))),
    "triangle": (1.15, ((0, -1), (1, 0.8), (-1, 0.8))),
    "pentagon": (1.15, ((0, -1), (0.95, -0.31), (0.59, 0.81), (-0.59, 0.81), (-0.95, -0.31))),
    "hexagon": (1.15, ((-0.5, -0.87), (0.5, -0.87), (1, 0), (0.5, 0.87), (-0.5, 0.87), (-1, 0))),
    "wedge": (1.15, ((0, 1), (1, -0.8), (-1, -0.8))),
}
"""Size beside that of a circle and corners of each shape."""


@dataclass
class Canvas:
    """Collects shapes; ``svg`` closes it. Coordinates are pixels, classes are those of ``page.css``."""

    width: float
    height: float
    parts: list[str] = field(default_factory=list)

    def line(self, x1: float, y1: float, x2: float, y2: float, style: str) -> None:
        """Draw a straight line."""
        self.parts.append(f'<line x1="{_n(x1)}" y1="{_n(y1)}" x2="{_n(x2)}" y2="{_n(y2)}" class="{style}"/>')

    def path(self, dots: Sequence[tuple[float, float]], style: str) -> None:
        """Draw a line through points."""
        text = " ".join(f"{_n(x)},{_n(y)}" for x, y in dots)
        self.parts.append(f'<polyline points="{text}" class="{style}"/>')

    def rect(self, x: float, y: float, width: float, height: float, style: str, radius: float = 0) -> None:
        """Draw a rectangle."""
        self.parts.append(
            f'<rect x="{_n(x)}" y="{_n(y)}" width="{_n(max(0.0, width))}" height="{_n(max(0.0, height))}"'
            f'{f" rx={chr(34)}{_n(radius)}{chr(34)}" if radius else ""} class="{style}"/>'
        )

    def text(self, x: float, y: float, text: str, style: str = "", anchor: Anchor = "start") -> None:
        """Write text with its baseline at ``y``."""
        where = "" if anchor == "start" else f' text-anchor="{anchor}"'
        kind = f' class="{style}"' if style else ""
        self.parts.append(f'<text x="{_n(x)}" y="{_n(y)}"{where}{kind}>{escape(plain(text))}</text>')

    def marker(self, shape: Shape, x: float, y: float, style: str, size: float = 5.5, hover: str = "") -> None:
        """Draw a point; ``hover`` is shown by browsers under the mouse and read by nobody else."""
        title = f"<title>{escape(plain(hover))}</title>" if hover else ""
        if shape == "circle":
            head, tail = f'<circle cx="{_n(x)}" cy="{_n(y)}" r="{_n(size)}"', "circle"
        else:
            reach, corners = _CORNERS[shape]
            reach *= size
            text = " ".join(f"{_n(x + dx * reach)},{_n(y + dy * reach)}" for dx, dy in corners)
            head, tail = f'<polygon points="{text}"', "polygon"
        self.parts.append(f'{head} class="{style}">{title}</{tail}>')

    def svg(self, name: str, title: str, description: str) -> Markup:
        """Close the drawing as an image with a title and a description; ``name`` must be unique in the page."""
        return Markup(
            f'<svg viewBox="0 0 {_n(self.width)} {_n(self.height)}" '
            f'role="img" aria-labelledby="{name}-t {name}-d"><title id="{name}-t">{escape(plain(title))}</title>'
            f'<desc id="{name}-d">{escape(plain(description))}</desc>{"".join(self.parts)}</svg>'
        )


def _n(value: float) -> str:
    """One decimal is a tenth of a pixel; more would only make the file bigger."""
    text = f"{value:.1f}".removesuffix(".0")
    return "0" if text == "-0" else text


def spread(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Move positions apart until they are ``gap`` from each other, as little as needed, inside ``low`` to ``high``."""
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    placed = list(wanted)
    at = low - gap
    for i in order:
        at = placed[i] = max(placed[i], at + gap)
    at = high + gap
    for i in reversed(order):
        at = placed[i] = min(placed[i], at - gap)
    return placed


def chart(name: str, title: str, told: str, caption: str, wide: Canvas, narrow: Canvas, *, stamp: str = "") -> Chart:
    """Close the two drawings of a chart; ``name`` must be unique in the page, ``stamp`` is written across both."""
    told = f"{stamp}: {told}" if stamp else told
    for canvas in (wide, narrow):
        if stamp:
            behind = Canvas(canvas.width, canvas.height)
            behind.text(canvas.width / 2, canvas.height / 2 + 12, stamp, "watermark", "middle")
            canvas.parts[:0] = behind.parts
    drawn = wide.svg(f"{name}-w", title, told), narrow.svg(f"{name}-n", title, told)
    return Chart(title, *drawn, told, caption)
