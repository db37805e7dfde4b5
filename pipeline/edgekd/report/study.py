"""StudyResult → page model: for each pair the ranking, drawn and in figures, then the conditions and how to repeat it."""

from __future__ import annotations

import math

import yaml

from edgekd.errors import joined
from edgekd.recipe.study import BASELINES
from edgekd.report import missing
from edgekd.report.charts.ranking import Dot, ranking
from edgekd.report.difference import LEVEL
from edgekd.report.facts import NETWORKS
from edgekd.report.metric import MetricWords
from edgekd.report.page import (
    NOT_APPLICABLE,
    Block,
    Bullets,
    Cell,
    Code,
    Column,
    Facts,
    Fold,
    Number,
    Page,
    Section,
    Table,
    Verdict,
    figure,
)
from edgekd.report.sections.evidence import flatten
from edgekd.report.sections.seeds import gain, interval, plus_minus
from edgekd.report.words import count, duration, one_line, plain, plural, sig
from edgekd.results.codec import to_json
from edgekd.results.study import Row, StudyResult
from edgekd.statistics import Paired

TEST = (
    "Differences are taken seed by seed, for the same seed gives both students the same first weights and order of samples. "
    "Interval: 95 %, Student's t over the differences, each by itself. p: paired t-test, corrected by Holm's method for all "
    "rows that are compared with the same baseline in this table; ✓ and ✕ are for a corrected p below 0.05."
)
DEVIATION = "± is the standard deviation over seeds."
RANK = (
    "Rank: by the mean on the test split, of the kept epoch, the best by validation. 2–4 means that the 95 % intervals of "
    "the means leave ranks 2 to 4 open: the data do not separate rows whose intervals overlap. The paired "
    "differences are more sensitive, because the common effect of a seed cancels."
)


def _missing(result: StudyResult) -> tuple[str, ...]:
    return tuple(map(one_line, missing.together(result.not_measured, result.task.metrics)))


def build(result: StudyResult) -> Page:
    """Make the page of a study."""
    pairs = tuple(dict.fromkeys(row.pair for row in result.rows))
    blocks = tuple(block for number, pair in enumerate(pairs) for block in _pair(result, pair, number))
    lead = f"{RANK} {_told_apart(result)}"
    sections = (
        Section("ranking", "Ranking", blocks, lead.strip()),
        _conditions(result),
        _provenance(result),
        Section("not-measured", "What was not measured", (Bullets(_missing(result)),)),
    )
    return Page(
        name=one_line(result.name),
        story=_story(result, pairs),
        meta=(
            ("Run", one_line(result.run)),
            ("Made", one_line(result.created)),
            ("Work", duration(sum(row.seconds for row in result.rows))),
            ("edgekd", one_line(result.edgekd)),
        ),
        verdict=_verdict(result),
        subject=_subject(result, pairs),
        numbers=_numbers(result, pairs),
        sections=sections,
    )


def label(row: Row) -> str:
    """Name a row for a reader."""
    return NETWORKS[row.method] if row.method in BASELINES else one_line(row.method)


def _over(base: str) -> str:
    return f"Over {NETWORKS[base].lower() if base in BASELINES else one_line(base)}"


def _story(result: StudyResult, pairs: tuple[str, ...]) -> str:
    methods = len({row.method for row in result.rows} - set(BASELINES))
    parts = [plural(methods, "method"), plural(len(pairs), "pair"), f"{plural(int(result.study['seeds']), 'seed')} each"]
    source = f" on {one_line(result.data.source)}" if result.data else ""
    return f"{joined(parts)}{source}: {plural(result.trainings, 'training')}."


def _verdict(result: StudyResult) -> Verdict:
    failures = [f"{row.pair} · {label(row)}: {one_line(row.reason)}" for row in result.failed]
    failures += [f"{row.pair} · teacher: {one_line(row.reason)}" for row in result.teachers if row.reason]
    done = len(result.rows) - len(result.failed)
    sentence = f"{count(done)} of {plural(len(result.rows), 'row')} have figures." if failures else "Every row has figures."
    missing = [f"{row.pair} · {label(row)}: {one_line(text)}" for row in result.rows for text in row.missing]
    if missing:
        sentence += f" {plural(len(missing), 'file')} missing."
    failures += missing
    return Verdict("bad" if failures else "good", "Incomplete" if failures else "Complete", sentence, tuple(failures), None)


