"""Origin of a recipe's value: a line of the file, or a ``--set``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

from edgekd.errors import Problem
from edgekd.loading.shape import show
from edgekd.loading.source import Path, Source
from edgekd.loading.syntax import snippet


@dataclass(frozen=True)
class Draft:
    """A problem that knows its path and not yet its place.

    Attributes:
        path: Keys and indexes from the root; the last may be missing in the recipe.
        message: What is wrong.
        hint: What is allowed, or what was probably meant.
        at_key: Whether the key itself is wrong, and not its value.
    """

    path: Path
    message: str
    hint: str = ""
    at_key: bool = False


class Placing(Protocol):
    """Places problems of a recipe: in one file, or in the parts that a study makes it of."""

    def problems(self, drafts: Iterable[Draft]) -> list[Problem]:
        """Return each problem with the line or the ``--set`` that it is from."""
        ...


@dataclass
class Places:
    """The places of all values; later settings replace what they cover.

    Attributes:
        source: The recipe's file.
        settings: ``KEY=VALUE`` of each ``--set``, by the path it sets and by the sections that it had to make.
    """

    source: Source
    settings: dict[Path, str] = field(default_factory=dict)

    def set(self, path: Path, text: str, made: Iterable[Path] = ()) -> None:
        """Note that ``--set text`` replaced what was at ``path`` and made the sections ``made``."""
        tables: list[dict[Path, object]] = [self.source.keys, self.source.values, self.settings]  # type: ignore[list-item]
        for table in tables:
            for stale in [other for other in table if other[: len(path)] == path]:
                del table[stale]
        self.settings.update(dict.fromkeys((*made, path), text))

    def setting(self, path: Path) -> str | None:
        """Return the ``KEY=VALUE`` that a path comes from, or ``None`` where it comes from the file."""
        for end in range(len(path), -1, -1):
            if path[:end] in self.settings:
                return self.settings[path[:end]]
            if path[:end] in self.source.values:
                return None
        return None

    def problems(self, drafts: Iterable[Draft]) -> list[Problem]:
        """Place the drafts, in the order of the file and then of the command line; each place and message once."""
        placed: dict[tuple[str, str], tuple[tuple[int, int, int], Problem]] = {}
        typed = list(dict.fromkeys(self.settings.values()))
        for draft in drafts:
            setting, span = self.setting(draft.path), self.source.span(draft.path, draft.at_key)
            # What is missing at the top level has no line to show.
            at_root = not any(draft.path[:end] in self.source.values for end in range(1, len(draft.path) + 1))
            where = f"--set {setting}" if setting else f"{self.source.where}:{span.line}:{span.column}"
            shown = "" if setting or at_root else snippet(self.source.text, span)
            problem = Problem(where, show(draft.path), draft.message, draft.hint, shown)
            order = (typed.index(setting) + 1, 0, 0) if setting else (0, span.line, span.column)
            # An anchor (&) that is wrong is wrong wherever it is repeated (*): told once.
            placed.setdefault((where, draft.message), (order, problem))
        return [problem for _, problem in sorted(placed.values(), key=lambda pair: pair[0])]
