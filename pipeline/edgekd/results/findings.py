"""Findings of a run: facts with their figures. The sentence of each is made in the report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

TEXT = "text"
"""Code of a finding that is a sentence already; its one figure is ``text``."""
UNFIT = "unfit"
"""Code of the reason why a device cannot have a file by its nature, which is no failure."""


@dataclass(frozen=True)
class Finding:
    """A fact that a reader should know.

    Attributes:
        code: Kind of fact, such as ``synthesized``.
        severity: ``note``: good to know. ``advice``: something to try. ``warning``: it may make other figures wrong.
        where: Stage, model or device it is about; empty for the whole run.
        figures: What its sentence is made of, by name; values of JSON, so that they are the same when they are read again.
    """

    code: str
    severity: Literal["note", "advice", "warning"] = "note"
    where: str = ""
    figures: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Missing:
    """A figure that a reader may look for and will not find, or one that is not what its name says.

    Attributes:
        reason: Why.
        what: The figure, such as ``single operations``; empty where the reason names it.
        model: The network or file that it is of; empty for the whole run.
        device: The device that it is of; empty for none.
    """

    reason: Finding
    what: str = ""
    model: str = ""
    device: str = ""


def said(text: str, severity: Literal["note", "advice", "warning"] = "note", where: str = "") -> Finding:
    """Return a finding that is a sentence already."""
    return Finding(TEXT, severity, where, {"text": text})


def missing(what: str, why: str, model: str = "", device: str = "") -> Missing:
    """Return a figure that is missing for a reason that a runtime, a device or an exception gives in its own words."""
    return Missing(said(why), what, model, device)


def listed(finding: Finding) -> str:
    """Write a finding as a log has it: its code and its figures.

    Example:
        >>> listed(Finding("drift", figures={"change": 0.12}))
        'drift: change 0.12'
    """
    figures = ", ".join(f"{name} {value}" for name, value in finding.figures.items())
    return f"{finding.code}: {figures}" if figures else finding.code
