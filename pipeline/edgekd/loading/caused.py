"""Mistakes that a ``--set`` causes at another place: a key of the file that no longer fits what was set."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from edgekd.errors import Problem
from edgekd.loading.overrides import KeySyntaxError, parse_key
from edgekd.loading.shape import show

Again = Callable[[Sequence[str]], list[Problem]]
"""Returns the mistakes of the same file with other settings."""


def by_settings(problems: Iterable[Problem], overrides: Sequence[str], again: Again) -> list[Problem]:
    """Move each mistake that the file alone does not have to the first ``--set`` with which it is there.

    Args:
        problems: Mistakes of the file with all settings.
        overrides: ``KEY=VALUE`` of each ``--set``.
        again: Finds the mistakes with the first few of them.
    """
    found = list(problems)
    if not overrides or all(problem.where.startswith("--set ") for problem in found):
        return found
    steps = [{(problem.key, problem.message) for problem in again(overrides[:count])} for count in range(len(overrides) + 1)]
    return [_moved(problem, overrides, steps) for problem in found]


def _moved(problem: Problem, overrides: Sequence[str], steps: Sequence[set[tuple[str, str]]]) -> Problem:
    what = (problem.key, problem.message)
    first = next((count for count, known in enumerate(steps) if what in known), 0)
    if not first or problem.where.startswith("--set "):
        return problem
    setting = overrides[first - 1]
    message = f"{problem.message} ({problem.where}); it is right without this --set"
    hint = "; ".join(filter(None, (problem.hint, _whole(setting, problem.key))))
    return replace(problem, where=f"--set {setting}", message=message, hint=hint)


def _whole(setting: str, key: str) -> str:
    """Say how to replace the section that both the setting and the mistake are in; empty where they share none."""
    name, _, value = setting.partition("=")
    try:
        *section, last = parse_key(name.strip())
    except KeySyntaxError:
        return ""
    outer = show(tuple(section))
    if not outer or not key.startswith(f"{outer}."):
        return ""
    return f"--set {shlex.quote(f'{outer}={{{last}: {value.strip()}}}')} replaces all of {outer}"
