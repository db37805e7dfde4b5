"""The report as one HTML file: no network, no script, every text escaped, ``run.json`` inside."""

from __future__ import annotations

import json
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from edgekd.records_json import to_json
from edgekd.report.page import Page
from edgekd.report.view import build
from edgekd.report.words import plain
from edgekd.rundir import RunResult

# Inside <script> only "<" can end the element or open a comment; the others are for careless copies of it.
_SCRIPT_SAFE = {ord(char): f"\\u{ord(char):04x}" for char in "<>&\u2028\u2029"}


def render(result: RunResult) -> str:
    """Return the report of a run as an HTML document; the same run gives the same bytes.

    Example:
        >>> from edgekd import rundir
        >>> html = render(rundir.read(Path("reports/mobilenet/latest")))  # doctest: +SKIP
    """
    return document(build(result), result, "run.json")


def document(page: Page, result: object, file: str) -> str:
    """Return a page as an HTML document with its figures inside, which are also in ``file``."""
    return _template().render(page=page, data=embedded(result), file=file) + "\n"


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
