"""``study.json``: what a study found, as frozen dataclasses; its reports are made from it alone."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from edgekd.errors import UsageError
from edgekd.results import upgrade
from edgekd.results.codec import from_json
from edgekd.results.findings import Missing
from edgekd.results.models import MetricFacts, TaskFacts
from edgekd.results.run import DataRecord, SeedRecord, damage
from edgekd.statistics import Paired, Spread, holm, paired, ranks, spread

FILE = "study.json"


@dataclass(frozen=True)
class Row:
    """A method on a pair.

    Attributes:
        pair: Name of the pair.
        method: Name of the method; ``student_alone`` and ``kd`` are the study's own.
        role: ``baseline``, which others are compared with, or ``method``.
        losses: Terms of its loss, in words.
        other: What else is not as in the other rows, such as ``epochs 8 → 20``; empty where nothing is.
        reason: Why there are no figures; empty where there are.
        folder: Its run folder, relative to the study's.
        seconds: Work of its trainings.
        seeds: Each student.
        missing: Files that the recipe asks for and that were not delivered, each with the reason.
        test: The metric on the test split, of the kept epoch (the best by validation), over seeds; what is ranked.
        last: The same of the last epoch.
        rank: Best and worst rank in its pair that the 95 % intervals of ``test`` leave open.
        gains: Paired difference of ``test`` to each baseline, by its name.
    """

    pair: str
    method: str
    role: Literal["baseline", "method"]
    losses: str = ""
    other: str = ""
    reason: str = ""
    folder: str = ""
    seconds: float = 0.0
    seeds: tuple[SeedRecord, ...] = ()
    test: Spread | None = None
    last: Spread | None = None
    rank: tuple[int, int] | None = None
    gains: Mapping[str, Paired] | None = None
    missing: tuple[str, ...] = ()


@dataclass(frozen=True)
class TeacherRow:
    """The teacher of a pair: its network, the student's, and its metric on the test split."""

    pair: str
    teacher: str
    student: str
    test: float | None = None
    reason: str = ""


@dataclass(frozen=True)
class StudyResult:
    """Everything a study found.

    Attributes:
        schema: Version of this file's form.
        edgekd: Version of edgekd.
        name: Name of the study.
        run: Name of its report folder.
        command: What reproduces it.
        study: The study as it was given, with its defaults.
        recipes: The common recipe of each pair, resolved.
        data: The data as used; None where no row has figures.
        teachers: The teacher of each pair that has one.
        rows: Pair by pair, the best mean first, those without figures last.
        task: What the networks are for; its first metric is compared.
        trainings: How many trainings it is made of, those that were in the cache included.
        not_measured: What a reader may look for and will not find, each with the reason.
    """

    schema: int
    edgekd: str
    name: str
    run: str
    created: str
    command: str
    study: Mapping[str, Any]
    recipes: Mapping[str, Any]
    data: DataRecord | None
    teachers: tuple[TeacherRow, ...]
    rows: tuple[Row, ...]
    trainings: int
    environment: Mapping[str, Any]
    task: TaskFacts
    not_measured: tuple[Missing, ...] = ()

    @property
    def failed(self) -> tuple[Row, ...]:
        """The rows without figures."""
        return tuple(row for row in self.rows if row.reason)


def read_study(path: Path) -> StudyResult:
    """Read the ``study.json`` of a study's folder (or the file itself).

    Raises:
        UsageError: It has another schema, or is none.
    """
    path = path / FILE if path.is_dir() else path
    try:
        value = json.loads(path.read_text(encoding="utf-8-sig"))
        return from_json(StudyResult, upgrade.study(value, str(path)))
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise UsageError(f"{path} is not a study.json: {damage(error)}", "run the study again") from error


def judged(rows: list[Row], metric: MetricFacts) -> list[Row]:
    """Rank the rows of one pair and compare each with the baselines; p-values are corrected for each baseline's family."""
    done = [replace(row, test=spread(_kept(row)), last=spread(_last(row))) for row in rows if row.seeds]
    order = [row.method for row in rows if row.role == "baseline"]
    sign = 1 if metric.better == "higher" else -1
    done.sort(key=lambda row: -sign * row.test.mean if row.test else 0.0)
    places = ranks([_interval(row.test, sign) for row in done if row.test])
    gains: list[dict[str, Paired]] = [{} for _ in done]
    for base in (row for row in done if row.role == "baseline"):
        others = [(index, paired(_kept(row), _kept(base))) for index, row in enumerate(done) if _after(row, base, order)]
        for (index, found), p in zip(others, holm([found.p for _, found in others]), strict=True):
            gains[index][base.method] = replace(found, p_holm=p)
    ranked = [replace(row, rank=rank, gains=own) for row, rank, own in zip(done, places, gains, strict=True)]
    return [*ranked, *(row for row in rows if not row.seeds)]


def _kept(row: Row) -> list[float]:
    return [seed.test_kept for seed in row.seeds if seed.test_kept is not None]


def _last(row: Row) -> list[float]:
    return [seed.test_last for seed in row.seeds if seed.test_last is not None]


def _after(row: Row, base: Row, order: list[str]) -> bool:
    """Return whether a row is compared with a baseline: kd with the student alone, but not the other way round."""
    return row.role == "method" or order.index(row.method) > order.index(base.method)


def _interval(found: Spread, sign: int) -> tuple[float, float]:
    """The mean's, times ``sign``, so that more is better.

    Seeds that agree to the image say nothing of how sure they are, so every rank is open.
    """
    if found.low is None or found.high is None:
        return -math.inf, math.inf
    return (found.low, found.high) if sign > 0 else (-found.high, -found.low)
