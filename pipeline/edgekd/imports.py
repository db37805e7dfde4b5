"""What a user's Python file imports from its own folder."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path


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


def _imports(file: Path, folder: Path) -> Iterator[tuple[str, ...]]:
    """Dotted names that a file imports, each as its parts below ``folder``."""
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError):  # told when it is imported
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (tuple(alias.name.split(".")) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = file.parents[node.level - 1] if node.level else folder
            if not base.is_relative_to(folder):
                continue
            module = (*base.relative_to(folder).parts, *(node.module.split(".") if node.module else ()))
            yield from ((*module, alias.name) for alias in node.names)
