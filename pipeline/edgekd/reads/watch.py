"""Watches what this process reads of the user's, so that a stage's result can be kept with a list of it (reads.py).

Python says of each file that it opens, so nothing has to be declared. What a native library opens itself is not seen:
docs/cache.md says how to declare it.

A stage may depend on what was opened before it: a module is imported once in a process, and a function may keep what it has
read. So each opened file is also noted with the user's files whose code has led to it, and is a read of every later stage
that uses one of these.
"""

from __future__ import annotations

import linecache
import os
import sys
import threading
import tokenize
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from importlib.metadata import packages_distributions
from importlib.util import source_from_cache
from pathlib import Path
from types import FrameType
from typing import Any

from edgekd.reads import Read, Stat, is_in_key, merged, named, relative, settled, sha256_of, stat_of, version_of
from edgekd.reads.libraries import PACKAGE, is_library

_EVENTS = ("open", "import", "ctypes.dlopen", "os.rename")
_IMPORTS = tuple(str(Path(__file__).parents[1] / name) for name in ("models/user_file.py", "reads/bytecode.py"))
_IMPORT = "<frozen importlib._bootstrap>"
USER_MODULE = "edgekd_user_"
"""What the names of modules begin with that user_file.py has made of a file: each is imported anew where it is used."""

_first: dict[str, Stat] = {}
"""The stat of each file when this process first opened it; empty if it was not there."""
_opened: set[str] = set()
_before: dict[str, str] = {}
"""The hash of each file that this process has read and then written, from before that."""
_own: set[str] = set()
"""Files that a stage has made before it read them."""
_led: dict[str, set[str]] = {}
"""Each of the user's files with what its code has led to opening."""
_typed: dict[str, str] = {}
_plugins: set[str] = set()
"""What was opened to import losses and exporters of other packages: only the stages that use them depend on it."""
_recorders: list[Recorder] = []
_here = threading.local()
_hooked = False


class Recorder:
    """Records the files that this process reads while it is active.

    Args:
        expected: The files that the key is made of, with their hashes.
        keyed: Where to put the names of those that are opened in :func:`edgekd.reads.in_key`.
    """

    def __init__(self, expected: Mapping[str, str] | None = None, keyed: set[str] | None = None) -> None:
        self.expected = expected or {}
        self.keyed = keyed
        self.same: set[str] = set()
        self.other: set[str] = set()
        self.opened: dict[str, Stat] = {}
        self.before: dict[str, str] = {}
        self.used: set[str] = set()
        self.left_out: set[str] = set()
        self.packages: dict[str, str] = {}

    def changed(self) -> str:
        """Return a file that was read, or may have been, and had not the bytes that the key is made of; or empty."""
        unseen = (name for name, sha256 in self.expected.items() if name not in self.same and sha256_of(name) != sha256)
        return next(iter(sorted(self.other)), "") or next(unseen, "")

    def reads(self, folder: Path, before: Iterable[Read] = (), without: Sequence[Path] = ()) -> tuple[Read, ...]:
        """Return what was read, in the order of the paths. Files that are gone or that were written here are left out.

        Args:
            folder: The recipe's.
            before: What the making of the stages that this one reads has read.
            without: Folders of edgekd's own.
        """
        own = tuple(f"{place}{os.sep}" for place in without)
        found = [Read("package", name, sha256=version) for name, version in self.packages.items()]
        for path, first in self._found().items():
            now = stat_of(path)
            if path.startswith(own) or (first and now is None):
                continue
            digest = self.before.get(path)
            if digest is None and path not in self.opened:
                digest = _before.get(path)
            if digest is None:
                digest = sha256_of(path) if first and now == first else ""
            stat = settled(now) if first and now == first else ()
            kind: Any = "file" if first else "absent"
            found.append(Read(kind, path, relative(path, folder), digest, stat, _typed.get(path, "")))
        return merged([*before, *found])

    def told(self) -> dict[str, Any]:
        """Return what another process has to know of it, for JSON."""
        opened = {name: [stat, self.before.get(name), _typed.get(name, "")] for name, stat in self._found().items()}
        return {"opened": opened, "packages": self.packages, "same": sorted(self.same), "other": sorted(self.other)}

    def _found(self) -> dict[str, Stat]:
        """What it has opened, and what the code that it has used has led to before; with the first stats."""
        names: set[str] = set()
        waiting = [*self.used, *self.opened, *(_staying() if self.used else ())]
        while waiting:
            name = waiting.pop()
            if name not in names:
                names.add(name)
                waiting += _led.get(name, ())
        firsts = {name: self.opened.get(name, _first.get(name)) for name in sorted(names - self.left_out)}
        return {name: first for name, first in firsts.items() if first is not None}


