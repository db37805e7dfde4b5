"""The user's own Python files: each is imported with the neighbours of its own folder.

Two files may both say ``import blocks`` and mean another one. So what a file imports from its folder is in ``sys.modules``
only while that file imports something, and is imported anew each time the file is.
"""

from __future__ import annotations

import ast
import builtins
import importlib.util
import os
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import wraps
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

from edgekd import reads
from edgekd.errors import ModelError, did_you_mean
from edgekd.models.torchvision import import_torchvision
from edgekd.reads import watch
from edgekd.reads.bytecode import SourceLoader, from_source
from edgekd.reads.libraries import is_library


def load(path: Path, name: str) -> Any:
    """Import the user's file under a name of its own and return its callable.

    Raises:
        ModelError: It cannot be imported, or has no such callable.
    """
    import_torchvision()  # the file may import torchvision
    path = path.absolute()  # a link stays one: its neighbours are those of the project
    folder = _Folder(path.parent)
    own = f"{watch.USER_MODULE}{path.stem}"
    spec = importlib.util.spec_from_file_location(own, path, loader=_Loader(own, str(path), folder))
    assert spec is not None  # a spec is always made where its loader is given
    assert spec.loader is not None  # the given one
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    with watch.recording(), folder.active():
        try:
            spec.loader.exec_module(module)
        except (Exception, SystemExit) as error:  # whatever the user's file raises is theirs to read
            raise ModelError(f"{path} cannot be imported: {type(error).__name__}: {error}", "correct the file") from error
    beside = {path, *(path.parent / file.relative_to(path.parent.resolve()) for file in imported(path))}
    _note(beside, keyed=True)
    if not callable(getattr(module, name, None)):
        public = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise ModelError(f"{path} has no callable {name!r}", did_you_mean(name, public))
    return folder.calling(getattr(module, name))


class _Folder:
    """A user's folder, and what one of its files has imported from it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.builtins = {**vars(builtins), "__import__": self._import}
        self._modules: dict[str, ModuleType] = {}
        self._is_active = False
        inside = [*path.iterdir()]
        self._files = {entry.stem for entry in inside if entry.suffix == ".py"} - sys.stdlib_module_names
        self._folders = {entry.name for entry in inside if entry.is_dir()} - sys.stdlib_module_names
        self._files |= {name for name in self._folders if (path / name / "__init__.py").is_file()}

    @contextmanager
    def active(self) -> Iterator[None]:
        """Let an import find this folder's modules and no other folder's."""
        if self._is_active:
            yield
            return
        with from_source(), self._in_memory():
            yield

    @contextmanager
    def _in_memory(self) -> Iterator[None]:
        others = {name: sys.modules.pop(name) for name in [*sys.modules] if self._hides(name)}
        before = {*sys.modules}
        sys.modules.update(self._modules)
        sys.meta_path.insert(0, self)
        sys.path.insert(0, str(self.path))
        self._is_active = True
        try:
            yield
        finally:
            self._is_active = False
            with suppress(ValueError):  # the user's code may change the path too
                sys.path.remove(str(self.path))
            sys.meta_path.remove(self)
            for name in [name for name in sys.modules if name not in before]:
                if name in self._modules or self._is_below(_place(sys.modules[name])):
                    self._modules[name] = sys.modules.pop(name)
            sys.modules.update(others)

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Find a module in this folder; see ``importlib.abc.MetaPathFinder``."""
        spec = PathFinder.find_spec(name, [str(self.path)] if path is None else path, target)
        if spec is None or not isinstance(spec.loader, SourceFileLoader) or not self._is_below(spec.origin):
            return None  # a compiled module, a folder without __init__.py, or another place: sys.path has them
        spec.loader = _Loader(name, spec.loader.path, self)
        return spec

    def calling(self, builder: Callable[..., Any]) -> Callable[..., Any]:
        """Return the builder, for which ``importlib.import_module`` finds this folder's modules too."""

        @wraps(builder, updated=())
        def built(*args: Any, **kwargs: Any) -> Any:
            with self.active():
                return builder(*args, **kwargs)

        return built

    def _import(self, *args: Any, **kwargs: Any) -> ModuleType:
        with self.active():
            return builtins.__import__(*args, **kwargs)

    def _hides(self, name: str) -> bool:
        """Return whether a module in memory is another one than its name means in this folder, such as a script's import."""
        top = name.partition(".")[0]
        if top not in self._files and top not in self._folders:
            return False  # nearly all of several thousand modules
        place = _place(sys.modules[top]) if top in sys.modules else None
        if place is not None and self._is_below(place) and is_library(place):
            return False  # edgekd's own folder lies beside the file
        return top in self._files or getattr(sys.modules.get(top), "__file__", None) is None

    def _is_below(self, file: str | None) -> bool:
        return file is not None and file.startswith(f"{self.path}{os.sep}")


