"""The summary that ``edgekd run`` prints: verdict, gates, four numbers and models, in one screenful."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from edgekd.report.page import MARKS, Bullets, Cell, Column, Page, Table, Tone
from edgekd.report.view import build
from edgekd.results.run import RunResult

_STYLES: dict[Tone, str] = {"good": "green", "bad": "bold red", "warn": "yellow", "muted": "dim", "": ""}
_TITLES = {"not-measured": "Not measured"}
_LEFT_OUT = ("Against ", "p90", "Parameters", "MACs")
"""Columns of the table of models that a terminal has no room for."""


def show(result: RunResult, console: Console) -> None:
    """Print the summary of a run: in colour on a terminal, as aligned plain lines into a file or a pipe.

    Example:
        >>> from edgekd.results.run import read_run
        >>> show(read_run(Path("reports/mobilenet/latest")), Console())  # doctest: +SKIP
    """
    page = build(result)
    if result.kind == "profile":
        show_tables(page, "models", console)
        for name in ("comparison", "findings", "not-measured"):
            _section(console, page, name)
        return
    _print(console, _verdict(page))
    _failures(console, page)
    if page.verdict.gates:
        _print(console, Text())
        _table(console, page.verdict.gates)
        _print(console, Text(page.verdict.gates.note, style="dim"))
    _print(console, Text())
    _print(console, Text(page.subject))
    _table(console, _numbers(page))
    for name in ("models", "seeds", "devices", "comparison", "not-measured"):
        _section(console, page, name)


def _section(console: Console, page: Page, name: str) -> None:
    """Print the tables and lists of a section, if the page has it."""
    for section in page.sections:
        for block in section.blocks if section.id == name else ():
            if isinstance(block, Table):
                _print(console, Text("" if page.numbers else f"\n{block.caption}"))
                _table(console, _narrowed(block) if name == "models" and page.numbers else block)
            elif isinstance(block, Bullets):
                _print(console, Text(f"\n{block.title or _TITLES.get(name, section.title)}:"))
                for item in block.items:
                    _print(console, Text(f"  - {item}"))


def show_tables(page: Page, section: str, console: Console) -> None:
    """Print the verdict of a page, what failed, and the tables of one section."""
    _print(console, _verdict(page))
    _failures(console, page)
    _section(console, page, section)


def _print(console: Console, text: Text) -> None:
    # Soft wrap: a pipe or a log gets whole lines, whatever width rich believes it has.
    console.print(text, soft_wrap=True, highlight=False)


def _failures(console: Console, page: Page) -> None:
    for failure in page.verdict.failures:
        _print(console, Text(f"  {MARKS[page.verdict.tone]} {failure}"))
    for caution in page.verdict.cautions:
        _print(console, Text(f"  {MARKS['warn']} Caution: {caution}"))


def _verdict(page: Page) -> Text:
    sign, style = MARKS[page.verdict.tone], f"bold {_STYLES[page.verdict.tone].removeprefix('bold ')}"
    return Text.assemble((f"{sign} {page.verdict.word.upper()}", style), f"  {page.name}  {page.verdict.sentence}")


def _numbers(page: Page) -> Table:
    rows = tuple(
        (
            Cell(number.label),
            Cell(number.value, "" if number.measured else "muted"),
            Cell(number.unit),
            Cell(f"{number.delta} (△ {number.flag})".strip() if number.flag else number.delta, number.tone),
        )
        for number in page.numbers
    )
    return Table("Numbers", (Column("Figure"), Column("Value", "", "number"), Column("Unit"), Column("Change")), rows)


def _narrowed(table: Table) -> Table:
    keep = [i for i, column in enumerate(table.columns) if not column.label.startswith(_LEFT_OUT)]
    columns = tuple(table.columns[i] for i in keep)
    return Table(table.caption, columns, tuple(tuple(row[i] for i in keep) for row in table.rows))


def _heads(columns: Sequence[Column]) -> list[str]:
    return [f"{column.label}, {column.unit}" if column.unit else column.label for column in columns]


def _text(cell: Cell) -> str:
    return " ".join(part for part in (cell.sign, cell.text, cell.stamp) if part)


def _table(console: Console, table: Table) -> None:
    if not console.is_terminal:
        _plain(console, table)
        return
    drawn = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, header_style="dim")
    for head, column in zip(_heads(table.columns), table.columns, strict=True):
        drawn.add_column(Text(head), justify="right" if column.kind == "number" else "left")
    for row in table.rows:
        drawn.add_row(*(Text(_text(cell), _STYLES[cell.tone]) for cell in row))
    console.print(drawn)


def _plain(console: Console, table: Table) -> None:
    lines = [_heads(table.columns), *([_text(cell) for cell in row] for row in table.rows)]
    widths = [max(cell_len(line[i]) for line in lines) for i in range(len(table.columns))]
    for line in lines:
        padded = []
        for text, width, column in zip(line, widths, table.columns, strict=True):
            gap = " " * (width - cell_len(text))
            padded.append(gap + text if column.kind == "number" else text + gap)
        _print(console, Text("  ".join(padded).rstrip()))
