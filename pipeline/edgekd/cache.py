"""The content-addressed store of finished stages.

An entry is a folder that appears by one rename, so that a stage is either finished or absent. ``key.json`` in it says what
the key was made of, the hash of each file, and what else the stage read of the user's (``reads``). An entry whose files do
not match is a miss, and said to be damaged; so is one whose reads have other bytes now. Of one key there can be several
entries, with other reads.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekd import reads
from edgekd.errors import StorageError
from edgekd.reads import Read

KEY_FILE = "key.json"
_LOCK = ".lock"
FULL = (errno.ENOSPC, errno.EDQUOT)
"""Errors of a disk that is full."""
REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ENOENT)
"""Errors of a place that may not be written."""


@dataclass(frozen=True)
class Entry:
    """A finished stage: its folder, how long the work took when it was done, and what it read besides what the key has."""

    path: Path
    seconds: float
    reads: tuple[Read, ...] = ()


def root() -> Path:
    """``$EDGEKD_CACHE``, else ``edgekd`` in the user's cache folder."""
    chosen = os.environ.get("EDGEKD_CACHE")
    return Path(chosen).expanduser().absolute() if chosen else user_folder()


def user_folder() -> Path:
    """Folder of edgekd in the user's cache folder; torchvision's data sets are in it too."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgekd"


def folders() -> tuple[Path, ...]:
    """The folders that edgekd keeps its results in."""
    return tuple(root() / name for name in ("stages", "scratch", "locks", "last", "teachers"))


def key_of(material: Mapping[str, Any]) -> str:
    """SHA-256 of what decides a stage's result."""
    text = json.dumps(material, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def lookup(key: str, folder: Path | None = None) -> tuple[Entry | None, str]:
    """Find a finished stage.

    Args:
        key: Its key.
        folder: The recipe's, where what it read is looked for first.

    Returns:
        The entry, or None with the reason: empty if there is none, else what is damaged or what has changed.

    Raises:
        StorageError: The cache cannot be read.
    """
    reasons = []
    for path in _entries(key):
        entry, reason = _read(path, folder or Path.cwd())
        if entry is not None:
            return entry, ""
        reasons.append(reason)
    return None, next(iter(reasons), "")


def _entries(key: str) -> list[Path]:
    """Folders of the entries of a key, the newest first."""
    path = _entry(key)
    try:
        names = [entry.name for entry in path.parent.iterdir()]
        found = [path.with_name(name) for name in names if name.partition("-")[0] == key]
        return sorted(found, key=lambda entry: (-entry.stat().st_mtime_ns, entry.name))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise storage_error(error, path) from error


def _read(path: Path, folder: Path) -> tuple[Entry | None, str]:
    try:
        info = json.loads((path / KEY_FILE).read_text(encoding="utf-8"))
        seconds, files = float(info["seconds"]), info["files"].items()
        found = reads.of_rows(info["reads"]) if "reads" in info else None
        if found is None:
            return None, "an older edgekd made it, which did not note what a stage reads"
        if reason := reads.changed(found, folder):
            return None, reason
        for name, digest in files:
            with (path / name).open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != digest:
                    return None, f"{path / name} is damaged"
        return Entry(path, seconds, found), ""
    except FileNotFoundError as error:
        return None, f"{error.filename} is missing" if path.exists() else ""
    except OSError as error:
        raise storage_error(error, path) from error
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        return None, f"{path / KEY_FILE} is damaged"


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of each file of a finished stage, by its name, from when it was finished."""
    found: dict[str, str] = json.loads((folder / KEY_FILE).read_text(encoding="utf-8"))["files"]
    return found


def reads_of(folder: Path) -> tuple[Read, ...]:
    """Return the files that a finished stage and those before it have read besides what is in the keys."""
    path = folder / KEY_FILE
    found = json.loads(path.read_text(encoding="utf-8"))["reads"] if path.exists() else ()
    return reads.of_rows(found) or ()


@contextmanager
def locked(key: str) -> Iterator[None]:
    """Hold a stage against a second run; the lock ends with the process, however it ends."""
    with storage(root()):
        folder = root() / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        handle = (folder / key).open("w")
    with handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


@contextmanager
def scratch() -> Iterator[Path]:
    """An empty folder on the cache's own disk, gone afterwards unless it was committed.

    What a process left that was killed is removed by the next one: a folder's lock ends with its process.
    """
    with storage(root()):
        parent = root() / "scratch"
        parent.mkdir(parents=True, exist_ok=True)
        sweep()
        handle, name = tempfile.mkstemp(suffix=_LOCK, dir=parent)
        fcntl.flock(handle, fcntl.LOCK_EX)
        folder = Path(name.removesuffix(_LOCK))
        folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        Path(name).unlink(missing_ok=True)
        os.close(handle)


def sweep() -> None:
    """Remove the scratch folders of processes that are no more."""
    for lock in (root() / "scratch").glob(f"*{_LOCK}"):
        with suppress(OSError), lock.open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails while its process lives
            shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
            lock.unlink(missing_ok=True)


def commit(folder: Path, key: str, material: Mapping[str, Any], seconds: float, found: tuple[Read, ...] = ()) -> Entry:
    """Move a finished stage's outputs into the store; ``found`` is what it has read besides what the key has.

    Raises:
        StorageError: The disk is full or the folder cannot be written.
    """
    with storage(root()):
        files = {}
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                with path.open("rb") as file:
                    files[path.relative_to(folder).as_posix()] = hashlib.file_digest(file, "sha256").hexdigest()
        info = {"material": material, "seconds": round(seconds, 3), "files": files, "reads": reads.rows_of(found)}
        (folder / KEY_FILE).write_text(json.dumps(info, indent=1, default=str) + "\n", encoding="utf-8")
        target = _entry(f"{key}-{reads.digest(found)[:12]}" if found else key)
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists():  # damaged, or it would have been used
            shutil.rmtree(target)
        folder.rename(target)
    return Entry(target, seconds, found)


def remember(recipe: str, stage: str, material: Mapping[str, Any]) -> None:
    """Note what a stage of a recipe was last made of, so that the next plan can say what changed."""
    with storage(root()):
        path = root() / "last" / recipe / f"{stage}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(material, default=str), encoding="utf-8")


def last(recipe: str, stage: str) -> dict[str, Any] | None:
    """Return the material of a recipe's stage in its last run, or None."""
    try:
        value: dict[str, Any] = json.loads((root() / "last" / recipe / f"{stage}.json").read_text(encoding="utf-8"))
        return value
    except (OSError, ValueError):
        return None


def _entry(key: str) -> Path:
    return root() / "stages" / key[:2] / key


@contextmanager
def storage(place: Path) -> Iterator[None]:
    """Turn what a disk or a folder refuses into words."""
    try:
        yield
    except OSError as error:
        raise storage_error(error, place) from error


def storage_error(error: OSError, place: Path) -> StorageError:
    """Say in words why a file could not be written, and what to do."""
    where = error.filename2 or error.filename or place  # of a copy the second is what is written
    if error.errno in FULL:
        return StorageError(
            f"the disk is full while writing {where}",
            "free some space and run the same command: finished stages are kept",
        )
    if error.errno in REFUSED:
        return StorageError(
            f"{where} cannot be written: {error.strerror}",
            "correct its permissions, or choose another place with --out (reports) or EDGEKD_CACHE (finished stages)",
        )
    return StorageError(f"{where}: {error.strerror or error}", "run the same command again: finished stages are kept")
