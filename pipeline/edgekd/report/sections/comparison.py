"""Artifacts beside another measurement: faster, slower, no difference shown, or why they were not compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from edgekd.report import facts, trust
from edgekd.report.page import NOT_APPLICABLE, Bullets, Cell, Column, Section, Table, Tone
from edgekd.report.words import one_line, plural, sig
from edgekd.results.codec import from_json
from edgekd.results.findings import Finding
from edgekd.results.profile import Comparison
from edgekd.results.run import RunResult

TONES: dict[str, Tone] = {"faster": "good", "slower": "warn", "refused": "muted"}


def sections(result: RunResult) -> tuple[Section, ...]:
    """One table of all comparisons; nothing where there is none."""
    if not result.comparisons:
        return ()
    columns = (
        Column("Artifact"), Column("Device"), Column("Compared with"), Column("Verdict"),
        Column("Time", "× of before", "number"), Column("99 % interval", "× of before", "number"),
        Column("Measured in"),
    )  # fmt: skip
    note = (
        "Times are compared by the pace of their blocks. No difference shown: the interval holds 1. In one session both "
        "files took turns; over two sessions the reference workload scales the times, and only large differences are shown."
    )
    rows = tuple(_row(result, found) for found in result.comparisons)
    remarks = tuple(
        f"{facts.label_of(result, found.model)} on {facts.device_label(result, found.device)}: {one_line(sentence(reason))}"
        for found in result.comparisons
        for reason in found.reasons
    )
    blocks = (Table("Compared", columns, rows, note), *((Bullets(remarks, "Remarks"),) if remarks else ()))
    return (Section("comparison", "Compared", blocks),)


def sentence(reason: Finding) -> str:
    """Write why two measurements were not compared, or what is doubtful of them; as a log has it where it is not known."""
    write = _REASONS.get(reason.code)
    return write(reason.figures) if write else trust.sentence(reason)


def _value(value: Any) -> str:
    return ", ".join(map(str, value)) or "none" if isinstance(value, list | tuple) else str(value)


def _not_trusted(figures: Mapping[str, Any]) -> str:
    whose = {"now": "this file", "then": "the earlier one"}[figures["when"]]
    reasons = (trust.sentence(from_json(Finding, reason)) for reason in figures["reasons"])
    return f"the figures of {whose} are not trusted: {'; '.join(reasons)}"


_REASONS: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "emulated_times": lambda figures: "the device is emulated: its times are not the hardware's",
    "few_rounds": lambda figures: (
        f"{plural(figures['rounds'], 'round')} {'was' if figures['rounds'] == 1 else 'were'} measured together; "
        f"at least {figures['least']} are needed"
    ),
    "other_pace": lambda figures: (
        f"the reference workload took {figures['ratio']:.2f} times as long as then: a device in another state"
    ),
    "changed": lambda figures: f"{figures['what']}: {_value(figures['now'])} now, {_value(figures['then'])} then",
    "was_throttled": lambda figures: f"the device was throttled {figures['when']}",
    "not_then": lambda figures: f"it was not measured on {figures['device']} then",
    "no_samples": lambda figures: "the raw samples of then are not in its folder",
    "damaged_samples": lambda figures: f"the raw samples of then are damaged: {figures['file']}: {figures['why']}",
    "gone": lambda figures: (
        f"the earlier {figures['file']} is no longer there, or has changed; keep a copy, and both are measured in turns"
    ),
    "not_trusted": _not_trusted,
}

CODES = frozenset(_REASONS)
"""Codes of the reasons that are written here."""


def _row(result: RunResult, found: Comparison) -> tuple[Cell, ...]:
    interval = NOT_APPLICABLE
    if found.low is not None and found.high is not None:
        interval = Cell(f"{sig(found.low)} to {sig(found.high)}")
    tone = TONES.get(found.verdict, "")
    scaled = ", scaled by the reference workload" if found.scaled else ""
    return (
        Cell(facts.label_of(result, found.model)),
        Cell(facts.device_label(result, found.device)),
        Cell(one_line(found.before)),
        Cell(found.verdict, tone, mark=tone not in ("", "muted")),
        NOT_APPLICABLE if found.ratio is None else Cell(sig(found.ratio)),
        interval,
        Cell(found.way + scaled),
    )
