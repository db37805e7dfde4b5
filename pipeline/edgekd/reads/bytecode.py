"""The user's modules run from their source.

Python takes a module's compiled form while size and time of the source are the same, to the second: an edit, or a copy that
keeps the time, may be run in its old form, as the result of the new one.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.machinery import ModuleSpec, SourceFileLoader
from types import CodeType, ModuleType

from edgekd.reads.libraries import is_library


class SourceLoader(SourceFileLoader):
    """Compiles a module each time that it is imported, and keeps nothing of it."""

    def get_code(self, fullname: str) -> CodeType:
        """Compile the source; see ``importlib.abc.InspectLoader``."""
        path = self.get_filename(fullname)
        code: CodeType = self.source_to_code(self.get_data(path), path)
        return code


class _Finder:
    """Finds what the finders after it find; the user's modules with another loader."""

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Find a module; see ``importlib.abc.MetaPathFinder``."""
        finders = [*sys.meta_path]
        for finder in finders[finders.index(self) + 1 :] if self in finders else ():  # another thread may have taken it out
            spec = finder.find_spec(name, path, target) if hasattr(finder, "find_spec") else None
            if spec is not None:
                if type(spec.loader) is SourceFileLoader and not is_library(spec.loader.path):
                    spec.loader = SourceLoader(name, spec.loader.path)
                return spec
        return None


@contextmanager
def from_source() -> Iterator[None]:
    """Import the user's modules from their source, wherever they lie."""
    finder = _Finder()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
