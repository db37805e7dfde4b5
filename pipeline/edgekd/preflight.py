"""What a recipe names and is not there: data, weights, models, devices. Looks at files, runs none of them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from edgekd import checkpoints, image_folders, reads
from edgekd.devices import schema
from edgekd.errors import EdgekdError, Problem, UsageError, did_you_mean
from edgekd.loading import Loaded
from edgekd.loading.places import Draft
from edgekd.recipe import Student, Teacher
from edgekd.recipe_data import Data
from edgekd.recipe_distill import Peer

Key = tuple[str | int, ...]


def problems(loaded: Loaded) -> list[Problem]:
    """Return everything that a recipe names and that is not there, each at its place in the recipe."""
    return loaded.places.problems(_drafts(loaded)) if loaded.places is not None else []


def _drafts(loaded: Loaded) -> Iterator[Draft]:
    recipe = loaded.recipe
    yield from _data(recipe.data, ("data", "source"))
    if recipe.teacher is not None:
        yield from _teacher(recipe.teacher, ("teacher",), recipe.data)
    if recipe.student is not None:
        yield from _network(recipe.student, ("student",))
    for index, peer in enumerate((recipe.distill.peers or ()) if recipe.distill else ()):
        yield from _network(peer, ("distill", "peers", index))
    for index, name in enumerate(recipe.profile.devices if recipe.profile else ()):
        try:
            schema.load(name)
        except EdgekdError as error:
            yield Draft(("profile", "devices", index), error.message, error.hint)
    try:
        reads.declared(recipe.reads)
    except UsageError as error:
        yield Draft(("reads",), error.message.removeprefix("reads: "), error.hint)


def _teacher(teacher: Teacher, key: Key, data: Data) -> Iterator[Draft]:
    seen = teacher.seen(data)
    if seen.source != data.source:
        yield from _data(seen, (*key, "data", "source"))
    if teacher.black_box is not None:
        path = Path(teacher.black_box[1])
        if not path.exists():
            yield Draft((*key, "model"), f"{path} does not exist", _near(path))
    elif teacher.model is not None:
        yield from _network(teacher, key)
    if teacher.teacher is not None:
        yield from _teacher(teacher.teacher, (*key, "teacher"), seen)
    for index, member in enumerate(teacher.ensemble or ()):
        yield from _teacher(member, (*key, "ensemble", index), seen)


def _network(network: Teacher | Student | Peer, key: Key) -> Iterator[Draft]:
    file, _, name = (network.model or "").rpartition(":")
    if file.endswith(".py"):
        path = Path(file)
        if not path.is_file():
            yield Draft((*key, "model"), f"{path} does not exist", _near(path))
        else:
            found = _defined(path)
            if found is not None and name not in found:
                yield Draft((*key, "model"), f"{path} has no {name}", did_you_mean(name, sorted(found)))
    if network.weights is not None:
        try:
            checkpoints.locate(network.weights).files()
        except EdgekdError as error:
            hint = _near(Path(network.weights)) if error.message.endswith("does not exist") else error.hint
            yield Draft((*key, "weights"), error.message, hint)


def _data(data: Data, key: Key) -> Iterator[Draft]:
    kind, _, rest = data.source.partition(":")
    path = Path(rest)
    try:
        if kind == "imagefolder":
            image_folders.listed(path)
        elif kind in ("images", "npz") and not path.exists():
            yield Draft(key, f"{path} does not exist", _near(path))
    except EdgekdError as error:
        yield Draft(key, error.message, error.hint)


def _near(path: Path) -> str:
    """Say which file was probably meant."""
    hint = "correct the path; a relative one starts at the recipe's folder"
    if not path.parent.is_dir():
        return f"{hint}; there is no folder {path.parent}"
    meant = did_you_mean(path.name, [entry.name for entry in path.parent.iterdir()])
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
