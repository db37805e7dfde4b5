"""YAML text → plain values, with the line and column of every key and value.

PyYAML composes the nodes; the values are built here, because a recipe is stricter than YAML and younger than PyYAML:

* numbers, booleans and null follow YAML 1.2 (``1e-3`` is a number, ``no`` is text);
* a key is text and stands once in its mapping;
* there are no tags, merge keys or second documents;
* depth, size and the expansion of aliases are bounded, so that a hostile file is an error and not a hang.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any

import yaml

from edgekd.errors import Problem
from edgekd.loading.syntax import LINE_BREAK, Span, explain, snippet

Path = tuple[str | int, ...]

MAX_DEPTH = 32
MAX_VALUES = 10_000
MAX_INTEGER = 2**63

_NULL = re.compile(r"(?:~|null|Null|NULL|)\Z")
_BOOL = re.compile(r"(?:true|True|TRUE|false|False|FALSE)\Z")
_INT = re.compile(r"(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)\Z")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?\Z")
_INFINITE = re.compile(r"(?:[-+]?\.(?:inf|Inf|INF)|\.nan|\.NaN|\.NAN)\Z")
CORE_SCHEMA = {"null": _NULL, "bool": _BOOL, "int": _INT, "float": _FLOAT}
"""What plain text means in YAML 1.2 where it is not text; tried in this order."""


@dataclass
class Source:
    """A YAML text and what it says.

    Attributes:
        where: How the text is called in messages: a file name, or ``--set KEY=VALUE``.
        text: The text.
        value: The plain value; ``None`` where the text is empty or broken.
        empty: Whether there is nothing but blanks and comments.
        keys: Place of each key, by the path of its value.
        values: Place of each value, by its path.
        problems: What is wrong with it as YAML.
    """

    where: str
    text: str
    value: Any = None
    empty: bool = False
    keys: dict[Path, Span] = field(default_factory=dict)
    values: dict[Path, Span] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def problem(self, span: Span, message: str, hint: str = "", key: str = "") -> Problem:
        """Make a problem that points at ``span``."""
        place = f"{self.where}:{span.line}:{span.column}"
        return Problem(place, key, message, hint, snippet(self.text, span))

    def span(self, path: Path, at_key: bool = False) -> Span:
        """Return where a path is, or the nearest thing around it that is in the text.

        Args:
            path: Keys and indexes from the root.
            at_key: Whether the key is meant and not its value.
        """
        for end in range(len(path), -1, -1):
            part = path[:end]
            key, value = self.keys.get(part), self.values.get(part)
            if key and (at_key or end < len(path) or value is None or value.end is None):
                return key
            if value:
                # A list's item or the whole file has no key: its first character stands for it.
                return value if end == len(path) else Span(value.line, value.column, None)
        return Span(1, 1, None)


def parse(text: str, where: str) -> Source:
    """Read a YAML text; what is wrong with it is in ``problems``, and then there is no value."""
    source = Source(where, text)
    for number, line in enumerate(LINE_BREAK.split(text), start=1):
        space = _ODD_SPACE.match(line)
        if space:
            span = Span(number, space.end(), space.end() + 1)
            what = f"a space that YAML takes for a letter (U+{ord(line[space.end() - 1]):04X})"
            source.problems.append(
                source.problem(span, what, "type a plain space; this one comes with text from a web page")
            )
    if source.problems:
        return source
    loader: _Loader | None = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
    except yaml.YAMLError as error:
        source.problems.append(source.problem(*explain(error, text)))
        return source
    finally:
        if loader:
            loader.dispose()
            for mark in loader.tags:
                span = Span(mark.line + 1, mark.column + 1, None)
                source.problems.append(
                    source.problem(span, "a tag (!) is not allowed", "a recipe is plain data; quote text that starts with !")
                )
    if node is None:
        source.empty = True
        return source
    builder = _Builder(source)
    try:
        value = builder.value(node, ())
    except _GivenUpError:
        return source
    if not source.problems:
        source.value = value
    return source


_ODD_SPACE = re.compile(r"(?:[ -]*|[ ]*[\w.-]+:[ ]*)[\u00a0\u2007\u202f\u3000\u200b]")
"""A space that is none, where a plain one indents a line or follows a key."""


class _Loader(yaml.SafeLoader):
    """Composes nodes; keeps where tags are, and refuses what is nested without end."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.depth = 0
        self.tags: list[yaml.Mark] = []

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]  # not typed in types-PyYAML
        if getattr(event, "tag", None) is not None:
            self.tags.append(event.start_mark)
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise yaml.composer.ComposerError(None, None, "nested too deeply", event.start_mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


class _GivenUpError(Exception):
    """The rest of the text cannot be trusted; the reason is among the problems."""


class _Builder:
    """Builds values from nodes; an alias is built anew each time, so that every value has a path of its own."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.count = 0
        self.open: list[yaml.Node] = []

    def value(self, node: yaml.Node, path: Path) -> Any:
        """Build the value of a node, and note where it is."""
        self.count += 1
        if node in self.open:
            self.give_up(node, "an alias (*) stands inside its own anchor (&)", "write the value out")
        if self.count > MAX_VALUES:
            message = f"the file has more than {MAX_VALUES} values, each alias (*) counted with all its values"
            self.give_up(node, message, "a recipe is a page of text; write the values out")
        if len(path) > MAX_DEPTH:
            self.give_up(node, f"nested more than {MAX_DEPTH} deep", "a recipe is at most a few levels deep")
        self.source.values[path] = _span(node)
        self.open.append(node)
        value: Any
        if isinstance(node, yaml.MappingNode):
            value = self.mapping(node, path)
        elif isinstance(node, yaml.SequenceNode):
            value = [self.value(item, (*path, index)) for index, item in enumerate(node.value)]
        else:
            value = self.scalar(node)
        self.open.pop()
        return value

    def mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        """Build a mapping; keys are their text, whatever it looks like."""
        built: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if isinstance(key_node, yaml.MappingNode) and key_node.flow_style and node.flow_style:
                self.report(node, "{{ }} is a placeholder of a template", "write the value here, or set it with --set")
                continue
            if not isinstance(key_node, yaml.ScalarNode):
                self.report(key_node, "a key must be plain text", "quote text that starts with { or [")
                continue
            key, place = self.text(key_node), (*path, key_node.value)
            if key == "<<" and key_node.style is None:
                self.report(
                    key_node, "merge keys (<<) are not allowed", "write the keys out, or use *NAME for a whole value"
                )
            elif key in built:
                first = self.source.keys[place]
                self.report(
                    key_node, f"the key {key!r} is given twice; the first is in line {first.line}", "remove one of them"
                )
            else:
                self.source.keys[place] = _span(key_node)
                built[key] = self.value(value_node, place)
        return built

    def scalar(self, node: yaml.Node) -> Any:
        """Build text, or what plain text means in YAML 1.2."""
        text = self.text(node)
        if getattr(node, "style", None) is not None:
            return text
        if _NULL.match(text):
            return None
        if _BOOL.match(text):
            return text.lower() == "true"
        if _INT.match(text):
            # int() takes 0o17 and 0x1F with base 0, but not 007; and its time grows with the square of the length.
            number = int(text, 0 if text[:2] in {"0o", "0x"} else 10) if len(text) < 40 else MAX_INTEGER
            if abs(number) >= MAX_INTEGER:
                self.report(node, "this number is too large", "a whole number has at most 18 digits")
            return number
        if _FLOAT.match(text) or _INFINITE.match(text):
            value = math.inf if _INFINITE.match(text) else float(text)
            if not math.isfinite(value):
                self.report(node, f"{text[:40]} is not a finite number", "write a number, or null where it may be left out")
            return value
        return text

    def text(self, node: yaml.Node) -> str:
        """Return a scalar's text; half a surrogate pair is not text."""
        text = str(node.value)
        if any("\ud800" <= char <= "\udfff" for char in text):
            self.report(node, "this text has half of a surrogate pair", r"write the character itself, or \UXXXXXXXX")
        return text

    def report(self, node: yaml.Node, message: str, hint: str) -> None:
        """Note a problem and go on."""
        self.source.problems.append(self.source.problem(_span(node), message, hint))

    def give_up(self, node: yaml.Node, message: str, hint: str) -> None:
        """Note a problem and stop."""
        self.report(node, message, hint)
        raise _GivenUpError


def _span(node: yaml.Node) -> Span:
    start, end = node.start_mark, node.end_mark
    flow = isinstance(node, yaml.ScalarNode) or getattr(node, "flow_style", False)
    one_line = end.line == start.line and end.column > start.column
    return Span(start.line + 1, start.column + 1, end.column + 1 if flow and one_line else None)
