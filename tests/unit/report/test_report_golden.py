"""Exact texts. After a change that is meant: ``EDGEKD_UPDATE_GOLDEN=1 pytest tests/unit/report``, then read the diff."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from rich.console import Console
from tests.unit.report import sample

from edgekd.report.layouts import card, markdown, terminal
from edgekd.results.run import RunResult

GOLDEN = Path(__file__).parents[2] / "golden"


def summary(result: RunResult, **options: object) -> str:
    console = Console(file=io.StringIO(), width=80, **options)  # type: ignore[arg-type]
    terminal.show(result, console)
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


CASES = {
    "report.md": (markdown.render, sample.good),
    "report_bad.md": (markdown.render, sample.bad),
    "report_card.md": (card.render, sample.good),
    "report_card_bad.md": (card.render, sample.bad),
    "report_terminal.md": (lambda result: f"```\n{summary(result)}```\n", sample.good),
}


@pytest.mark.parametrize("name", CASES)
def test_golden(name: str) -> None:
    render, make = CASES[name]
    text = render(make())
    path = GOLDEN / name
    if os.environ.get("EDGEKD_UPDATE_GOLDEN"):
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


@pytest.mark.parametrize("render", [markdown.render, card.render])
@pytest.mark.parametrize("make", [sample.good, sample.bad, sample.empty])
def test_markdown_holds_no_foreign_markup(render: Callable[[RunResult], str], make: Callable[[], RunResult]) -> None:
    text = render(make())
    outside, inside = [], False
    fence = ""
    for line in text.split("---\n", 2)[-1].splitlines():
        if line.startswith("```") and (not inside or (line.strip("`") == "" and len(line) >= len(fence))):
            fence = line[: len(line) - len(line.lstrip("`"))] if not inside else ""
            inside = not inside
        elif not inside:
            outside.append(line)
    prose = "\n".join(line for line in outside if "`" not in line)
    assert "<script" not in prose
    tables = [line for line in outside if line.startswith("| ")]
    assert all(len(line.replace("\\|", "").split("|")) > 2 for line in tables)
    text.encode()


def test_every_table_row_has_as_many_cells_as_its_header() -> None:
    width = 0
    for line in markdown.render(sample.bad()).splitlines():
        cells = len(line.replace("\\|", "").split("|")) if line.startswith("| ") else 0
        assert not (width and cells) or cells == width, line
        width = cells


def test_escapes() -> None:
    assert markdown.escape("a|b <i> snake_case *x* _y_") == "a\\|b &lt;i&gt; snake_case \\*x\\* \\_y\\_"
    assert markdown.code("a`b") == "``a`b``"
    assert markdown.code("`a`") == "`` `a` ``"
    assert markdown.block_code("```\nx", "sh") == "````sh\n```\nx\n````"


def test_the_card_starts_with_metadata_a_hub_can_read() -> None:
    head = yaml.safe_load(card.render(sample.good()).split("---\n")[1])
    assert head["pipeline_tag"] == "image-classification"
    metric = head["model-index"][0]["results"][0]["metrics"][0]
    assert metric == {"type": "accuracy", "name": "top-1, OpenVINO int8", "value": 0.912}
    assert "license" not in head  # a run does not know it


def test_the_card_of_an_empty_run_leaves_out_what_it_does_not_know() -> None:
    text = card.render(sample.empty())
    titles = [line for line in text.splitlines() if line.startswith("## ")]
    assert titles == ["## Data", "## Training", "## Reproduce"] or titles == ["## Data", "## Reproduce"]
    assert "model-index" not in text
    assert "More Information" not in text


def test_a_pipe_gets_whole_plain_lines() -> None:
    text = summary(sample.bad())
    assert "\x1b" not in text
    assert "[bold]" not in text or "[bold]x[/bold]" in text
    assert any(line.startswith("✕ FAIL") and line.endswith("1 could not be trusted.") for line in text.splitlines())
    assert not any(line != line.rstrip() for line in text.splitlines())


def test_a_terminal_gets_colour_and_the_same_words() -> None:
    text = summary(sample.good(), force_terminal=True, color_system="standard")
    assert "\x1b[1;32m✓ PASS" in text
    assert "2.90× smaller" in text
