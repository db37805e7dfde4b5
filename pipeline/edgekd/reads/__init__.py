"""Files that the user's code reads while a stage runs, recorded with the stage's result.

A key is made of what a recipe declares. The user's code may read more: a library beside the project, a config file. Each
such file is recorded while the stage runs (watch.py), and the finished stage is used again only while all of them have the
same bytes.
"""

from __future__ import annotations

import hashlib
import os
import stat
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal, NoReturn

from edgekd.errors import UsageError

Stat = tuple[int, ...]
_SETTLED_NS = 2 * 10**9  # a file may change twice in one tick of its clock, so a stat counts only after a while


@dataclass(frozen=True)
class Read:
    """One thing that the making of a stage depends on besides what its key is made of.

    Attributes:
        kind: A file that was read, one that was asked for and was not there, or an installed package.
        path: The file; of a package, its name.
        relative: The file from the recipe's folder, so that a project can be moved.
        sha256: Of the file's bytes when it was read, or empty if they changed meanwhile; of a package, its version.
        stat: Size, times and place on the disk, which spare the hashing while they are the same; empty if the file was too
            new for that, or was written afterwards.
        typed: How it was opened, if by a path from the working folder.
    """

    kind: Literal["file", "absent", "package"]
    path: str
    relative: str = ""
    sha256: str = ""
    stat: Stat = ()
    typed: str = ""


_here = threading.local()
_hashed: dict[str, tuple[Stat, str]] = {}
"""The stat of each file when it was hashed, and its hash."""


@contextmanager
def in_key(*files: Path | str) -> Iterator[None]:
    """Do not record that this thread opens these files: the key has them, by their bytes and not by their paths.

    Any other file that is opened meanwhile is recorded.
    """
    before: frozenset[str] = getattr(_here, "in_key", frozenset())
    _here.in_key = before.union(map(named, files))
    try:
        yield
    finally:
        _here.in_key = before


def unreadable(path: Path) -> str:
    """Say in the words that follow a path why it is no file that can be opened; empty if it is one.

    Never waits, as opening a pipe would.
    """
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            return "is a folder" if stat.S_ISDIR(mode) else "is a pipe, a socket or a device, not a file"
        with in_key(path), path.open("rb"):
            return ""
    except (FileNotFoundError, NotADirectoryError):
        return "does not exist"
    except (OSError, ValueError) as error:
        return f"cannot be read: {getattr(error, 'strerror', None) or error}"


def is_in_key(name: str) -> bool:
    """Return whether it is not to be recorded that this thread opens a file, which is called as :func:`named` says."""
    return name in getattr(_here, "in_key", ())


def named(given: str | bytes | os.PathLike[str]) -> str:
    """Absolute path of a file, without ``..`` unless that follows a link to a folder."""
    path = os.path.join(os.getcwd(), os.fsdecode(given))  # noqa: PTH118, PTH109  # a Path would drop nothing, but costs
    name = os.path.normpath(path)
    if ".." in path and os.path.realpath(os.path.dirname(path)) != os.path.realpath(os.path.dirname(name)):  # noqa: PTH120
        return path
    return name


@contextmanager
def hashing() -> Iterator[dict[str, str]]:
    """Collect the files that this thread hashes for a key, with their hashes."""
    before = getattr(_here, "files", None)
    files: dict[str, str] = {}
    _here.files = files
    try:
        yield files
    finally:
        _here.files = before


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file for a key. While size, times and place of the file stay, it is hashed once in a process.

    Raises:
        OSError: It cannot be read.
    """
    name, now = os.path.normpath(path.absolute()), stat_of(str(path))
    known = _hashed.get(name)
    if known is None or known[0] != now:
        with in_key(path), path.open("rb") as file:
            known = settled(now), hashlib.file_digest(file, "sha256").hexdigest()
        _hashed[name] = known
    files = getattr(_here, "files", None)
    if files is not None:
        files[name] = known[1]
    return known[1]


def sha256_of(path: str) -> str:
    """Return the SHA-256 of a file, or empty if it cannot be read."""
    try:
        return file_sha256(Path(path))
    except OSError:
        return ""


def state(paths: Iterable[Path]) -> str:
    """Return a hash of the size, times and place of files; empty if one is too new for that, or missing."""
    digest = hashlib.sha256()
    for path in paths:
        now = settled(stat_of(str(path)))
        if not now:
            return ""
        digest.update(os.fsencode(f"{path} {now}\n"))
    return digest.hexdigest()


def declared(paths: Iterable[str]) -> str:
    """Return the hash of files, or of all files in folders, that a recipe declares with ``reads``.

    Raises:
        UsageError: One is not there, or cannot be read.
    """
    digest = hashlib.sha256()
    for place in map(Path, paths):
        reason = unreadable(place)
        if reason == "does not exist":
            raise UsageError(f"reads: {place} {reason}", "correct the path; a relative one starts at the recipe's folder")
        if reason not in ("", "is a folder"):
            raise UsageError(f"reads: {place} {reason}", "correct the path, or its permissions")
        for path in sorted(_below(place)) if reason else [place]:
            name = path.relative_to(place).as_posix() if path != place else path.name
            if not (found := sha256_of(str(path))):
                raise UsageError(f"reads: {path} cannot be read", "correct its permissions, or remove it")
            digest.update(os.fsencode(f"{name}\0{found}\n"))
    return digest.hexdigest()


def _below(folder: Path) -> Iterator[Path]:
    """The files below a folder, those behind links to folders too, each folder once; no pipe, on which reading would wait.

    Raises:
        UsageError: A folder cannot be read.
    """
    seen: set[str] = set()
    for place, folders, files in os.walk(folder, followlinks=True, onerror=_refuse_folder):
        if os.path.realpath(place) in seen:
            folders.clear()
            continue
        seen.add(os.path.realpath(place))
        yield from (path for name in files if not is_special(path := Path(place, name)))


def _refuse_folder(error: OSError) -> NoReturn:
    raise UsageError(f"reads: {error.filename} cannot be read: {error.strerror}", "correct its permissions") from error


def is_special(path: Path) -> bool:
    """Return whether something is a pipe, a socket or a device; a link to nothing is none of them, and cannot be read."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def changed(reads: Sequence[Read], folder: Path) -> str:
    """Return the first thing that is another one now and how, or empty.

    Args:
        reads: What the making of a stage depends on.
        folder: The recipe's now.
    """
    return next((reason for read in reads if (reason := _differs(read, folder))), "")


