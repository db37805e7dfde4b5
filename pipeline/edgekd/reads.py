"""What the making of a stage reads of the user's, besides what its key is made of.

A key is made of what a recipe declares. The user's code may read more: a library beside the project, a config file. Each
such file is recorded while the stage runs, and the finished stage is used again only while all of them have the same bytes.

Python says of each file that it opens, so nothing has to be declared. What a native library opens itself is not seen:
docs/cache.md says how to declare it.
"""

from __future__ import annotations

import hashlib
import os
import site
import stat
import sys
import sysconfig
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import source_from_cache
from pathlib import Path
from typing import Any, NoReturn

from edgekd.errors import UsageError

_PACKAGE = Path(__file__).resolve().parent
_SYSTEM = ("/proc", "/sys", "/dev", "/run", "/etc", "/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/share")
_SETTLED_NS = 2 * 10**9  # a file may change twice in one tick of its clock, so a stat counts only after a while
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


@dataclass(frozen=True)
class Read:
    """One file that the making of a stage has read.

    Attributes:
        path: The file.
        relative: The same from the recipe's folder, so that a project can be moved.
        sha256: Of its bytes; empty if they changed while the stage ran.
        stat: Size, times and place on the disk, which spare the hashing while they are the same; empty if the file was too
            new for that.
    """

    path: str
    relative: str
    sha256: str
    stat: tuple[int, ...]


class Recorder:
    """The files that are opened for reading while it is active."""

    def __init__(self) -> None:
        self.opened: dict[str, tuple[int, ...]] = {}
        self.left_out: set[str] = set()
        self.other: set[str] = set()

    def changed(self) -> str:
        """Return a file that was read and no longer had the bytes of which the key is made, or empty."""
        return next((path for path in sorted(self.other) if _sha256(path) != _hashed[path][1]), "")

    def reads(self, folder: Path, before: Iterable[Read] = (), without: Sequence[Path] = ()) -> tuple[Read, ...]:
        """Return what was read, in the order of the paths. Files that are gone or that were written here are left out.

        Args:
            folder: The recipe's.
            before: What the making of the stages that this one reads has read.
            without: Folders of edgekd's own.
        """
        found = {(read.path, read.sha256): read for read in before}
        own = tuple(f"{place}{os.sep}" for place in without)
        for path, first in self.opened.items():
            now = _stat(path)
            if now is None or path in self.left_out or path.startswith(own):
                continue
            digest = _sha256(path) if now == first else ""
            found.setdefault((path, digest), Read(path, os.path.relpath(path, folder), digest, _settled(now)))
        return tuple(found[key] for key in sorted(found))


_recorders: list[Recorder] = []
_here = threading.local()
_hooked = False
_first: dict[str, tuple[int, ...]] = {}
_hashed: dict[str, tuple[tuple[int, ...], str]] = {}
"""What keys are made of: the stat of each file when it was hashed, and its hash."""


@contextmanager
def recording() -> Iterator[Recorder]:
    """Record the files that this process opens for reading; recordings can be inside of each other."""
    global _hooked
    if not _hooked:
        sys.addaudithook(_hook)  # it cannot be taken out again
        _hooked = True
    recorder = Recorder()
    _recorders.append(recorder)
    try:
        yield recorder
    finally:
        _recorders.remove(recorder)