def _place(module: ModuleType) -> str | None:
    """File of a module, or folder of a package without ``__init__.py``."""
    file: str | None = getattr(module, "__file__", None)
    return file or next((f"{folder}{os.sep}" for folder in getattr(module, "__path__", ())), None)


class _Loader(SourceLoader):
    """Runs a module of a user's folder so that its import statements, whenever they run, begin in that folder."""

    def __init__(self, name: str, path: str, folder: _Folder) -> None:
        super().__init__(name, path)
        self._folder = folder

    def exec_module(self, module: ModuleType) -> None:
        """Run the module."""
        module.__dict__["__builtins__"] = self._folder.builtins
        super().exec_module(module)


def note_plugin(entry: object) -> None:
    """Record the files of another package that a loss or an exporter is from, wherever that package is installed.

    By their bytes: its version says nothing of an edit.
    """
    name = getattr(entry, "__module__", "")
    top = name.partition(".")[0]
    if top == "edgekd":
        return
    modules = [module for own, module in [*sys.modules.items()] if own.partition(".")[0] == top]
    files = {Path(place) for module in modules if (place := _place(module) or "").endswith(".py")}
    _note(files)


def _note(files: Collection[Path], *, keyed: bool = False) -> None:
    """Record files and what they import: the user's files by their bytes, installed packages by their versions.

    Args:
        files: The files.
        keyed: The key has them.
    """
    own, installed = elsewhere(files)
    names = [str(file) for file in files]
    watch.note([*map(str, own), *([] if keyed else names)], names if keyed else ())
    watch.note_packages(installed)


def imported(path: Path) -> set[Path]:
    """Files of its own folder that a user's file imports, and those that these import. Reads them, runs nothing."""
    folder = path.parent.resolve()
    found: set[Path] = set()
    waiting = [path.resolve()]
    while waiting:
        file = waiting.pop()
        for parts in _imports(file, folder):
            for end in range(1, len(parts) + 1):
                stem = folder.joinpath(*parts[:end])
                for candidate in (stem.with_name(f"{stem.name}.py"), stem / "__init__.py"):
                    if candidate.is_file() and candidate not in found:
                        found.add(candidate)
                        waiting.append(candidate)
    return found - {path.resolve()}


def elsewhere(files: Iterable[Path]) -> tuple[set[Path], set[str]]:
    """Return the files outside of their folder that given files import, with all that these import.

    Returns:
        Files of modules in memory that are no installed package's: a library of the user's that lies on ``PYTHONPATH``, or
        is installed as editable. And the top-level names of all that is imported from elsewhere.
    """
    found: set[Path] = set()
    installed: set[str] = set()
    waiting = [(file, "") for file in files]
    while waiting:
        file, package = waiting.pop()
        for name in _names(file, package):
            top = name.partition(".")[0]
            if top in sys.stdlib_module_names or top == "edgekd":
                continue
            installed.add(top)
            module = sys.modules.get(name)
            origin = getattr(module, "__file__", None)
            if module is None or not origin or not origin.endswith(".py") or Path(origin) in found:
                continue
            if not is_library(origin) or top not in watch.packages():
                found.add(Path(origin))
                waiting.append((Path(origin), module.__package__ or ""))
    return found, installed


def _imports(file: Path, folder: Path) -> Iterator[tuple[str, ...]]:
    """Dotted names that a file imports, each as its parts below ``folder``."""
    for level, module, names in _statements(file):
        if not level and not module:
            yield from (tuple(name.split(".")) for name in names)
            continue
        base = file.parents[level - 1] if level else folder
        if base.is_relative_to(folder):
            parts = (*base.relative_to(folder).parts, *(module.split(".") if module else ()))
            yield from ((*parts, name) for name in names)


def _names(file: Path, package: str) -> Iterator[str]:
    """Dotted names of the modules that a file of a package imports, with all that these names begin with."""
    for level, module, names in _statements(file):
        parts = package.split(".")[: len(package.split(".")) - level + 1] if level else []
        stem = ".".join([*parts, *([module] if module else [])])
        for name in names:
            whole = f"{stem}.{name}" if stem else name
            yield from (whole.rsplit(".", cut)[0] if cut else whole for cut in range(whole.count(".") + 1))


def _statements(file: Path) -> Iterator[tuple[int, str, list[str]]]:
    """The import statements of a file: how many dots, after ``from``, and the names."""
    try:
        with reads.in_key(file):
            tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError):  # told when it is imported
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield 0, "", [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            yield node.level, node.module or "", [alias.name for alias in node.names]
