"""Recipes of earlier versions: the defaults that they keep, and their text rewritten to the newest version."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from edgekd import __version__, writes
from edgekd.errors import Problem, RecipeError
from edgekd.loading import files
from edgekd.loading.shape import at, is_study
from edgekd.loading.source import Path as Key
from edgekd.loading.source import Source, parse
from edgekd.loading.syntax import LINE_BREAK
from edgekd.recipe import SCHEMA_VERSION, VERSIONS

DEFAULTS: Mapping[int, Mapping[Key, Any]] = {1: {}}
"""By version, the defaults that a recipe of it has and one of the next version has not, by their keys. None differs yet."""

Status = Literal["older", "newest", "no version"]
_KEY: Key = ("edgekd",)
_INSIDE: Key = ("recipe", "edgekd")
"""Where a study that has its recipe's keys says their version."""


def with_earlier_defaults(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return a plain recipe with the defaults of its version written out, where they are others than today's.

    Only a section that is there gets them; the others have no defaults.
    """
    filled = dict(value)
    version = value.get("edgekd")
    later = [number for number in DEFAULTS if isinstance(version, int) and number >= version]
    for number in sorted(later):  # the recipe's own version decides
        for key, default in DEFAULTS[number].items():
            filled = _filled(filled, key, default)
    return filled


def _filled(section: dict[str, Any], key: Key, default: Any) -> dict[str, Any]:
    name, inner = str(key[0]), key[1:]
    if not inner:
        return section if name in section else {**section, name: default}
    inside = section.get(name)
    return {**section, name: _filled(inside, inner, default)} if isinstance(inside, dict) else section


def refused(version: int) -> tuple[str, str] | None:
    """Say what is wrong with a recipe's version, and what to do; None where it can be read."""
    if version in VERSIONS:
        return None
    known = " and ".join(map(str, VERSIONS))
    if version > SCHEMA_VERSION:
        message = f"this recipe has version {version}, made for a newer edgekd; edgekd {__version__} reads {known}"
        return message, "install a newer edgekd"
    return f"this recipe has version {version}; edgekd {__version__} reads {known}", f"write edgekd: {SCHEMA_VERSION}"


@dataclass(frozen=True)
class Upgraded:
    """A recipe or a study, and its text in the newest version.

    Attributes:
        path: The file.
        status: ``older``: ``after`` is another text. ``newest``: there is nothing to do. ``no version``: the recipe of this
            study is a file of its own.
        before: The text, with its line breaks.
        after: The text in the newest version; comments and formatting are kept.
    """

    path: Path
    status: Status
    before: str
    after: str

    def write(self) -> None:
        """Rewrite the file, whole or not at all; a byte order mark stays."""
        mark = b"\xef\xbb\xbf" if self.path.read_bytes().startswith(b"\xef\xbb\xbf") else b""
        writes.write_bytes(self.path, mark + self.after.encode())


def upgraded(source: Path) -> Upgraded:
    """Return the newest version of a recipe or a study.

    Raises:
        RecipeError: It cannot be read, has no version, is a lock, or was made for a newer edgekd.
    """
    path, text = files.read(source)
    if path != source:
        raise RecipeError([Problem(str(source), "", "is a recipe that ships with edgekd", "give a file of your own")])
    parsed = parse(text, str(source))
    if parsed.problems:
        raise RecipeError(parsed.problems)
    study = is_study(parsed.value)
    if study and isinstance(at(parsed.value, ("recipe",)), str):
        return Upgraded(path, "no version", text, text)
    key = _INSIDE if study else _KEY
    version = at(parsed.value, key)
    if not isinstance(version, int) or isinstance(version, bool):
        raise RecipeError([Problem(str(source), "edgekd", "is not a recipe or a study: it has no version", "give a recipe")])
    if wrong := refused(version):
        raise RecipeError([parsed.problem(parsed.span(key), *wrong, key="edgekd")])
    if at(parsed.value, ("lock",)) is not None:
        hint = f"edgekd run {source} replays it; upgrade the recipe that it was made from"
        raise RecipeError([Problem(str(source), "lock", "is a lock, which keeps its version", hint)])
    if version == SCHEMA_VERSION:
        return Upgraded(path, "newest", text, text)
    return Upgraded(path, "older", text, _rewritten(parsed, key))


def _rewritten(parsed: Source, key: Key) -> str:
    """Replace the written version by the newest."""
    span = parsed.values[key]
    breaks = [match.end() for match in LINE_BREAK.finditer(parsed.text)]
    begin = (breaks[span.line - 2] if span.line > 1 else 0) + span.column - 1
    written = re.compile(r"(&\S+\s+)?\w+").match(parsed.text, begin)
    end = written.end() if written else begin
    text = f"{parsed.text[:begin]}{(written and written[1]) or ''}{SCHEMA_VERSION}{parsed.text[end:]}"
    meant = copy.deepcopy(parsed.value)
    at(meant, key[:-1])[key[-1]] = SCHEMA_VERSION
    if parse(text, parsed.where).value != meant:  # a value that several keys share by an alias (*)
        hint = f"write edgekd: {SCHEMA_VERSION} by hand"
        raise RecipeError([parsed.problem(span, "this version cannot be rewritten in its place", hint, "edgekd")])
    return text