@contextmanager
def in_key() -> Iterator[None]:
    """Do not record what this thread opens: the key has it, by its bytes and not by its path."""
    before = getattr(_here, "in_key", False)
    _here.in_key = True
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
        with in_key(), path.open("rb"):
            return ""
    except (FileNotFoundError, NotADirectoryError):
        return "does not exist"
    except (OSError, ValueError) as error:
        return f"cannot be read: {getattr(error, 'strerror', None) or error}"


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file for a key. While size, times and place of the file stay, it is hashed once in a process.

    Raises:
        OSError: It cannot be read.
    """
    name, now = os.path.normpath(path.absolute()), _stat(str(path))
    known = _hashed.get(name)
    if known is not None and known[0] == now:
        return known[1]
    with in_key(), path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    _hashed[name] = (_settled(now), found)
    return found


def state(paths: Iterable[Path]) -> str:
    """Return a hash of the size, times and place of files; empty if one is too new for that, or missing."""
    digest = hashlib.sha256()
    for path in paths:
        now = _settled(_stat(str(path)))
        if not now:
            return ""
        digest.update(os.fsencode(f"{path} {now}\n"))
    return digest.hexdigest()


def note(paths: Iterable[str]) -> None:
    """Record source files that are used without being opened, since they have been imported before.

    The first time counts: a file that has changed since then is not what was imported.
    """
    for name in paths:
        first = _first.setdefault(name, _stat(name) or ())
        for recorder in _recorders:
            recorder.opened.setdefault(name, first)


def take_over(opened: Mapping[str, Sequence[int]]) -> None:
    """Record what another process has opened: its ``Recorder.opened``."""
    for recorder in _recorders:
        for name, found in opened.items():
            recorder.opened.setdefault(name, tuple(found))


def leave_out(paths: Iterable[Path]) -> None:
    """Do not record these files: the key has them."""
    for recorder in _recorders:
        recorder.left_out.update(str(path) for path in paths)


def is_library(path: str | Path) -> bool:
    """Tell whether a file belongs to Python, to an installed package, to edgekd or to the system."""
    return str(path).startswith(_libraries()) or Path(path).parent.suffix in (".dist-info", ".egg-info")


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
            found = _sha256(str(path))
            if not found:
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
    """Whether something is a pipe, a socket or a device; a link to nothing is none of them, and cannot be read."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def changed(reads: Sequence[Read], folder: Path) -> str:
    """Return the first file whose bytes are other ones now, or empty.

    A file counts where it lies from the recipe's folder; one from outside of it, else where it was.
    """
    for read in reads:
        moved = os.path.normpath(folder / read.relative)
        path = moved if not read.relative.startswith("..") or Path(moved).exists() else read.path
        now = _stat(path)
        if now is None:
            return f"{read.path} is missing"
        if not read.sha256 or (now != read.stat and _sha256(path) != read.sha256):
            return f"{path} changed"
    return ""


def digest(reads: Iterable[Read]) -> str:
    """Name a list of reads by their bytes."""
    return hashlib.sha256(os.fsencode("".join(f"{read.relative} {read.sha256}\n" for read in reads))).hexdigest()


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if event != "open" or not _recorders:
        return
    given, _, flags = arguments
    try:
        name = os.path.normpath(Path.cwd() / os.fsdecode(given))
    except TypeError:  # a descriptor, of a file that is open already
        return
    if isinstance(flags, int) and flags & _WRITES:
        for recorder in _recorders:
            recorder.left_out.add(name)
        return
    if name.endswith(".pyc"):
        try:
            name = source_from_cache(name)
        except ValueError:
            return
    if name.endswith(".py") and Path(sys._getframe(1).f_code.co_filename).stem in ("tokenize", "linecache"):
        return  # a line of it is shown, in a warning
    hashed = _hashed.get(name)
    if hashed is not None and _stat(name) != hashed[0]:
        for recorder in _recorders:
            recorder.other.add(name)
    if getattr(_here, "in_key", False) or is_library(name):
        return
    now = _stat(name)
    if now is not None:
        for recorder in _recorders:
            recorder.opened.setdefault(name, now)


def _libraries() -> tuple[str, ...]:
    global _prefixes
    if not _prefixes:
        paths = sysconfig.get_paths()
        folders = {paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")}
        folders |= {*site.getsitepackages(), site.getusersitepackages(), str(_PACKAGE), *_SYSTEM}
        folders |= {sys.prefix} if sys.prefix != sys.base_prefix else set()
        folders |= {os.path.realpath(folder) for folder in folders}
        _prefixes = tuple(f"{folder}{os.sep}" for folder in sorted(folders))
    return _prefixes


_prefixes: tuple[str, ...] = ()


def _settled(now: tuple[int, ...] | None) -> tuple[int, ...]:
    """A stat that may spare a hashing later; empty if the file is too new, and could change without another stat."""
    return now if now and time.time_ns() - max(now[1:3]) >= _SETTLED_NS else ()


def _stat(path: str) -> tuple[int, ...] | None:
    """Size, times and place of a plain file. Its change time cannot be set back, as its modification time can."""
    try:
        found = Path(path).stat()
    except (OSError, ValueError):
        return None
    if not stat.S_ISREG(found.st_mode):
        return None
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_dev


def _sha256(path: str) -> str:
    try:
        with in_key(), Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""
