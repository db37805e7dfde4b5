"""YAML syntax errors in words, for a person who does not know the YAML grammar."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

import yaml

LINE_BREAK = re.compile("\r\n|[\r\n\x85\u2028\u2029]")
_WIDTH = 110


@dataclass(frozen=True)
class Span:
    """A place in a text, counted from 1; ``end`` is the column after it, where it ends in the same line."""

    line: int
    column: int
    end: int | None


def snippet(text: str, span: Span) -> str:
    """Return the line of a span with carets under it.

    Example:
        | 3 |   epocs: 8
        |   |   ^^^^^
    """
    lines = LINE_BREAK.split(text)
    line = lines[span.line - 1] if span.line <= len(lines) else ""
    start = min(span.column - 1, len(line))
    end = min(span.end - 1, len(line)) if span.end else start + 1
    before, inside, after = line[:start], line[start:end], line[end:]
    if len(line) > _WIDTH:
        # A long line (a flow mapping) is shown around the place only.
        half = _WIDTH // 2
        before = "…" + before[-half:] if len(before) > half else before
        inside, after = (inside[:half], "…") if len(inside) > half else (inside, after)
        after = after[:half] + "…" if len(after) > half else after
    gutter = str(span.line)
    blank = "".join("\t" if char == "\t" else " " * _columns(char) for char in before)
    carets = "^" * max(1, sum(map(_columns, inside)))
    shown = "".join(char if char == "\t" or char.isprintable() else "�" for char in f"{before}{inside}{after}".rstrip())
    return f"  {gutter} | {shown}\n  {' ' * len(gutter)} | {blank}{carets}"


def _columns(char: str) -> int:
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def explain(error: yaml.YAMLError, text: str) -> tuple[Span, str, str]:
    """Return the place, what is wrong and what to do, for anything PyYAML raises."""
    if isinstance(error, yaml.reader.ReaderError):
        position = int(error.position)
        lines = LINE_BREAK.split(text[:position])
        span = Span(len(lines), len(lines[-1]) + 1, None)
        return span, f"a character that cannot be printed (U+{ord(text[position]):04X})", "remove it"
    assert isinstance(error, yaml.MarkedYAMLError)  # all other errors of PyYAML
    mark = error.problem_mark or error.context_mark
    assert mark is not None  # PyYAML gives every error of a text a place
    lines = LINE_BREAK.split(text)
    line = lines[mark.line] if mark.line < len(lines) else ""
    opening = error.context_mark
    if opening and opening.line < mark.line and _is_open(error):
        # What was opened and not closed is found far below; the opening is what has to be looked at.
        what = lines[opening.line][opening.column : opening.column + 1]
        closing = {"{": "}", "[": "]"}.get(what, what)
        message, hint = f"this {what} is not closed", f"add the closing {closing} before line {mark.line + 1}"
        mark = opening
    else:
        above = next((other for other in reversed(lines[: mark.line]) if other.strip()), "")
        message, hint = _words(error, line, above, mark.column)
    return Span(mark.line + 1, mark.column + 1, None), message, hint


def _is_open(error: yaml.MarkedYAMLError) -> bool:
    problem = error.problem or ""
    return problem.startswith(("expected ',' or", "found unexpected end of stream"))


def _words(error: yaml.MarkedYAMLError, line: str, above: str, column: int) -> tuple[str, str]:
    problem, context = error.problem or "", error.context or ""
    opened = f"line {error.context_mark.line + 1}" if error.context_mark else "an earlier line"
    char = line[column : column + 1]
    if char == "\t" or "\t" in line[: len(line) - len(line.lstrip())]:
        return "a tab is used for indentation", "use spaces: YAML does not allow tabs there"
    if problem == "nested too deeply":
        return "nested too deeply", "a recipe is at most a few levels deep"
    if problem == "but found another document":
        return "a second document starts here (---)", "a recipe is one document; put the other one into its own file"
    if problem.startswith("found undefined alias"):
        return f"{line[column:].split()[0].rstrip(',]}')} refers to an anchor (&) that is not above it", _QUOTE_STAR
    if problem.startswith("found duplicate anchor") or context.startswith("found duplicate anchor"):
        return "this anchor (&) is defined twice", "give one of them another name"
    if problem == "mapping values are not allowed here":
        if ": " in line[:column] or above.rstrip().endswith((",", "{", "[")):
            return "a second ':' in one value", "quote text that contains ': '"
        if _indentation(line) > _indentation(above):
            return (
                "this line is indented deeper than the one above, which has a value already",
                "indent both by as many spaces",
            )
        return "a ':' is not expected here", "look at the line above: a key is written with a ':' after it"
    if "could not find expected ':'" in problem:
        return f"a ':' is missing in {opened}", "write key: value; check the quotes and brackets above"
    if "expected ',' or '}'" in problem:
        return (
            "a ',' or '}' is missing here",
            "close the bracket, or separate the keys by commas",
        )
    if "expected ',' or ']'" in problem:
        return (
            "a ',' or ']' is missing here",
            "close the bracket, or separate the items by commas",
        )
    if "expected <block end>" in problem:
        return f"this line does not fit the block that starts in {opened}", "indent it like the lines it belongs to"
    if context == "while scanning a quoted scalar":
        return "this quote is not closed", "add the closing quote"
    if context == "while scanning a double-quoted scalar":
        return f"\\{char} means nothing in double quotes", r"write \\ for a backslash, or use single quotes"
    if "cannot start any token" in problem:
        return f"text cannot start with {char!r}", "put the text in quotes"
    if "expected the node content" in problem or "did not find expected node content" in problem:
        return f"a value is expected here, not {char!r}" if char else "a value is missing here", "put text in quotes"
    reason = ": ".join(part for part in (context, problem) if part)
    return f"this is not valid YAML ({reason})", "compare with a recipe that works"


def _indentation(line: str) -> int:
    return len(line) - len(line.lstrip())


_QUOTE_STAR = "define it with &NAME first, or quote text that starts with *"
