"""One registry for everything that is chosen by name: losses, exporters, metrics and tasks.

A built-in entry is a decorated object in a module of the registry's package; nothing else has to be edited. A third
party's entry comes from the entry-point group of the same name and is imported only when a recipe names it.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import lru_cache
from importlib.metadata import EntryPoint, EntryPoints, entry_points, packages_distributions, version
from pathlib import Path
from threading import RLock
from typing import Generic, TypeVar, cast

from edgekd import __version__
from edgekd.errors import UsageError, did_you_mean
from edgekd.reads import watch
from edgekd.reads.bytecode import from_source

T = TypeVar("T")

_registries: list[Registry[object]] = []
_LOCK = RLock()
"""Of all registries: a module that is imported for one may ask another, and itself, for an entry."""


class Registry(Generic[T]):
    """Names → objects, filled by decorator, loaded on first use.

    Args:
        noun: What one entry is called in messages, such as ``loss``.
        package: Package whose modules register the built-in entries.
        protocol: The protocol, or the base class, of an entry, as ``MODULE.NAME``; a third party's is held against it.
        group: Entry-point group for third parties.

    Example:
        >>> from edgekd.registry import losses
        >>> "kd" in losses.names()
        True
    """

    def __init__(self, noun: str, package: str, protocol: str, group: str) -> None:
        self.noun = noun
        self._package = package
        self._protocol = protocol
        self.group = group
        self._entries: dict[str, T] = {}
        self._plugins: set[str] = set()
        self._used: set[str] = set()
        self._loaded = self._loading = False
        _registries.append(cast("Registry[object]", self))

    def register(self, name: str) -> Callable[[T], T]:
        """Register the decorated object under ``name``; a name is taken once."""

        def decorate(entry: T) -> T:
            if name in self._entries:
                raise ValueError(f"{self.noun} {name!r} is registered twice")
            self._entries[name] = entry
            return entry

        return decorate

    def names(self) -> list[str]:
        """Sorted names of all entries, third parties' included (those are not imported for it)."""
        self._load()
        return sorted({*self._entries, *(point.name for point in _points(self.group))})

    def __contains__(self, name: str) -> bool:
        """Return whether there is an entry called ``name``; entry points are searched only if none is loaded."""
        self._load()
        return name in self._entries or name in self.names()

    def get(self, name: str) -> T:
        """Return the entry called ``name``.

        Raises:
            UsageError: No such entry, or a third party's package that cannot be imported.
        """
        entry = self._get(name)
        self._used.add(name)
        return entry

    def usable(self) -> dict[str, T]:
        """Return all entries by name, without those whose package is broken: they stop only who names them."""
        found = {}
        for name in self.names():
            with suppress(UsageError):
                found[name] = self._get(name)
        return found

    def listed(self) -> tuple[dict[str, T], dict[str, UsageError]]:
        """Return all entries by name; and by name, why another cannot be used.

        Two packages may have an entry of one name, or one that edgekd has: each of those has a row ``NAME (PACKAGE)``.
        """
        found, broken = {}, {}
        for name in self.names():
            try:
                found[name] = self._get(name)
            except UsageError as error:
                broken[name] = error
        for point in _points(self.group):
            if self._is_hidden(point):
                broken[f"{point.name} ({_package(point)})"] = UsageError(self._hidden(point), _RENAME)
        return found, broken

    def _get(self, name: str) -> T:
        self._load()
        if name not in self._entries:
            with _LOCK:
                self._load_plugin(name)
        return self._entries[name]

    def _is_hidden(self, point: EntryPoint) -> bool:
        return point.name in self._entries and point.name not in self._plugins

    def _hidden(self, point: EntryPoint) -> str:
        return f"{self._origin(point)}, which is not used: edgekd has a {self.noun} of this name"

    def _origin(self, point: EntryPoint) -> str:
        return f"{self.noun} {point.name!r} comes from {point.value}{f' of {_package(point)}' if point.dist else ''}"

    def _load(self) -> None:
        if self._loaded:
            return
        with _LOCK:
            if self._loaded or self._loading:  # the second: this thread is importing the modules now
                return
            self._loading = True
            try:
                package = importlib.import_module(self._package)
                for module in sorted(info.name for info in pkgutil.iter_modules(package.__path__)):
                    importlib.import_module(f"{self._package}.{module}")
            finally:
                self._loading = False
            self._loaded = True

    def _load_plugin(self, name: str) -> None:
        points = {point.value: point for point in _points(self.group).select(name=name)}
        if not points:
            raise UsageError(f"unknown {self.noun} {name!r}", did_you_mean(name, self.names()))
        if len(points) > 1:
            places = " and ".join(f"{point.value} of {_package(point)}" for point in points.values())
            raise UsageError(f"{self.noun} {name!r} comes from {len(points)} places: {places}", "uninstall all but one")
        (point,) = points.values()
        where = self._origin(point)
        try:
            with watch.plugin(), from_source():
                entry = point.load()
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a broken plug-in is named, whatever it raised; SystemExit is no Exception
            moved = isinstance(error, ImportError) and (error.name or "").partition(".")[0] == "edgekd"
            kind = "" if isinstance(error, ImportError) else f"{type(error).__name__}: "
            hint = _version_hint(point) if moved else "repair or uninstall that package"
            raise UsageError(f"{where}, which cannot be imported: {kind}{error}", hint) from error
        if lacks := self._lacks(entry):
            hint = f"{_AUTHOR}; as its user, {_version_hint(point)}"
            raise UsageError(f"{where}, which {lacks}", hint)
        self._plugins.add(name)
        self._entries[name] = entry

    def _lacks(self, entry: object) -> str:
        """Say what an entry has not of the protocol; empty where it has all."""
        module, _, name = self._protocol.rpartition(".")
        protocol = getattr(importlib.import_module(module), name)
        if not getattr(protocol, "_is_protocol", False):
            fits = isinstance(entry, type) and issubclass(entry, protocol)
            return "" if fits else f"does not derive from {self._protocol}"
        declared = {key for kind in getattr(entry, "__mro__", ()) for key in vars(kind).get("__annotations__", ())}
        with_default = vars(protocol).keys() & protocol.__annotations__
        wanted = {key for key in {*vars(protocol), *protocol.__annotations__} - with_default if not key.startswith("_")}
        missing = sorted(key for key in wanted - declared if not hasattr(entry, key))
        return f"has no {', '.join(missing)}" if missing else ""


