"""A metric for a reader: its name, its unit, values and changes."""

from __future__ import annotations

import math
from dataclasses import dataclass

from edgekd.report.words import percent, points, sig, signed
from edgekd.results.models import MetricFacts, Of


@dataclass(frozen=True)
class MetricWords:
    """The words of a metric.

    Attributes:
        facts: What run.json says of it.
        of: What outputs were held against.
    """

    facts: MetricFacts
    of: Of = "labels"

    @property
    def name(self) -> str:
        """Its name in a sentence: ``top-1``, or ``agreement`` where a teacher stands in for labels."""
        return "agreement" if self.of == "teacher" else self.facts.label

    @property
    def title(self) -> str:
        """Its name at the head of a table."""
        return "Agreement with the teacher" if self.of == "teacher" else capitalized(self.facts.label)

    @property
    def share(self) -> bool:
        """True if it is a share, written in percent."""
        return self.facts.unit == "%"

    @property
    def unit(self) -> str:
        """Unit of a value; empty for none."""
        return self.facts.unit

    @property
    def change_unit(self) -> str:
        """Unit of a difference of two values."""
        return "points" if self.share else self.facts.unit

    @property
    def factor(self) -> float:
        """Factor from run.json's number to the unit."""
        return 100.0 if self.share else 1.0

    @property
    def ceiling(self) -> float:
        """The largest value there is, in its unit."""
        return 100.0 if self.share else math.inf

    @property
    def axis(self) -> str:
        """Its name and unit at an axis, and which way is better where that is down."""
        return self.axis_on("")

    @property
    def room(self) -> float:
        """The least room around values in a drawing, in its unit."""
        return 0.5 if self.share else 1e-9

    def axis_on(self, what: str) -> str:
        """Its name, what it is measured on, and its unit at an axis."""
        name = f"{self.name} on {what}" if what else self.name
        lower = " (lower is better)" if self.facts.better == "lower" else ""
        return f"{name}, {self.unit}{lower}" if self.unit else f"{name}{lower}"

    def value(self, value: float) -> str:
        """Write a value, without its unit."""
        return percent(value) if self.share else sig(value)

    def told(self, value: float) -> str:
        """Write a value with its unit."""
        return self.measured(self.value(value))

    def measured(self, text: str) -> str:
        """Add the unit to a value that is written."""
        return f"{text} {self.unit}".rstrip()

    def change(self, change: float) -> str:
        """Write a difference with its sign, without its unit."""
        return points(change) if self.share else signed(change)

    def size(self, change: float) -> str:
        """Write the size of a difference, without sign and unit."""
        return self.change(abs(change)).lstrip("+")

    def plain(self, value: float) -> str:
        """Write a value for a drawing: one decimal of a percentage."""
        return f"{100 * value:.1f}" if self.share else sig(value)

    def fine(self, value: float) -> str:
        """Write a value over seeds: two decimals of a percentage."""
        return f"{100 * value:.2f}" if self.share else sig(value)

    def gain(self, value: float, reference: float) -> float:
        """Return by how much a value is better than another; negative where it is worse."""
        return self.facts.gain(value, reference)


def capitalized(text: str) -> str:
    """Return a text with a capital letter at its beginning."""
    return f"{text[:1].upper()}{text[1:]}"
