"""Which files the results of a soak depend on, and whether they are what they were."""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
PATTERNS = (
    "tests/oracle/networks*.py", "tests/oracle/truth.py",
    "pipeline/edgekd/engine/gates.py", "pipeline/edgekd/results/gates.py", "pipeline/edgekd/recipe/gates.py",
    "pipeline/edgekd/statistics.py", "pipeline/edgekd/metrics/fidelity.py",
    "pipeline/edgekd/recipe/quantize.py", "pipeline/edgekd/quantization/**/*.py",
)  # fmt: skip
"""Of the oracle: the networks, what is measured of them, how they are quantized, and what decides a verdict."""


def digests(patterns: Sequence[str] = PATTERNS) -> dict[str, str]:
    """Return a hash of each file by its path: of what it says, not of its comments, docstrings and spaces."""
    paths = {path for pattern in patterns for path in ROOT.glob(pattern) if path.suffix in _DIGESTS}
    return {str(path.relative_to(ROOT)): _DIGESTS[path.suffix](path.read_text(encoding="utf-8")) for path in sorted(paths)}


def changed(files: Mapping[str, str], patterns: Sequence[str] = PATTERNS) -> list[str]:
    """Return the paths of files that are not what ``files`` says: changed, added or removed."""
    now = digests(patterns)
    return sorted(path for path in {*now, *files} if now.get(path) != files.get(path))


def digest(source: str) -> str:
    """Return the hash of a module.

    Example:
        >>> digest("x = 1  # one") == digest("x  =  1") != digest("x = 2")
        True
    """
    tree = ast.parse(source)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [part for part in body if not _is_text(part)]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()[:16]


def yaml_digest(text: str) -> str:
    """Return the hash of a YAML file.

    Example:
        >>> yaml_digest("{x: 1}  # one") == yaml_digest("x: 1") != yaml_digest("x: 2")
        True
    """
    return hashlib.sha256(json.dumps(yaml.safe_load(text)).encode()).hexdigest()[:16]


def kept(path: Path, files: dict[str, str]) -> list[dict[str, Any]]:
    """Return the rows of a results file, if what they depend on is what ``files`` says."""
    if not path.exists():
        return []
    value = json.loads(path.read_text(encoding="utf-8"))
    return value["rows"] if value["files"] == files else []


def _is_text(part: ast.stmt) -> bool:
    return isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant) and isinstance(part.value.value, str)


_DIGESTS = {".py": digest, ".yaml": yaml_digest}