def _differs(read: Read, folder: Path) -> str:
    if read.kind == "package":
        installed = version_of(read.path)
        return "" if installed == read.sha256 else f"{read.path} {read.sha256} → {installed or 'not installed'}"
    for place in _places(read, folder):
        if read.kind == "absent":
            if Path(place).exists():
                return f"{place} was not there"
            continue
        now = stat_of(place)
        if now is None:
            return f"{place} is missing"
        if not read.sha256 or (now != read.stat and sha256_of(place) != read.sha256):
            return f"{place} changed"
    return ""


def _places(read: Read, folder: Path) -> list[str]:
    """Where a file has to be as it was, since what is run now may open any of these.

    Where it lies from the recipe's folder; where it was; and where it lies from the working folder, if it was opened so.
    What is outside of the recipe's folder may be gone from the first, and what has been moved is gone from the second.
    """
    moved, inside = place(read.relative, folder), is_inside(read.relative)
    found = [moved] if inside or Path(moved).exists() else []
    if not found or Path(read.path).exists():
        found.append(read.path)
    if read.typed:
        found.append(str(Path.cwd() / read.typed))
    return list(dict.fromkeys(found))


def is_inside(relative: str) -> bool:
    """Return whether a path from the recipe's folder stays in it."""
    return not relative.startswith(f"..{os.sep}")


def relative(path: str, folder: Path) -> str:
    """Return a path from a folder. What is behind ``..`` in it stays as it is, for that may follow a link to a folder."""
    head, dots, tail = path.partition(f"{os.sep}..{os.sep}")
    return f"{os.path.relpath(head, folder)}{dots}{tail}"


def place(relative: str, folder: Path) -> str:
    """Return the path that :func:`relative` was made from, for the folder now."""
    while relative.startswith(f"..{os.sep}"):
        relative, folder = relative[3:], folder.parent
    return str(folder / relative)


def digest(reads: Iterable[Read]) -> str:
    """Name a list of reads by what they depend on."""
    text = "".join(f"{read.kind} {read.relative or read.path} {read.sha256} {read.typed}\n" for read in reads)
    return hashlib.sha256(os.fsencode(text)).hexdigest()


def version_of(package: str) -> str:
    """Return the version of an installed package, or empty."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def settled(now: Stat | None) -> Stat:
    """A stat that may spare a hashing later; empty if the file is too new, and could change without another stat."""
    return now if now and time.time_ns() - max(now[1:3]) >= _SETTLED_NS else ()


def stat_of(path: str) -> Stat | None:
    """Size, times and place of a plain file. Its change time cannot be set back, as its modification time can."""
    try:
        found = Path(path).stat()
    except (OSError, ValueError):
        return None
    if not stat.S_ISREG(found.st_mode):
        return None
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_dev


def of_rows(rows: Iterable[Sequence[object]]) -> tuple[Read, ...] | None:
    """Read a list that :func:`rows_of` has made; None if it is of an older edgekd."""
    found = []
    for row in rows:
        if len(row) != len(Read.__dataclass_fields__):
            return None
        kind, path, relative, sha256, stat, typed = row
        found.append(Read(kind, path, relative, sha256, tuple(stat), typed))  # type: ignore[arg-type]
    return tuple(found)


def rows_of(reads: Iterable[Read]) -> list[list[object]]:
    """Return a list of reads for JSON."""
    return [[read.kind, read.path, read.relative, read.sha256, read.stat, read.typed] for read in reads]


def merged(reads: Iterable[Read]) -> tuple[Read, ...]:
    """Return reads in the order of their paths, each once."""
    found: Mapping[tuple[str, ...], Read] = {(r.path, r.kind, r.sha256, r.typed): r for r in reads}
    return tuple(found[key] for key in sorted(found))
