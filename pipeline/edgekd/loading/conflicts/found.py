"""The form in which a rule reports conflicts."""

from __future__ import annotations

from collections.abc import Iterator

Found = Iterator[tuple[str, str, str]]
"""Key, message and hint of each conflict."""
