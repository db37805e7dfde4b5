"""``edgekd upgrade``: recipes and studies of an earlier version, rewritten in place."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgekd.cli.options import debug_option, json_option, print_json
from edgekd.errors import Problem, RecipeError

if TYPE_CHECKING:
    from edgekd.loading.upgrade import Upgraded


@click.command(short_help="Rewrite recipes and studies of an earlier version in place.")
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--check", is_flag=True, help="Only list which files are of an earlier version; change nothing.")
@click.option("--diff", is_flag=True, help="Print what would change, and change nothing.")
@json_option
@debug_option
def upgrade(files: tuple[Path, ...], check: bool, diff: bool, as_json: bool, debug: bool) -> int:
    """Rewrite recipes and studies of an earlier version in place; comments and formatting are kept.

    A recipe of an earlier version works as before, with the defaults of its version; one of the newest version has today's
    defaults. If one of the files is wrong, none is rewritten.

    \b
      edgekd upgrade my.yaml
      edgekd upgrade --diff recipes/*.yaml
    """
    from edgekd.cache import storage
    from edgekd.loading.upgrade import upgraded

    found: list[Upgraded] = []
    problems: list[Problem] = []
    for path in files:
        try:
            found.append(upgraded(path))
        except RecipeError as error:
            problems += error.problems
    if problems:
        raise RecipeError(problems)
    changes = not (check or diff)
    for one in found:
        if changes and one.status == "older":
            with storage(one.path):
                one.write()
    if as_json:
        rows = [
            {"file": str(one.path), "status": one.status, "rewritten": changes and one.status == "older"} for one in found
        ]
        print_json({"files": rows})
    elif diff:
        click.echo("".join(line for one in found for line in _diff(one)), nl=False)
    else:
        for one in found:
            click.echo(f"{one.path}: {_said(one, changes)}")
    return 0


def _said(one: Upgraded, changes: bool) -> str:
    from edgekd.recipe import SCHEMA_VERSION

    if one.status == "no version":
        return "a study whose recipe is a file of its own: upgrade that one"
    if one.status == "newest":
        return f"version {SCHEMA_VERSION} already"
    return f"upgraded to version {SCHEMA_VERSION}" if changes else f"of an earlier version: edgekd upgrade {one.path}"


def _diff(one: Upgraded) -> Iterator[str]:
    before, after = one.before.splitlines(keepends=True), one.after.splitlines(keepends=True)
    for line in difflib.unified_diff(before, after, str(one.path), str(one.path), n=1):
        yield line if line.endswith("\n") else f"{line}\n"
