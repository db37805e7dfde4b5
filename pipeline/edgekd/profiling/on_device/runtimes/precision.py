"""The type that an operation computes in."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

MOVES = re.compile(
    r"(?i)(quantize|quantizelinear|transpose|reshape|flatten|squeeze|identity|cast|convert)$"
    r"|reorder|^(input|output|const)"
)
"""Operations that convert or move data; they say nothing about the precision a network computes in."""


def precisions(ops: list[tuple[str, list[str]]]) -> dict[str, Any]:
    """Count operations (name, input types) by the type they compute in; one that reads any int8 computes in int8."""
    counts: Counter[str] = Counter()
    left: Counter[str] = Counter()
    for name, types in ops:
        floats = ["float32" if kind == "float" else kind for kind in types if "float" in kind]
        if MOVES.search(name) or not (floats or {"int8", "uint8"} & set(types)):
            continue
        kind = "int8" if {"int8", "uint8"} & set(types) else floats[0]
        counts[kind] += 1
        left.update([name] if kind != "int8" else [])
    return {"ops": dict(counts), "float_ops": dict(left)}
