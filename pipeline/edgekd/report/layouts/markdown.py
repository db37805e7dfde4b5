"""The report as Markdown, for pull requests and CI summaries: the page without its drawings."""

from __future__ import annotations

import re
from html import escape as html_escape

from edgekd.report.page import MARKS, Block, Bullets, Cell, Chart, Code, Facts, Image, Page, Section, Table
from edgekd.report.view import build
from edgekd.report.words import plain
from edgekd.results.run import RunResult

_SPECIAL = re.compile(r"([\\`*\[\]|#~$])|(?<!\w)(_)|(_)(?!\w)")


def render(result: RunResult) -> str:
    """Return the report of a run as GitHub-flavoured Markdown.

    Example:
        >>> from edgekd.results.run import read_run
        >>> text = render(read_run(Path("reports/mobilenet/latest")))  # doctest: +SKIP
    """
    return document(build(result))


def document(page: Page) -> str:
    """Return a page as GitHub-flavoured Markdown."""
    parts = [*_head(page), *(text for section in page.sections for text in _section(section))]
    return "\n\n".join(parts) + "\n"


def escape(text: str) -> str:
    r"""Return text that Markdown and HTML leave as it is; underscores inside words need no escape.

    Example:
        >>> escape("a|b <i> snake_case *x*")
        'a\\|b &lt;i&gt; snake_case \\*x\\*'
    """
    return html_escape(_SPECIAL.sub(r"\\\g<0>", plain(text)), quote=False)


def code(text: str) -> str:
    """Return text as inline code, in fences longer than any inside it."""
    fence = _fence(text, 1)
    inside = f" {text} " if text.startswith("`") or text.endswith("`") else text
    return f"{fence}{inside}{fence}"


def block_code(text: str, language: str = "") -> str:
    """Return text as a block of code, in fences longer than any inside it."""
    fence = _fence(text, 3)
    return f"{fence}{language}\n{text}\n{fence}"


def table(block: Table) -> str:
    """Return a table; units stand in the header, small notes after the figure."""
    heads = [escape(f"{column.label}, {column.unit}" if column.unit else column.label) for column in block.columns]
    rules = ["---:" if column.kind == "number" else "---" for column in block.columns]
    rows = [
        [_cell(cell, column.kind == "code") for cell, column in zip(row, block.columns, strict=True)] for row in block.rows
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in (heads, rules, *rows))


def _cell(cell: Cell, is_code: bool) -> str:
    # A pipe ends a cell even inside code.
    text = code(cell.text).replace("|", "\\|") if is_code else escape(cell.text)
    text = f"{cell.sign} {text}" if cell.sign else text
    text = f"{text} {cell.stamp}" if cell.stamp else text
    return f"{text} ({escape(cell.note)})" if cell.note else text


def _fence(text: str, least: int) -> str:
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    return "`" * max(least, longest + 1)


def _head(page: Page) -> list[str]:
    verdict = page.verdict
    sign = MARKS[verdict.tone]
    parts = [
        f"# {sign} {verdict.word}: {escape(page.name)}",
        escape(page.story),
        " · ".join(f"{label} {escape(value)}" for label, value in page.meta),
        f"**{escape(verdict.sentence)}**",
    ]
    if verdict.failures:
        parts.append("\n".join(f"- {escape(failure)}" for failure in verdict.failures))
    if verdict.cautions:
        parts.append("\n".join(f"- {MARKS['warn']} Caution: {escape(caution)}" for caution in verdict.cautions))
    if verdict.gates:
        parts += [table(verdict.gates), escape(verdict.gates.note)]
    if not page.numbers:
        return parts
    rows = ["| Figure | Value | Change | How |", "| --- | ---: | --- | --- |"]
    for number in page.numbers:
        flag = f" (△ {number.flag})" if number.flag else ""
        value = f"{number.value} {number.unit}".strip()
        rows.append(f"| {number.label} | {value} | {escape(number.delta) or '—'}{flag} | {escape(number.detail)} |")
    title = "Four numbers" if len(page.numbers) == 4 else "In numbers"
    return [*parts, f"## {title}", escape(page.subject), "\n".join(rows)]


def _section(section: Section) -> list[str]:
    parts = [f"## {section.title}"]
    parts += [escape(text) for text in (section.lead, section.missing) if text]
    return [*parts, *(text for block in section.blocks for text in _block(block, section.title))]


def _block(block: Block, title: str) -> list[str]:
    if isinstance(block, Table):
        head = [f"**{escape(block.caption)}**"] if block.caption != title else []
        return [*head, table(block), *([escape(block.note)] if block.note else [])]
    if isinstance(block, Chart):
        head = [f"**{escape(block.title)}**"] if block.title != title else []
        return [*head, escape(block.told)]
    if isinstance(block, Image):
        return [f"{escape(block.caption)} The picture is in report.html."]
    if isinstance(block, Bullets):
        head = [f"**{escape(block.title)}**"] if block.title else []
        return [*head, "\n".join(f"- {escape(item)}" for item in block.items)]
    if isinstance(block, Facts):
        sign = f"{block.sign} " if block.sign else ""
        head = [f"**{sign}{escape(block.title)}**"] if block.title else []
        return [*head, "\n".join(f"- {escape(label)}: {escape(value)}" for label, value in block.pairs)]
    if isinstance(block, Code):
        return [escape(block.label) + ":", block_code(block.text, block.language)]
    inside = [text for part in block.blocks for text in _block(part, title)]
    return [f"<details>\n<summary>{html_escape(plain(block.summary))}</summary>", *inside, "</details>"]
