"""How edgekd speaks: docstrings of public things begin with a noun or an imperative, and messages use plain words."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[3]
PACKAGE = ROOT / "pipeline" / "edgekd"
QUESTIONS = ("What", "Whether", "How", "Why", "Where", "Which", "Who", "When", "Something")
PUZZLES = (
    "for want of", "for lack of", "said aloud", "alike", "in the place of", "what is told", "is told of", "stays behind",
    "learns from no", "to be had", "as it were", "pupil", "lessons",
)  # fmt: skip
"""Phrases that a reader has to decode; each has a plain one: missing, the same, instead of, the fact itself."""
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def trees() -> Iterator[tuple[Path, ast.Module]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        yield path.relative_to(PACKAGE), ast.parse(path.read_text("utf-8"))


def public(tree: ast.AST) -> Iterator[Definition]:
    """Functions and classes without an underscore, outside of functions and of private classes."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, Definition) and not node.name.startswith("_"):
            yield node
            if isinstance(node, ast.ClassDef):
                yield from public(node)


def test_a_public_docstring_begins_with_a_noun_or_an_imperative() -> None:
    found = []
    for path, tree in trees():
        for node in (tree, *public(tree)):
            first = (ast.get_docstring(node) or "").partition(" ")[0]
            if first in QUESTIONS:
                found.append(f"{path}:{getattr(node, 'lineno', 1)}: {first} …")
    assert not found, "\n".join(found)


def test_messages_have_no_phrases_to_decode() -> None:
    found = []
    for path, tree in trees():
        documentation = {
            id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation:
                puzzles = [phrase for phrase in PUZZLES if re.search(rf"\b{phrase}\b", node.value)]
                found += [f"{path}:{node.lineno}: {phrase}: {node.value!r}" for phrase in puzzles]
    assert not found, "\n".join(found)