@contextmanager
def recording(expected: Mapping[str, str] | None = None, keyed: set[str] | None = None) -> Iterator[Recorder]:
    """Record what this process reads; recordings can be inside of each other.

    Args:
        expected: The files that a key is made of, with their hashes.
        keyed: Where to put the names of files that are opened as files of a key, which are not recorded.
    """
    global _hooked
    if not _hooked:
        sys.addaudithook(_hook)  # it cannot be taken out again
        _hooked = True
    recorder = Recorder(expected, keyed)
    _recorders.append(recorder)
    try:
        yield recorder
    finally:
        _recorders.remove(recorder)


@contextmanager
def plugin() -> Iterator[None]:
    """Import a loss or an exporter of another package: only what uses it depends on what that opens."""
    with recording() as recorder:
        yield
    _plugins.update(recorder.opened)


def note(paths: Iterable[str], keyed: Iterable[str] = ()) -> None:
    """Record source files that are used without being opened, since they have been imported before, and what they read.

    The first time counts: a file that has changed since then is not what was imported.

    Args:
        paths: The files.
        keyed: More of them, which are not recorded themselves, since the key has them.
    """
    sources, left_out = {named(path) for path in paths}, {named(path) for path in keyed}
    for name in sources:
        if now := stat_of(name):
            _first.setdefault(name, now)
    for recorder in _recorders:
        recorder.used |= sources | left_out
        recorder.left_out |= left_out


def note_packages(modules: Iterable[str]) -> None:
    """Record the versions of the installed packages that top-level modules are of; what is of none is nothing."""
    for package in {package for module in modules for package in packages().get(module, ())}:
        for recorder in _recorders:
            recorder.packages.setdefault(package, version_of(package))


@cache
def packages() -> Mapping[str, Sequence[str]]:
    """Top-level modules with the installed packages that have them."""
    with _unwatched():
        return packages_distributions()


@contextmanager
def _unwatched() -> Iterator[None]:
    """Leave out what edgekd itself looks up in this thread."""
    before = getattr(_here, "busy", False)
    _here.busy = True
    try:
        yield
    finally:
        _here.busy = before


def take_over(told: Mapping[str, Any]) -> None:
    """Record what another process has read: its :meth:`Recorder.told`."""
    for name, (stat, before, typed) in told["opened"].items():
        if typed:
            _typed.setdefault(name, typed)
        for recorder in _recorders:
            recorder.opened.setdefault(name, tuple(stat))
            if before is not None:
                recorder.before.setdefault(name, before)
    for recorder in _recorders:
        recorder.packages = {**told["packages"], **recorder.packages}
        recorder.same.update(told["same"])
        recorder.other.update(told["other"])


def _staying() -> Iterator[str]:
    """The user's modules that this process has seen imported and has in memory: code may ask for them by name."""
    for module_name, module in [*sys.modules.items()]:
        with suppress(Exception):  # a module may be any object
            name = getattr(module, "__file__", None)
            if name in _opened and name not in _plugins and not module_name.startswith(USER_MODULE):
                yield name


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if event not in _EVENTS or getattr(_here, "busy", False):
        return
    _here.busy = True
    try:
        if event == "open":
            _open(arguments[0], arguments[2], sys._getframe(1))
        elif event == "os.rename":
            _write(named(arguments[1]))
        else:  # of a compiled module, or a library
            file = arguments[1 if event == "import" else 0]
            if isinstance(file, str | bytes) and os.sep in os.fsdecode(file):
                _read(named(file), file, sys._getframe(1))
    except (OSError, TypeError, ValueError):  # a descriptor, of a file that is open already; no working folder; no path
        return
    finally:
        _here.busy = False


