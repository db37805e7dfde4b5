"""One registry for everything that is chosen by name: losses, exporters, metrics and tasks.

A built-in entry is a decorated object in a module of the registry's package; nothing else has to be edited. A third
party's entry comes from the entry-point group of the same name and is imported only when a recipe names it.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Generic, TypeVar

from edgekd.errors import UsageError, did_you_mean
from edgekd.reads import watch
from edgekd.reads.bytecode import from_source

T = TypeVar("T")


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
        self._loaded = False

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
        return sorted({*self._entries, *(point.name for point in entry_points(group=self.group))})

    def __contains__(self, name: str) -> bool:
        """Return whether there is an entry called ``name``; entry points are searched only if none is loaded."""
        self._load()
        return name in self._entries or name in self.names()

    def get(self, name: str) -> T:
        """Return the entry called ``name``.

        Raises:
            UsageError: No such entry, or a third party's package that cannot be imported.
        """
        self._load()
        if name not in self._entries:
            self._load_plugin(name)
        return self._entries[name]

    def _load(self) -> None:
        if self._loaded:
            return
        self._loaded = True
        package = importlib.import_module(self._package)
        for module in sorted(info.name for info in pkgutil.iter_modules(package.__path__)):
            importlib.import_module(f"{self._package}.{module}")

    def _load_plugin(self, name: str) -> None:
        for point in entry_points(group=self.group, name=name):
            where = f"{self.noun} {name!r} comes from {point.value}"
            if point.dist is not None:
                where += f" of {point.dist.name} {point.dist.version}"
            try:
                with watch.plugin(), from_source():
                    entry = point.load()
            except Exception as error:  # a broken plugin is named, whatever it raised
                moved = isinstance(error, ImportError) and (error.name or "").partition(".")[0] == "edgekd"
                raise UsageError(
                    f"{where}, which cannot be imported: {error}", _OTHER if moved else "repair or uninstall that package"
                ) from error
            if lacks := self._lacks(entry):
                raise UsageError(f"{where}, which {lacks}", _OTHER)
            self._entries[name] = entry
            return
        raise UsageError(f"unknown {self.noun} {name!r}", did_you_mean(name, self.names()))

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


_OTHER = "it was made for another edgekd: install a version of it for this one; docs/extending.md says what it needs"

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
