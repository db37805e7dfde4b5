"""Find and read a recipe's file, and make the paths inside it absolute."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NoReturn, TypeVar

from edgekd import resources
from edgekd.errors import Problem, RecipeError, UsageError, did_you_mean
from edgekd.loading.places import Places
from edgekd.loading.source import Path as Key
from edgekd.recipe import Recipe
from edgekd.recipe.distill import Peer
from edgekd.recipe.source import declared, parts
from edgekd.recipe.student import Student
from edgekd.recipe.teacher import Teacher

MAX_BYTES = 1_000_000

Network = TypeVar("Network", Teacher, Student, Peer)


def read(source: Path) -> tuple[Path, str]:
    """Return the file that was meant and its text.

    Args:
        source: A file, or the name of a recipe that ships with edgekd: ``mobilenet``, ``mobilenet.yaml``,
            ``recipes/mobilenet.yaml`` or ``cifar100/vgg13-vgg8``.

    Raises:
        RecipeError: It is not there, not readable, or not text.
    """
    path = source
    try:
        if not path.exists():
            path = _shipped(source)
        if path.is_dir():
            _refuse(source, "is a folder, not a recipe", _inside(source))
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        _refuse(source, f"cannot be read: {reason}", "check the path and its permissions", error)
    if len(content) > MAX_BYTES:
        _refuse(source, "is larger than 1 MB", "that is no recipe; give the .yaml file")
    try:
        # A byte order mark is how some Windows editors begin a file.
        return path, content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        message = f"is not UTF-8 text: byte 0x{content[error.start]:02x} in line {line}"
        _refuse(source, message, "save it as UTF-8, or check that this is the recipe", error)


def _shipped(source: Path) -> Path:
    try:
        return resources.find("recipes", source.as_posix().removeprefix("recipes/"))
    except UsageError:
        pass
    beside = [path.name for path in source.parent.glob("*.y*ml")] if source.parent.is_dir() else []
    hint = did_you_mean(source.name, beside)
    if hint.startswith("did you mean"):
        _refuse(source, "does not exist", f"did you mean {source.parent / hint.removeprefix('did you mean ')}")
    names = resources.available("recipes")
    hint = did_you_mean(source.name.removesuffix(".yaml"), names)
    listed = f"recipes that ship with edgekd: {', '.join(names)}" if names else "give the path of a recipe"
    _refuse(source, "does not exist", hint if hint.startswith("did you mean") else listed)


def _inside(folder: Path) -> str:
    lock = folder / "recipe.lock.yaml"
    if lock.exists():
        return f"to replay that run, give {lock}"
    names = sorted(path.name for path in folder.glob("*.y*ml"))
    return f"give a file in it: {', '.join(names[:8])}" if names else "give a .yaml file"


def _refuse(source: Path, message: str, hint: str, cause: Exception | None = None) -> NoReturn:
    raise RecipeError([Problem(str(source), "", message, hint)]) from cause


def start(folder: Path, places: Places) -> Callable[[Key], Path]:
    """A path in a file is relative to the file, one in a ``--set`` to the folder it was typed in."""
    return lambda path: Path.cwd() if places.setting(path) else folder


def absolute(recipe: Recipe, folder_of: Callable[[Key], Path], beside: Iterable[Path]) -> Recipe:
    """Return the recipe with absolute paths; a device that the user has a file for is that file's path.

    Args:
        recipe: The recipe.
        folder_of: Says where the path at a place in the recipe starts; see :func:`start`.
        beside: Folders of the files that the recipe is made of: a device is looked for in their ``devices/``, whoever names
            it.
    """
    recipe = with_paths(recipe, lambda text, path: os.path.normpath(folder_of(path) / Path(text).expanduser()))
    if recipe.profile is None:
        return recipe
    found = []
    for index, name in enumerate(recipe.profile.devices):
        places = (folder_of(("profile", "devices", index)), *beside, Path.cwd())
        own = None if resources.is_device_path(name) else resources.own_device(name, places)
        found.append(os.path.normpath(own.absolute()) if own else name)
    return recipe.model_copy(update={"profile": recipe.profile.model_copy(update={"devices": tuple(found)})})


def relative(path: str, folder: Path) -> str:
    """Return a path as it is written in a file of a folder; absolute where the two have nothing in common."""
    here = folder.absolute()
    return path if os.path.commonpath([path, here]) == os.sep else os.path.relpath(path, here)


def with_paths(recipe: Recipe, written: Callable[[str, Key], str]) -> Recipe:
    """Return the recipe with every path in it as ``written`` gives it, called with the path and its place."""

    def source(text: str, *path: str | int) -> str:
        kind, place = parts(text)
        return f"{kind}:{written(place, path)}" if declared(text).is_path else text

    data = {"source": source(recipe.data.source, "data", "source")}
    if recipe.data.root is not None:
        data["root"] = written(recipe.data.root, ("data", "root"))
    update: dict[str, object] = {"data": recipe.data.model_copy(update=data)}
    if recipe.reads:
        update["reads"] = tuple(written(path, ("reads", index)) for index, path in enumerate(recipe.reads))
    if recipe.profile is not None:
        devices = tuple(
            written(name, ("profile", "devices", index)) if resources.is_device_path(name) else name
            for index, name in enumerate(recipe.profile.devices)
        )
        update["profile"] = recipe.profile.model_copy(update={"devices": devices})
    if recipe.lock is not None:
        sha256 = {
            source(name, "lock") if ":" in name else written(name, ("lock",)): digest
            for name, digest in recipe.lock.sha256.items()
        }
        file = written(recipe.lock.recipe, ("lock",))
        update["lock"] = recipe.lock.model_copy(update={"recipe": file, "sha256": sha256})

    def network(part: Network, *path: str | int) -> Network:
        new: dict[str, object] = {}
        file, _, callable_name = (part.model or "").rpartition(":")
        if file.endswith(".py"):
            new["model"] = f"{written(file, (*path, 'model'))}:{callable_name}"
        if isinstance(part, Teacher) and part.black_box is not None:
            kind, file = part.black_box
            new["model"] = f"{kind}:{written(file, (*path, 'model'))}"
        if isinstance(part, Teacher) and part.data is not None and part.data.source is not None:
            seen = source(part.data.source, *path, "data", "source")
            new["data"] = part.data.model_copy(update={"source": seen})
        if part.weights is not None and not part.weights.startswith("edgekd:"):
            new["weights"] = written(part.weights, (*path, "weights"))
        if isinstance(part, Teacher) and part.teacher is not None:
            new["teacher"] = network(part.teacher, *path, "teacher")
        if isinstance(part, Teacher) and part.ensemble is not None:
            new["ensemble"] = tuple(network(own, *path, "ensemble", index) for index, own in enumerate(part.ensemble))
        return part.model_copy(update=new)

    if recipe.teacher is not None:
        update["teacher"] = network(recipe.teacher, "teacher")
    if recipe.student is not None:
        update["student"] = network(recipe.student, "student")
    if recipe.distill is not None and recipe.distill.peers:
        peers = tuple(network(peer, "distill", "peers", index) for index, peer in enumerate(recipe.distill.peers))
        update["distill"] = recipe.distill.model_copy(update={"peers": peers})
    return recipe.model_copy(update=update)