def _of(result: StudyResult, pair: str) -> list[Row]:
    return [row for row in result.rows if row.pair == pair]


def _subject(result: StudyResult, pairs: tuple[str, ...]) -> str:
    best = next((row for row in _of(result, pairs[0]) if row.test), None) if pairs else None
    where = f" on {one_line(pairs[0])}, the first pair" if len(pairs) > 1 else ""
    return f"{label(best)}, the best mean{where}." if best else "No row has figures."


def _numbers(result: StudyResult, pairs: tuple[str, ...]) -> tuple[Number, ...]:
    metric = MetricWords(result.task.metric)
    best = next((row for row in _of(result, pairs[0]) if row.test), None) if pairs else None
    if best is None or best.test is None:
        return (Number(metric.title, "", "not measured", "", "muted", "no row has figures"),)
    sd = f"± {metric.fine(best.test.sd)} over {plural(best.test.n, 'seed')}" if best.test.sd is not None else ""
    numbers = [Number(metric.title, metric.unit, metric.value(best.test.mean), "", "", f"{sd}, test, kept epoch")]
    for base, found in (best.gains or {}).items():
        cell, between = _compared(found, metric)[:2]
        how = f"95 % interval {between.text}" if between is not NOT_APPLICABLE else "no interval"
        numbers.append(Number(_over(base), metric.change_unit, metric.change(found.gain.mean), "", cell.tone, how))
    return tuple(numbers)


def _told_apart(result: StudyResult) -> str:
    """What the intervals say of the first rank, pair by pair."""
    told = []
    for pair in dict.fromkeys(row.pair for row in result.rows):
        done = [row for row in _of(result, pair) if row.rank]
        first = [label(row) for row in done if row.rank and row.rank[0] == 1]
        where = f"On {one_line(pair)}, " if len(result.recipes) > 1 else "Here "
        if len(first) > 1:
            told.append(f"{where}{count(len(first))} rows cannot be separated from the first: {joined(first)}.")
        elif first:
            told.append(f"{where}{first[0]} is before all others.")
    return " ".join(told)


def _pair(result: StudyResult, pair: str, number: int) -> list[Block]:
    rows, metric = _of(result, pair), MetricWords(result.task.metric)
    where = f" on {one_line(pair)}" if len(result.recipes) > 1 else ""
    done = [(row, row.test) for row in rows if row.test is not None]
    blocks: list[Block] = []
    if done:
        dots = [
            Dot(
                label(row), metric.factor * test.mean,
                max(0.0 if metric.share else -math.inf, metric.factor * (test.mean if test.low is None else test.low)),
                min(metric.ceiling, metric.factor * (test.mean if test.high is None else test.high)),
                tuple(metric.factor * seed.test_kept for seed in row.seeds if seed.test_kept is not None),
                row.role == "baseline",
            )
            for row, test in done
        ]  # fmt: skip
        alone = next(
            (("student alone", metric.factor * test.mean) for row, test in done if row.method == "student_alone"), None
        )
        blocks.append(ranking(f"ranking{number}", f"Methods{where} by mean test {metric.name}", dots, alone, metric))
    bases = [row.method for row in rows if row.role == "baseline"]
    columns = [Column("Method"), Column("Rank", "", "number"), Column("Seeds", "", "number")]
    columns += [Column(f"Test, {epoch} epoch", metric.unit, "number") for epoch in ("kept", "last")]
    for base in bases:
        columns += [
            Column(_over(base), metric.change_unit, "number"),
            Column("95 % interval", metric.change_unit, "number"),
            Column("p (Holm)", "", "number"),
        ]
    table = tuple(_row(row, bases, metric) for row in rows)
    teacher = next((row for row in result.teachers if row.pair == pair), None)
    taught = ""
    if teacher:
        measured = metric.told(teacher.test) if teacher.test is not None else "not measured"
        taught = f"Teacher {one_line(teacher.teacher)}, {measured} on test; student {one_line(teacher.student)}. "
    return [
        *blocks,
        Table(
            f"Test {metric.name}{where}", tuple(columns), table, f"{taught}± is the standard deviation over seeds. {TEST}"
        ),
    ]


