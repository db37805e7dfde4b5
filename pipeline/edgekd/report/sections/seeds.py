"""The section about seeds: what the students of several seeds have in common, and whether one is better than another."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from edgekd.report import facts
from edgekd.report.difference import Difference
from edgekd.report.metric import MetricWords
from edgekd.report.page import NOT_APPLICABLE, Block, Cell, Column, Section, Table
from edgekd.report.words import NONE, sig
from edgekd.results.run import RunResult, SeedRecord
from edgekd.statistics import Paired, Spread, paired, spread

MEASURES: tuple[tuple[str, Callable[[SeedRecord], float | None]], ...] = (
    ("Test, kept epoch", lambda row: row.test_kept),
    ("Test, last epoch", lambda row: row.test_last),
    ("Validation, kept epoch", lambda row: row.val_kept),
    ("Validation, last epoch", lambda row: row.val_last),
)
NOTE = (
    "Mean ± standard deviation (n − 1) of {}. The kept epoch is the best by validation; the files are made from it. The "
    "validation figure of the kept epoch decided the choice, so it is too optimistic."
)
PAIRED_NOTE = (
    "The same seed gives both the same first weights and the same order of samples, so differences are taken by seed. "
    "Interval and p: Student's t over the differences, {}. An interval that contains 0 leaves open which is better."
)


def section(result: RunResult) -> Section:
    """Mean and standard deviation of every trained student, and the distilled student against each baseline."""
    title = "Over seeds"
    if not result.seeds:
        return Section("seeds", title, missing="One seed was trained.")
    rows: dict[str, list[SeedRecord]] = {}
    for row in result.seeds:
        rows.setdefault(row.model, []).append(row)
    seeds = [row.seed for row in next(iter(rows.values()))]
    measures = [(name, of) for name, of in MEASURES if all(of(row) is not None for row in result.seeds)]
    metric = facts.metric(result)
    columns = (
        Column("Network"),
        Column("Seeds", "", "number"),
        *(Column(name, metric.unit, "number") for name, _ in measures),
    )
    figures = tuple(
        (
            Cell(facts.label_of(result, model)),
            Cell(str(len(own))),
            *(Cell(plus_minus(spread(_values(own, of)), metric)) for _, of in measures),
        )
        for model, own in rows.items()
    )
    blocks: list[Block] = [Table(f"{metric.title} over seeds", columns, figures, NOTE.format(metric.name))]
    compared = [
        (f"{facts.label_of(result, 'distilled')} − {facts.label_of(result, model)}", name, _difference(rows, model, of))
        for model in rows
        if model != "distilled"
        for name, of in measures
        if name.startswith("Test")
    ]
    if compared:
        blocks.append(differences(compared, metric))
    taught = ", with the same teacher" if facts.section_of(result, "teacher") else ""
    lead = f"Seeds {seeds[0]} to {seeds[-1]}{taught}." if rows else ""
    return Section("seeds", title, tuple(blocks), lead)


def _difference(rows: dict[str, list[SeedRecord]], model: str, of: Callable[[SeedRecord], float | None]) -> Paired:
    return paired(_values(rows["distilled"], of), _values(rows[model], of))


def _values(rows: Sequence[SeedRecord], of: Callable[[SeedRecord], float | None]) -> list[float]:
    return [value for row in rows if (value := of(row)) is not None]


def differences(compared: Sequence[tuple[str, str, Paired]], metric: MetricWords) -> Table:
    """A row for each (which networks, measured on what, how they differ)."""
    columns = (
        Column("Difference"),
        Column(metric.title),
        Column("Seeds", "", "number"),
        Column("Mean ± sd", metric.change_unit, "number"),
        Column("95 % interval", metric.change_unit, "number"),
        Column("p, paired t-test", "", "number"),
    )
    rows = tuple(
        (
            Cell(who),
            Cell(what),
            Cell(str(found.gain.n)),
            gain(found.gain, metric),
            interval(found.gain, metric),
            Cell(NONE if found.p is None else sig(found.p)),
        )
        for who, what, found in compared
    )
    return Table("Paired differences", columns, rows, PAIRED_NOTE.format("not corrected for the number of comparisons"))


def plus_minus(found: Spread, metric: MetricWords) -> str:
    """Write mean ± standard deviation; the mean alone where there is one seed."""
    mean = metric.fine(found.mean)
    return mean if found.sd is None else f"{mean} ± {metric.fine(found.sd)}"


def gain(found: Spread, metric: MetricWords) -> Cell:
    """A mean difference with its standard deviation; told as good or bad where the interval is on one side."""
    text = metric.change(found.mean) + ("" if found.sd is None else f" ± {metric.fine(found.sd)}")
    tone = Difference(metric, found.mean, found.low, found.high).tone
    return Cell(text, tone, mark=bool(tone))


def interval(found: Spread, metric: MetricWords) -> Cell:
    """The 95 % interval, where there is one."""
    if found.low is None or found.high is None:
        return NOT_APPLICABLE
    return Cell(f"{metric.change(found.low)} to {metric.change(found.high)}")
