"""The report as one HTML file: no network, no script, every text escaped, ``run.json`` inside."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from edgekd.report.page import Page
from edgekd.report.sections.operations import slowest
from edgekd.report.view import build
from edgekd.report.words import plain
from edgekd.results.codec import to_json
from edgekd.results.run import RunResult

OPERATIONS = 500
"""Single operations of all profiles that a report has inside it, at most."""

# Inside <script> only "<" can end the element or open a comment; the others are for careless copies of it.
_SCRIPT_SAFE = {ord(char): f"\\u{ord(char):04x}" for char in "<>&\u2028\u2029"}


def render(result: RunResult) -> str:
    """Return the report of a run as an HTML document; the same run gives the same bytes.

    Example:
        >>> from edgekd.results.run import read_run
        >>> html = render(read_run(Path("reports/mobilenet/latest")))  # doctest: +SKIP
    """
    return document(build(result), _bounded(result), "run.json")


def document(page: Page, result: object, file: str) -> str:
    """Return a page as an HTML document with its figures inside, which are also in ``file``."""
    return _template().render(page=page, data=embedded(result), file=file) + "\n"


def _bounded(result: RunResult) -> RunResult:
    """Leave out single operations that the page does not list where a run has very many of them; run.json has all."""
    if sum(len(record.operations.operations) for record in result.profiles if record.operations) <= OPERATIONS:
        return result
    profiles = (
        replace(record, operations=replace(record.operations, operations=slowest(record.operations)))
        if record.operations
        else record
        for record in result.profiles
    )
    return replace(result, profiles=tuple(profiles))


def embedded(result: object) -> Markup:
    """Return a result so that it can stand inside a ``<script>`` element and still be the same JSON."""
    text = json.dumps(to_json(result), allow_nan=False, separators=(",", ":"))
    return Markup(text.translate(_SCRIPT_SAFE))


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("edgekd", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_printable,
    )
    return environment.get_template("page.html.j2")


def _printable(value: object) -> object:
    # The view already cleans what it knows to be foreign; this holds for whatever it may forget.
    return plain(value) if isinstance(value, str) and not isinstance(value, Markup) else value