def _row(row: Row, bases: list[str], metric: MetricWords) -> tuple[Cell, ...]:
    note = "; ".join(
        part for part in (one_line(row.losses), f"other budget: {one_line(row.other)}" if row.other else "") if part
    )
    if row.test is None or row.last is None or row.rank is None:
        return (
            Cell(label(row), note=one_line(row.reason)),
            Cell("failed", "bad", mark=True),
            *[NOT_APPLICABLE] * (3 + 3 * len(bases)),
        )
    best, worst = row.rank
    cells = [Cell(label(row), note=note), Cell(str(best) if best == worst else f"{best}–{worst}"), Cell(str(row.test.n))]
    cells += [Cell(plus_minus(row.test, metric)), Cell(plus_minus(row.last, metric))]
    for base in bases:
        cells += _compared((row.gains or {}).get(base), metric)
    return tuple(cells)


def _compared(found: Paired | None, metric: MetricWords) -> list[Cell]:
    if found is None:
        return [NOT_APPLICABLE] * 3
    # A sign is a claim, so it waits for the corrected p.
    shown = gain(found.gain, metric)
    if found.p_holm is None or found.p_holm >= LEVEL:
        shown = Cell(shown.text)
    return [shown, interval(found.gain, metric), NOT_APPLICABLE if found.p_holm is None else Cell(sig(found.p_holm))]


def _conditions(result: StudyResult) -> Section:
    """The budget that all have, the networks, the data."""
    metric = MetricWords(result.task.metric)
    rows = tuple(
        (
            Cell(one_line(row.pair)), Cell(one_line(row.teacher)),
            figure(None if row.test is None else metric.value(row.test)), Cell(one_line(row.student)),
        )
        for row in result.teachers
    )  # fmt: skip
    blocks: list[Block] = []
    if rows:
        columns = (
            Column("Pair"),
            Column("Teacher"),
            Column(f"Teacher's test {metric.name}", metric.unit, "number"),
            Column("Student"),
        )
        blocks.append(Table("Pairs", columns, rows))
    for pair, recipe in result.recipes.items():
        budget = {key: value for key, value in recipe["distill"].items() if key != "losses"}
        pairs = tuple((key, value) for key, value in flatten({**budget, "seed": recipe["seed"], "data": recipe["data"]}))
        blocks.append(Facts(pairs, f"Budget of {one_line(pair)}" if len(result.recipes) > 1 else "Budget"))
    if result.data:
        data = result.data
        split = f"{count(data.train)} train, {count(data.val)} validation, {count(data.test)} test"
        blocks.append(Facts((("Images", split), ("Fingerprint (sha256)", data.fingerprint)), "Data"))
    lead = "The same for every row, unless a row says otherwise; a row is tuned only if it lists its trials."
    return Section("conditions", "Training conditions", tuple(blocks), lead)


def _provenance(result: StudyResult) -> Section:
    text = yaml.safe_dump(to_json(result.study), sort_keys=False, allow_unicode=True, width=100).rstrip("\n")
    machine = tuple((Cell(one_line(key)), Cell(one_line(value))) for key, value in flatten(result.environment))
    rows = tuple(
        (Cell(f"{one_line(row.pair)} · {label(row)}"), Cell(row.folder), Cell(sig(row.seconds)))
        for row in result.rows
        if row.folder
    )
    blocks: list[Block] = [Code("Reproduce this study", plain(result.command), "sh")]
    if rows:
        columns = (
            Column("Row"),
            Column("Run folder, with its own report and lock", "", "code"),
            Column("Work", "s", "number"),
        )
        blocks.append(Table("Rows", columns, rows))
    blocks.append(Fold("Environment", (Table("Environment", (Column("What"), Column("Value")), machine),)))
    blocks.append(Fold("Study, resolved", (Code("study", plain(text), "yaml"),)))
    return Section("provenance", "Provenance", tuple(blocks))
