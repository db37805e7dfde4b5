"""The page model: a report as blocks of finished text, which any layout (HTML, Markdown, terminal) can set.

Nothing here is a number any more, and nothing here is escaped yet, save for the charts: they are SVG.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import compress
from typing import ClassVar, Literal

from markupsafe import Markup

from edgekd.report.words import NONE, NOT_MEASURED

Tone = Literal["", "good", "bad", "warn", "muted"]

MARKS: dict[Tone, str] = {"good": "✓", "bad": "✕", "warn": "△", "muted": "", "": ""}
"""The sign that goes with a tone, so that colour is never alone."""


@dataclass(frozen=True)
class Cell:
    """One figure or word.

    ``mark`` says whether the tone's sign is shown; ``note`` stands below in small; ``stamp`` is a word that belongs to the
    figure in every layout, such as ``EMULATED``.
    """

    text: str
    tone: Tone = ""
    note: str = ""
    mark: bool = False
    stamp: str = ""

    @property
    def sign(self) -> str:
        """The tone's sign, where it is shown."""
        return MARKS[self.tone] if self.mark else ""


def figure(text: str | None, note: str = "", tone: Tone = "") -> Cell:
    """A measured figure, or the words that say it was not measured."""
    return Cell(NOT_MEASURED, "muted") if text is None else Cell(text, tone, note)


def stamped(block: Block, stamp: str) -> Block:
    """Return a table with ``stamp`` behind every figure, also inside a fold; other blocks as they are."""
    if isinstance(block, Fold):
        return replace(block, blocks=tuple(stamped(part, stamp) for part in block.blocks))
    if not isinstance(block, Table):
        return block
    numbers = [column.kind == "number" and not column.stays for column in block.columns]
    rows = tuple(
        tuple(
            replace(cell, stamp=stamp) if number and cell.text not in (NONE, NOT_MEASURED) else cell
            for cell, number in zip(row, numbers, strict=True)
        )
        for row in block.rows
    )
    return replace(block, rows=rows)


NOT_APPLICABLE = Cell(NONE, "muted")


@dataclass(frozen=True)
class Column:
    """A header with its unit; ``stays``: its figures are no device's and are never stamped."""

    label: str
    unit: str = ""
    kind: Literal["text", "number", "code"] = "text"
    stays: bool = False


@dataclass(frozen=True)
class Table:
    """Rows under headers; the first cell of a row names it."""

    kind: ClassVar[str] = "table"
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""


def filled(table: Table) -> Table:
    """Return a table without the columns in which nothing applies to any row."""
    keep = [not at or not table.rows or any(row[at].text != NONE for row in table.rows) for at in range(len(table.columns))]
    rows = tuple(tuple(compress(row, keep)) for row in table.rows)
    return replace(table, columns=tuple(compress(table.columns, keep)), rows=rows)


@dataclass(frozen=True)
class Chart:
    """A drawing in two widths, for a screen and a phone; ``told`` says what it shows to those who do not see it."""

    kind: ClassVar[str] = "chart"
    title: str
    wide: Markup
    narrow: Markup
    told: str
    caption: str


@dataclass(frozen=True)
class Image:
    """A small picture: its file in base64; ``caption`` says what it shows."""

    kind: ClassVar[str] = "image"
    media_type: str
    data: str
    caption: str


@dataclass(frozen=True)
class Bullets:
    """Sentences."""

    kind: ClassVar[str] = "bullets"
    items: tuple[str, ...]
    title: str = ""


@dataclass(frozen=True)
class Facts:
    """Labels and values; with a tone, a notice."""

    kind: ClassVar[str] = "facts"
    pairs: tuple[tuple[str, str], ...]
    title: str = ""
    tone: Tone = ""

    @property
    def sign(self) -> str:
        """The tone's sign."""
        return MARKS[self.tone]


@dataclass(frozen=True)
class Code:
    """Text to copy as it is."""

    kind: ClassVar[str] = "code"
    label: str
    text: str
    language: str = ""


@dataclass(frozen=True)
class Fold:
    """Blocks behind a line that opens."""

    kind: ClassVar[str] = "fold"
    summary: str
    blocks: tuple[Block, ...]
    note: str = ""


Block = Table | Chart | Image | Bullets | Facts | Code | Fold


@dataclass(frozen=True)
class Section:
    """A chapter. One without data says so in ``missing``, which is then listed under what was not measured."""

    id: str
    title: str
    blocks: tuple[Block, ...] = ()
    lead: str = ""
    missing: str = ""


@dataclass(frozen=True)
class Number:
    """One of the four figures at the top; ``flag`` is a warning that belongs to it."""

    label: str
    unit: str
    value: str
    delta: str
    tone: Tone
    detail: str
    flag: str = ""

    @property
    def measured(self) -> bool:
        """True if there is a figure; its unit is left out otherwise."""
        return self.value != NOT_MEASURED


@dataclass(frozen=True)
class Verdict:
    """The answer.

    Attributes:
        tone: ``good`` for a pass, ``warn`` where a figure is in doubt and the exit code is 0, ``bad`` otherwise.
        word: In one word.
        sentence: In one sentence.
        failures: Every gate that did not pass, where int8 loses, and what to do.
        gates: All gates.
        cautions: Gates at level ``warn`` that did not pass.
    """

    tone: Tone
    word: str
    sentence: str
    failures: tuple[str, ...]
    gates: Table | None
    cautions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Page:
    """A report.

    Attributes:
        name: Name of the recipe.
        story: What was made from what, in a sentence.
        meta: Run, date, version: label and value.
        subject: Which artifact the four numbers are of, and against which.
    """

    name: str
    story: str
    meta: tuple[tuple[str, str], ...]
    verdict: Verdict
    subject: str
    numbers: tuple[Number, ...]
    sections: tuple[Section, ...]

    def section(self, name: str) -> Section:
        """Return the section with the id ``name``."""
        return next(section for section in self.sections if section.id == name)
