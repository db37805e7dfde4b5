"""Findings of a run: facts with their figures. The sentence of each is made in the report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

TEXT = "text"
"""Code of a finding that is a sentence already; its one figure is ``text``."""


@dataclass(frozen=True)
class Finding:
    """A fact that a reader should know.

    Attributes:
        code: Kind of fact, such as ``synthesized``.
        severity: ``note``: good to know. ``advice``: something to try. ``warning``: it may make other figures wrong.
        where: Stage, model or device it is about; empty for the whole run.
        figures: What its sentence is made of, by name.
    """

    code: str
    severity: Literal["note", "advice", "warning"] = "note"
    where: str = ""
    figures: Mapping[str, Any] = field(default_factory=dict)


def said(text: str, severity: Literal["note", "advice", "warning"] = "note", where: str = "") -> Finding:
    """Return a finding that is a sentence already."""
    return Finding(TEXT, severity, where, {"text": text})
