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


def computes(name: str, types: list[str]) -> str:
    """The type that an operation (name, input types) computes in; empty where it only moves data or has no numbers.

    One that reads any int8 computes in int8.
    """
    floats = ["float32" if kind == "float" else kind for kind in types if "float" in kind]
    if MOVES.search(name) or not (floats or {"int8", "uint8"} & set(types)):
        return ""
    return "int8" if {"int8", "uint8"} & set(types) else floats[0]


def precisions(ops: list[tuple[str, list[str]]]) -> dict[str, Any]:
    """Count operations (name, input types) by the type they compute in."""
    counts: Counter[str] = Counter()
    left: Counter[str] = Counter()
    for name, types in ops:
        kind = computes(name, types)
        if kind:
            counts[kind] += 1
            left.update([name] if kind != "int8" else [])
    return {"ops": dict(counts), "float_ops": dict(left)}