def _open(given: Any, flags: Any, opener: FrameType) -> None:
    name = named(given)
    flags = flags if isinstance(flags, int) else 0
    if flags & (os.O_WRONLY | os.O_TRUNC) or (flags & os.O_CREAT and (flags & os.O_EXCL or not Path(name).exists())):
        _write(name)
        return
    if name.endswith(".pyc") and Path(name).parent.name == "__pycache__":
        name = source_from_cache(name)
    if not _is_shown(opener):
        _read(name, given, opener)
    if flags & os.O_RDWR:
        _write(name)


def _is_shown(frame: FrameType) -> bool:
    """Return whether a file is opened to show a line of it, in a warning or a traceback."""
    files = (tokenize.__file__, linecache.__file__)
    caller: FrameType | None = frame
    while caller is not None and caller.f_code.co_filename == files[0]:
        caller = caller.f_back
    return caller is not None and caller.f_code.co_filename == files[1]


def _read(name: str, given: Any, opener: FrameType) -> None:
    """Record that a file is about to be opened for reading."""
    now = stat_of(name)
    for recorder in _recorders:
        if sha256 := recorder.expected.get(name):
            (recorder.same if sha256_of(name) == sha256 else recorder.other).add(name)
    if is_in_key(name):
        for recorder in _recorders:
            if recorder.keyed is not None:
                recorder.keyed.add(name)
        return
    if is_library(name) or (now is None and Path(name).exists()):
        return
    callers, by_itself = _callers(opener)
    if now is None and (by_itself or not callers):
        return
    if not Path(os.fsdecode(given)).is_absolute():
        _typed.setdefault(name, os.fsdecode(given))
    for recorder in _recorders:
        recorder.opened.setdefault(name, now or ())
    if name not in _own:
        _first.setdefault(name, now or ())
        _opened.add(name)
        for caller in callers or (() if callers is not None else {name for r in _recorders for name in r.used}):
            _led.setdefault(caller, set()).add(name)


def _callers(frame: FrameType | None) -> tuple[list[str] | None, bool]:
    """Say which of the user's files lead from edgekd to what is done now, and whether a library is imported that does it.

    None instead of the files where neither edgekd nor one of them is seen, as in a thread of the user's.
    """
    found: list[str] = []
    by_itself = False
    while frame is not None:
        file = frame.f_code.co_filename
        if file.startswith(_EDGEKD) and file not in _IMPORTS:
            return found, by_itself
        if _is_users(file):
            found.append(_users[file])
        elif not found and file == _IMPORT:
            by_itself = True
        frame = frame.f_back
    return found or None, by_itself


_EDGEKD = tuple(f"{folder}{os.sep}" for folder in {str(PACKAGE), str(Path(__file__).parents[1])})
_users: dict[str, str] = {}


@cache
def _is_users(file: str) -> bool:
    if file.startswith("<") or is_library(file):
        return False
    _users[file] = named(file)
    return True


def _write(name: str) -> None:
    """Record that a file is about to be written. What was read of it before counts as it was read."""
    for recorder in _recorders:
        if name not in recorder.opened:
            recorder.left_out.add(name)
        elif recorder.opened[name] and name not in recorder.left_out and name not in recorder.before:
            recorder.before[name] = sha256_of(name) if stat_of(name) == recorder.opened[name] else ""
    first = _first.get(name)
    if first is None and _recorders:
        _own.add(name)
    elif first and name not in _before:
        _before[name] = sha256_of(name) if stat_of(name) == first else ""
