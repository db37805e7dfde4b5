"""Artifacts beside another measurement: faster, slower, no difference shown, or why they were not compared."""

from __future__ import annotations

from edgekd.report import facts
from edgekd.report.page import NOT_APPLICABLE, Bullets, Cell, Column, Section, Table, Tone
from edgekd.report.words import one_line, sig
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
        f"{facts.label_of(result, found.model)} on {facts.device_label(result, found.device)}: {one_line(reason)}"
        for found in result.comparisons
        for reason in found.reasons
    )
    blocks = (Table("Compared", columns, rows, note), *((Bullets(remarks, "Remarks"),) if remarks else ()))
    return (Section("comparison", "Compared", blocks),)


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
