"""Values and files that a run locks: the machine's decisions, and the bytes of the files that it read."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from edgekd import reads, resources, writes
from edgekd.assembly import black_box
from edgekd.data import fingerprint
from edgekd.errors import EdgekdError, UsageError
from edgekd.loading import lock_text
from edgekd.loading.loaded import Loaded
from edgekd.models import checkpoints, user_file
from edgekd.reads import Read
from edgekd.recipe import Recipe
from edgekd.recipe.distill import Peer
from edgekd.recipe.source import declared, is_source, parts
from edgekd.recipe.student import Student
from edgekd.recipe.teacher import Teacher
from edgekd.stages import export, quantize

_SHOWN = 5


def write(loaded: Loaded, folder: Path, found: Iterable[Read] = ()) -> None:
    """Write ``recipe.lock.yaml``, whole or not at all.

    Args:
        loaded: The recipe that runs.
        folder: The run's.
        found: What its stages have read besides what the recipe names; only files of the recipe's folder are locked.
    """
    sha256 = dict(_named(loaded.recipe))
    for read in found:
        if read.kind == "file" and read.sha256 and ".." not in Path(read.relative).parts:
            sha256[reads.place(read.relative, loaded.folder)] = read.sha256
    text = lock_text(replace(loaded, recipe=_decided(loaded.recipe)), folder, sha256)
    writes.write_text(folder / "recipe.lock.yaml", text)


def check(loaded: Loaded) -> None:
    """Stop a replay of a lock whose files are other ones now. With ``--set``, only those that the recipe still names count.

    Raises:
        UsageError: With all of them.
    """
    if loaded.lock is None:
        return
    named = dict(_named(loaded.recipe))
    locked = {name: sha256 for name, sha256 in loaded.lock.sha256.items() if name in named or not loaded.overrides}
    changed = [name for name, sha256 in locked.items() if (named.get(name) or _sha256(name)) != sha256]
    missing = [name for name in changed if not _place(name).exists()]
    if changed and missing == changed:
        raise UsageError(
            f"{loaded.path} was made with files that are not there: {', '.join(missing[:_SHOWN])}",
            "run it where it was made, in a copy of the whole project, or from the folder of its recipe",
        )
    if changed:
        more = f" and {len(changed) - _SHOWN} more" if len(changed) > _SHOWN else ""
        raise UsageError(
            f"{loaded.path} was made with other bytes than there are now in {', '.join(changed[:_SHOWN])}{more}",
            f"bring them back to replay it, or run what is there now: edgekd run {loaded.recipe_file}",
        )


def _place(name: str) -> Path:
    """Return where a file or the files of a data source are."""
    return Path(parts(name)[1] if is_source(name) else name)


def _sha256(name: str) -> str:
    """Of a file that the recipe does not name, and that is of no key; empty if it is not there."""
    if reads.unreadable(Path(name)):
        return ""
    try:
        with reads.in_key(name), Path(name).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def _decided(recipe: Recipe) -> Recipe:
    """The recipe with what this machine and its devices decide, so that whoever replays the lock decides nothing again."""
    if recipe.quantize is None:
        return recipe
    settings = recipe.quantize.model_copy(update={"weight_bits": quantize.weight_bits(recipe)})
    chosen: dict[str, dict[str, str]] = {
        "onnx": {"activations": export.activations(recipe)},
        "openvino": {"zero_points": export.zero_points(recipe)},
    }
    files = tuple(
        item.model_copy(update=chosen.get(item.format, {})) if recipe.precision_of(item) == "int8" else item
        for item in recipe.export
    )
    return recipe.model_copy(update={"quantize": settings, "export": files})


def _named(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """The files and data sources that a recipe names, each as it is written there, with their SHA-256.

    What is not there is left out: the stage that needs it tells.
    """
    sections = [recipe.data, *(recipe.teacher.views(recipe.data) if recipe.teacher else {}).values()]
    for source in dict.fromkeys(section.source for section in sections):
        if declared(source).is_path:
            with suppress(EdgekdError):
                yield source, fingerprint.files_sha256(source)
    for network in _networks(recipe):
        with suppress(EdgekdError, OSError):
            yield from ((str(path), reads.file_sha256(path)) for path in _code(network))
        with suppress(EdgekdError, OSError):
            yield from ((str(path), reads.file_sha256(path)) for path in _weights(network))
    for device in recipe.profile.devices if recipe.profile else ():
        if resources.is_device_path(device):
            with suppress(OSError):
                yield device, reads.file_sha256(Path(device))
    for path in recipe.reads:
        with suppress(EdgekdError):
            yield path, reads.declared([path])


def _networks(recipe: Recipe) -> Iterator[Teacher | Student | Peer]:
    if recipe.teacher:
        yield from (section for _, section in recipe.teacher.lineage())
    if recipe.student:
        yield recipe.student
    yield from (recipe.distill.peers if recipe.distill else ())


def _code(network: Teacher | Student | Peer) -> Iterator[Path]:
    """The user's file that builds a network, with what it imports from its folder; or the files of a black box."""
    if isinstance(network, Teacher) and network.black_box is not None:
        yield from black_box.files(*network.black_box)
    file, _, _ = (network.model or "").rpartition(":")
    if file.endswith(".py"):
        yield from (Path(file), *sorted(user_file.imported(Path(file))))


def _weights(network: Teacher | Student | Peer) -> Iterator[Path]:
    if network.weights is not None and not network.weights.startswith("edgekd:"):
        yield from checkpoints.locate(network.weights).files()
