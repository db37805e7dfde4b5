"""docs/troubleshooting.md quotes messages: each is still one that edgekd says."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[3]


def sayings() -> Iterator[str]:
    """Every text in the package, with … where a value is put in."""
    for path in (ROOT / "pipeline" / "edgekd").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.JoinedStr):
                yield "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def test_every_message_of_the_page_is_said() -> None:
    page = (ROOT / "docs" / "troubleshooting.md").read_text("utf-8")
    said = "\n".join(sayings())
    quoted = [text for row in re.findall(r"^\| (`.+?`) \|", page, re.MULTILINE) for text in re.findall(r"`([^`]+)`", row)]
    assert len(quoted) > 30
    for message in quoted:
        for part in message.split("…"):
            assert part in said, f"no text of edgekd has {part!r} of {message!r}"