def _points(group: str) -> EntryPoints:
    """Return the entry points of a group."""
    folders = tuple((folder, _changed(folder)) for folder in sys.path)
    return _read_points(group, folders, tuple(map(id, sys.meta_path)))


@lru_cache(maxsize=64)  # a user's folder has a path of its own while its code runs
def _read_points(group: str, folders: tuple[tuple[str, int], ...], finders: tuple[int, ...]) -> EntryPoints:
    """Read the entry points, which opens a file of every package; again where the path or what is installed has changed."""
    return entry_points(group=group)


def _changed(folder: str) -> int:
    """When something was last installed in a folder of the path; 0 where there is none."""
    try:
        return Path(folder).stat().st_mtime_ns
    except OSError:
        return 0


_AUTHOR = "as its author, add that: docs/extending.md says what it needs"
_RENAME = "uninstall that package, or let its author give it another name"


def _package(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist is not None else "a package"


def _version_hint(point: EntryPoint) -> str:
    name = point.dist.name if point.dist is not None else "it"
    return f"install a version of {name} that was made for edgekd {__version__}"


def package_of(entry: object) -> str | None:
    """Return the name and version of the package that an entry is from, as ``edgekd-huber 1.0``; None for edgekd's own."""
    top = getattr(entry if isinstance(entry, type) else type(entry), "__module__", "").partition(".")[0]
    if top == "edgekd":
        return None
    names = packages_distributions().get(top, ())
    return " and ".join(f"{name} {version(name)}" for name in names) or f"the module {top}"


def hidden() -> Iterator[str]:
    """Say which plug-ins are not used, because edgekd has an entry of that name that this process has asked for."""
    for registry in _registries:
        for point in _points(registry.group) if registry._used else ():
            if point.name in registry._used and registry._is_hidden(point):
                yield f"{registry._hidden(point)}; {_RENAME}"


losses: Registry[type] = Registry("loss", "edgekd.distill.losses", "edgekd.recipe.loss.Loss", "edgekd.losses")
exporters: Registry[type] = Registry(
    "exporter", "edgekd.exporting.formats", "edgekd.exporting.exporter.Exporter", "edgekd.exporters"
)
metrics: Registry[type] = Registry("metric", "edgekd.metrics", "edgekd.metrics.base.Metric", "edgekd.metrics")
sources: Registry[type] = Registry("data source", "edgekd.data.sources", "edgekd.data.sources.base.Source", "edgekd.sources")
transports: Registry[type] = Registry(
    "transport", "edgekd.profiling.transports", "edgekd.profiling.transports.base.Transport", "edgekd.transports"
)
tasks: Registry[type] = Registry("task", "edgekd.task", "edgekd.task.base.Task", "edgekd.tasks")
