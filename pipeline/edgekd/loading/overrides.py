"""``--set KEY=VALUE``: one value of a recipe, from the command line.

The key is a path as messages write it (``distill.losses[0].weight``; quotes around a name with dots:
``layers."features.3"``) and must exist in the schema. The value is YAML, typed by the schema like
everything in the file.
"""

from __future__ import annotations

import re
import typing
from dataclasses import dataclass
from typing import Any

from edgekd.errors import Problem
from edgekd.loading import shape
from edgekd.loading.places import Places
from edgekd.loading.source import Path, parse
from edgekd.loading.words import other_key
from edgekd.recipe.export import Export

_PART = re.compile(r'\.?(?:(?P<name>[^.\[\]"=\s]+)|"(?P<quoted>[^"]*)")|\[(?P<index>[0-9]{1,6})\]')


_NO_LINE = re.compile(r"; the [^;]* in line 1$| in line 1\b")


class KeySyntaxError(ValueError):
    """A key path that cannot be read."""


@dataclass(frozen=True)
class RefusedError(Exception):
    """A key or setting that cannot be applied; ``depth`` is how much of the key the message is about."""

    depth: int
    message: str
    hint: str


def parse_key(text: str) -> Path:
    """Read a key path.

    Raises:
        KeySyntaxError: It is not one.

    Example:
        >>> parse_key("distill.losses[0].weight")
        ('distill', 'losses', 0, 'weight')
    """
    path: Path = ()
    position = 0
    while position < len(text):
        match = _PART.match(text, position)
        # The first part has no dot before it, and each later name has one.
        if not match or (match["index"] is None and (text[position] == ".") != bool(path)):
            raise KeySyntaxError(text)
        index, quoted = match["index"], match["quoted"]
        path = (*path, int(index) if index is not None else quoted if quoted is not None else match["name"])
        position = match.end()
    if not path or isinstance(path[0], int):
        raise KeySyntaxError(text)
    return path


def apply(overrides: typing.Sequence[str], value: dict[str, Any], places: Places) -> list[Problem]:
    """Put each ``KEY=VALUE`` into the plain value of a recipe, in their order; return what is wrong with them."""
    problems: list[Problem] = []
    for text in overrides:
        key, equals, given = text.partition("=")
        where = f"--set {text}"
        try:
            path = parse_key(key.strip())
        except KeySyntaxError:
            hint = "write KEY=VALUE, such as distill.epochs=1 or distill.losses[0].weight=2"
            problems.append(Problem(where, "", f"{key.strip()!r} is not a key", hint))
            continue
        if not equals or not given.strip():
            hint = f"write {key.strip()}=VALUE; null removes an optional section"
            problems.append(Problem(where, "", "there is no value", hint))
            continue
        parsed = parse(given, where)
        if parsed.problems:
            # A line says nothing in one word of a command line.
            problems.extend(
                Problem(where, shape.show(path), _NO_LINE.sub("", problem.message), problem.hint)
                for problem in parsed.problems
            )
            continue
        try:
            made = _put(value, path, parsed.value)
        except RefusedError as refused:
            problems.append(Problem(where, shape.show(path[: refused.depth]), refused.message, refused.hint))
            continue
        if made is not None:
            places.set(path, text, made)
    return problems


def _put(value: dict[str, Any], path: Path, new: Any) -> list[Path] | None:
    """Set one value; return the sections made for it, or ``None`` where the file itself is wrong on the way."""
    check(value, path)
    made: list[Path] = []
    outer: Any = value
    for depth, part in enumerate(path[:-1], start=1):
        inside = shape.at(value, path[:depth])
        model = shape.model_of(shape.annotation_at(value, path[:depth]), inside)
        absent = inside is None or (inside is False and model is not None)  # adaround: false
        if absent and isinstance(path[depth], str):
            inside = {}
            made.append(path[:depth])
        elif isinstance(inside, str) and model is Export:
            inside = {"format": inside}
        elif not isinstance(inside, list if isinstance(path[depth], int) else dict):
            return None
        outer[part] = inside
        outer = inside
    outer[path[-1]] = new
    return made


def check(value: dict[str, Any], path: Path) -> None:
    """Refuse a key that the schema does not have, or an item that the recipe does not have.

    Raises:
        RefusedError: It does not.
    """
    annotation: Any = shape.root(value)
    for depth, part in enumerate(path):
        raw, outer = shape.at(value, path[:depth]), shape.show(path[:depth])
        count = len(raw) if isinstance(raw, list) else 0
        inside = shape.inner(annotation, part, raw)
        if inside is None:
            model = shape.model_of(annotation, raw)
            if isinstance(part, int):
                raise RefusedError(depth, "is not a list", f"leave [{part}] out")
            if model:
                raise RefusedError(depth + 1, "unknown key", other_key(part, annotation, raw)[0])
            if shape.inner(annotation, 0, raw) is not None:
                if isinstance(part, str) and part.removeprefix("-").isdecimal():
                    item = max(0, count + int(part)) if part.startswith("-") else int(part)
                    if item >= count:
                        raise _no_item(depth, item, count, outer)
                    raise RefusedError(depth, "is a list", f"write {shape.show((*path[:depth], item, *path[depth + 1 :]))}")
                raise RefusedError(depth, "is a list", f"say which item: {outer}[0].{part}")
            raise RefusedError(depth, "has no keys inside", f"write {outer}=VALUE")
        if isinstance(part, int) and part >= count:
            raise _no_item(depth, part, count, outer)
        annotation = inside


def _no_item(depth: int, item: int, count: int, outer: str) -> RefusedError:
    there = f"has no item [{item}]: " + (f"the last is [{count - 1}]" if count else "it is empty")
    return RefusedError(depth, there, f"set the whole list: {outer}=[...]")
