"""Files, models and devices that a recipe names and that are missing. Reads files, executes none of them."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from edgekd import reads
from edgekd.data.sources.base import source_of
from edgekd.devices import schema
from edgekd.errors import EdgekdError, Problem, RecipeError, UsageError, did_you_mean
from edgekd.loading.loaded import Loaded
from edgekd.loading.places import Draft
from edgekd.models import checkpoints, user_file
from edgekd.recipe.data import Data
from edgekd.recipe.distill import Peer
from edgekd.recipe.student import Student
from edgekd.recipe.teacher import Teacher

Key = tuple[str | int, ...]
Lacks = Callable[[str], Iterable[tuple[str, str]]]
"""Returns what is wrong with the files of a data source: messages with their hints."""


def problems(loaded: Loaded) -> list[Problem]:
    """Return everything that a recipe names and that is not there, each at its place in the recipe."""
    drafts, found = missing(loaded)
    return [*loaded.places.problems(drafts), *found] if loaded.places is not None else found


def missing(loaded: Loaded, lacks: Lacks | None = None) -> tuple[list[Draft], list[Problem]]:
    """Return everything that a recipe names and that is not there, and the mistakes in the files of its devices.

    Args:
        loaded: The recipe.
        lacks: A cached :func:`lacks_of`, where several recipes have the same data.
    """
    drafts, found = _devices(loaded)
    return [*_drafts(loaded, lacks or lacks_of), *drafts], found


def devices(loaded: Loaded) -> list[Problem]:
    """Return what is wrong with the devices of a recipe: those that are not there, and the mistakes in their files."""
    drafts, found = _devices(loaded)
    return [*loaded.places.problems(drafts), *found] if loaded.places is not None else found


def _devices(loaded: Loaded) -> tuple[list[Draft], list[Problem]]:
    drafts: list[Draft] = []
    found: list[Problem] = []
    for index, name in enumerate(loaded.recipe.profile.devices if loaded.recipe.profile else ()):
        try:
            schema.load(name, loaded.folder, Path.cwd())
        except RecipeError as error:
            found += error.problems
        except UsageError as error:
            drafts.append(Draft(("profile", "devices", index), error.message, error.hint))
    return drafts, found


def _drafts(loaded: Loaded, lacks: Lacks) -> Iterator[Draft]:
    recipe = loaded.recipe
    yield from _data(recipe.data, ("data", "source"), lacks)
    if recipe.teacher is not None:
        yield from _teacher(recipe.teacher, ("teacher",), recipe.data, lacks)
    if recipe.student is not None:
        yield from _network(recipe.student, ("student",))
    for index, peer in enumerate((recipe.distill.peers or ()) if recipe.distill else ()):
        yield from _network(peer, ("distill", "peers", index))
    try:
        reads.declared(recipe.reads)
    except UsageError as error:
        yield Draft(("reads",), error.message.removeprefix("reads: "), error.hint)


def _teacher(teacher: Teacher, key: Key, data: Data, lacks: Lacks) -> Iterator[Draft]:
    seen = teacher.seen(data)
    if seen.source != data.source:
        yield from _data(seen, (*key, "data", "source"), lacks)
    if teacher.black_box is not None:
        path = Path(teacher.black_box[1])
        if (reason := reads.unreadable(path)) not in ("", "is a folder"):
            yield _draft((*key, "model"), path, reason)
    elif teacher.model is not None:
        yield from _network(teacher, key)
    if teacher.teacher is not None:
        yield from _teacher(teacher.teacher, (*key, "teacher"), seen, lacks)
    for index, member in enumerate(teacher.ensemble or ()):
        yield from _teacher(member, (*key, "ensemble", index), seen, lacks)


def _network(network: Teacher | Student | Peer, key: Key) -> Iterator[Draft]:
    file, _, name = (network.model or "").rpartition(":")
    if file.endswith(".py"):
        path = Path(file)
        if reason := reads.unreadable(path):
            yield _draft((*key, "model"), path, reason)
        else:
            beside = ((other, reads.unreadable(other)) for other in sorted(user_file.imported(path)))
            yield from (_draft((*key, "model"), other, reason) for other, reason in beside if reason)
            found = _defined(path)
            if found is not None and name not in found:
                yield Draft((*key, "model"), f"{path} has no {name}", did_you_mean(name, sorted(found)))
    if network.weights is not None:
        try:
            checkpoints.locate(network.weights).files()
        except EdgekdError as error:
            hint = _near(Path(network.weights)) if error.message.endswith("does not exist") else error.hint
            yield Draft((*key, "weights"), error.message, hint)


def _data(data: Data, key: Key, lacks: Lacks) -> Iterator[Draft]:
    return (Draft(key, message, hint) for message, hint in lacks(data.source))


def lacks_of(data: str) -> tuple[tuple[str, str], ...]:
    """Return what is wrong with the files of a data source, as messages with their hints."""
    source, place = source_of(data)
    if not source.is_path:
        return ()
    path = Path(place)
    try:
        if (reason := reads.unreadable(path)) not in ("", "is a folder"):
            return ((f"{path} {reason}", _hint(path, reason)),)
        return tuple(_unreadable(path for _, path in source.files(place)))
    except EdgekdError as error:
        return ((error.message, error.hint),)


def _unreadable(paths: Iterable[Path]) -> Iterator[tuple[str, str]]:
    """Files that cannot be opened: the first, and how many there are."""
    failures = [(path, reason) for path in paths if (reason := reads.unreadable(path))]
    if failures:
        path, reason = failures[0]
        more = f", and {len(failures) - 1} more files" if len(failures) > 1 else ""
        what = "is a link to nothing" if reason == "does not exist" else reason
        yield f"{path} {what}{more}", "correct its permissions, or remove it"


def _draft(key: Key, path: Path, reason: str) -> Draft:
    return Draft(key, f"{path} {reason}", _hint(path, reason))


def _hint(path: Path, reason: str) -> str:
    return _near(path) if reason == "does not exist" else "correct the path, or its permissions"


def _near(path: Path) -> str:
    """Say which file was probably meant."""
    hint = "correct the path; a relative one starts at the recipe's folder"
    if not path.parent.is_dir():
        return f"{hint}; there is no folder {path.parent}"
    try:
        meant = did_you_mean(path.name, [entry.name for entry in path.parent.iterdir()])
    except OSError:
        return hint
    return meant if meant.startswith("did you mean") else hint


def _defined(path: Path) -> set[str] | None:
    """Names that a Python file defines or imports at its top level; None where only running it could tell."""
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return None
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.asname or alias.name.partition(".")[0] for alias in node.names]
            if "*" in names:
                return None
            found.update(names)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("globals", "setattr", "exec"):
            return None
    return found
