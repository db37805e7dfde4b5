"""The pages in docs/ do not rot: generated parts are up to date, links lead somewhere, named files and classes exist."""

from __future__ import annotations

import importlib
import re
import shlex
from pathlib import Path
from typing import get_args

import click
import pytest
from tests.scripts import benchmark

from edgekd.cli import cli
from edgekd.results.gates import Verdict

ROOT = Path(__file__).parents[3]
PACKAGE = ROOT / "pipeline" / "edgekd"
OF_THE_USER = {"a/net.py", "b/net.py"}  # example names in docs/cache.md
PAGES = sorted(
    [*(ROOT / "docs").glob("*.md"), ROOT / "README.md", ROOT / "recipes" / "README.md", ROOT / "devices" / "README.md"]
)


def anchors(page: Path) -> set[str]:
    """Anchors of the headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
    plain = (re.sub(r"[^\w\- ]", "", re.sub(r"\[(.+?)\]\(.+?\)", r"\1", heading).lower()) for heading in headings)
    return {text.replace(" ", "-") for text in plain}


@pytest.mark.parametrize("script", ["pages", "recipe_page"])
def test_the_generated_parts_are_up_to_date(script: str) -> None:
    for path, text in benchmark(script).rendered().items():
        assert path.read_text("utf-8") == text, f"{path.name} is out of date: python benchmarks/{script}.py"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    links = [
        link for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8")) if not link.startswith(("http:", "https:"))
    ]
    for link in links:
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_of_a_page_is_one(page: Path) -> None:
    text = page.read_text("utf-8")
    code = [
        *re.findall(r"```(?:sh|bash)\n(.*?)```", text, re.DOTALL),
        *re.findall(r"^    (.+)$", text, re.MULTILINE),
        *re.findall(r"`(edgekd [^`]+)`", text),
    ]
    for line in re.findall(r"^edgekd ([a-z].*)$", "\n".join(code), re.MULTILINE):
        words = shlex.split(line, comments=True)
        command = cli.commands[words[0]]
        if isinstance(command, click.Group) and words[1:2] and words[1] in command.commands:
            command = command.commands[words[1]]
        options = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= {*options, "--help"}, line


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_source_file_that_a_page_names_exists(page: Path) -> None:
    roots = {path.name for path in (*PACKAGE.iterdir(), *ROOT.iterdir()) if path.is_dir()}
    for name in re.findall(r"`([\w./]+/[\w.]*\.?py)`", page.read_text("utf-8")):
        if name in OF_THE_USER:
            continue
        if name.split("/")[0] in roots:
            assert (ROOT / name).exists() or (PACKAGE / name).exists(), name
        else:
            assert any(PACKAGE.rglob(name)), name


def test_the_architecture_is_one_page_whose_words_are_those_of_the_code() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    assert len(text.splitlines()) <= 140
    names = re.findall(r"^\| .+ \| `([\w.]+)` \|$", text, re.MULTILINE)
    assert len(names) > 10
    for name in names:
        module, _, member = f"edgekd.{name}".rpartition(".")
        if not hasattr(importlib.import_module(module), member):
            importlib.import_module(f"{module}.{member}")


def test_reading_a_report_has_every_section_and_every_verdict() -> None:
    page = (ROOT / "docs" / "report.md").read_text("utf-8")
    explained = set(re.findall(r"^## (.+)$", page, re.MULTILINE))
    for name in ("report.md", "report_bad.md"):
        report = re.sub(r"```.*?```", "", (ROOT / "tests" / "golden" / name).read_text("utf-8"), flags=re.DOTALL)
        for title in re.findall(r"^## (.+)$", report, re.MULTILINE):
            assert ("On the device" if title.startswith("On ") else title) in explained, title
    source = "\n".join(path.read_text("utf-8") for path in (PACKAGE / "report" / "sections").glob("*.py"))
    for title in re.findall(r'\btitle(?:, record)? = f?"([^"{]+)"', source) + re.findall(
        r'Section\("[\w-]+", "([^"]+)"', source
    ):
        assert title in page, title
    for verdict in get_args(Verdict):
        assert f"| {verdict.replace('_', ' ')} |" in page
