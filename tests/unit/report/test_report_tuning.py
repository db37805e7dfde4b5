"""The search in a report: tables, pictures and what is told, from a record made by hand."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from tests.unit.report import sample

from edgekd.report import facts, view
from edgekd.report.layouts import card, html, markdown
from edgekd.results.codec import from_json, to_json
from edgekd.results.mistakes import CopiedErrors
from edgekd.results.run import RunResult
from edgekd.results.tuning import TrialRecord, TuningRecord

KEYS = {"distill.losses[0].temperature": "kd temperature", "distill.lr": "lr", "distill.losses[2].layers": "fitnet layers"}


def record(*trials: tuple[Any, ...], log: tuple[str, ...] = ("distill.lr",)) -> TuningRecord:
    """Trials as (temperature, lr, layers, score)."""
    found = tuple(
        TrialRecord(
            number, dict(zip(KEYS, values, strict=True)), "failed" if score is None else "done", 3.0, score,
            () if score is None else (score,), "the loss is nan" if score is None else "",
        )
        for number, (*values, score) in enumerate(trials, start=1)
    )  # fmt: skip
    scores = {trial.number: trial.score for trial in found if trial.score is not None}
    return TuningRecord("tpe", sample.TASK.metric, "best", 1, 1000, KEYS, log, found, max(scores, key=lambda n: scores[n]))


SEARCH = record(
    (4.0, 0.002, {"features.6": "layer3"}, 0.8), (2.0, 0.0004, "auto", 0.85),
    (7.5, 0.05, "late", None), (1, 0.01, "early", 0.7),
)  # fmt: skip


def run(tuning: TuningRecord) -> RunResult:
    return replace(sample.good(), tuning=tuning)


def test_every_trial_is_a_row_and_a_mark() -> None:
    section = view.build(run(SEARCH)).section("tuning")
    _, table, by_trial, by_value = section.blocks
    rows = [[cell.text for cell in row] for row in table.rows]  # type: ignore[union-attr]
    assert [row[0] for row in rows] == ["1", "2", "3", "4"]
    assert rows[1] == ["2", "2", "0.0004", "auto", "85.0", "3.00"]
    assert rows[2][-2] == "failed"
    notes = [row[0].note for row in table.rows]  # type: ignore[union-attr]
    assert notes == ["as written", "chosen", "", ""]
    assert str(by_trial.wide).count("<title>trial ") == 4  # type: ignore[union-attr]
    assert str(by_value.wide).count("<title>trial ") == 4 * len(KEYS)  # type: ignore[union-attr]
    assert "trial 3: failed" in by_trial.told  # type: ignore[union-attr]
    assert "lr (logarithmic)" in str(by_value.narrow)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "tuning",
    [
        record((4.0, 0.002, "auto", 1.0)),
        record((None, 0.002, True, 0.5), (0.9, 0.002, False, 0.5)),
        record((1, 1e-5, "auto", 0.1), (2, 1e3, "a" * 300, 0.9), log=("distill.lr",)),
        record((1, 0.0, "</script>", 0.1), (2, 1e30, "auto", 0.9), log=()),
        record((1, 0.0, "auto", 0.1), (2, 0.01, "auto", 0.9)),
    ],
    ids=["one", "not numbers", "far apart", "hostile", "no logarithm as written"],
)
def test_any_search_can_be_drawn(tuning: TuningRecord) -> None:
    found = run(tuning)
    page = html.render(found)
    assert not re.search(r'="-?(nan|inf)', page)
    assert "</script><" not in page.partition('id="tuning"')[2].partition("</section>")[0]
    assert f"| {tuning.best} (" in markdown.render(found)
    assert from_json(RunResult, to_json(found)) == found


def test_a_run_without_a_search_does_not_mention_it() -> None:
    assert "tuning" not in [section.id for section in view.build(sample.good()).sections]
    assert "Search for the values" not in markdown.render(sample.good())


def test_what_was_trained_is_told_with_the_values_that_were_chosen() -> None:
    found = run(record((3.0, 0.004, "late", 0.9)))
    section = facts.section_of(found, "distill")
    assert (section["losses"][0]["temperature"], section["losses"][2]["layers"], section["lr"]) == (3.0, "late", 0.004)
    assert found.recipe["distill"]["losses"][0]["temperature"] == 4.0
    weighted = replace(SEARCH, labels={"distill.losses[0].weight": "kd weight"}, best=1, trials=(
        TrialRecord(1, {"distill.losses[0].weight": 7.25}, "done", 1.0, 0.5, (0.5,)),
    ))  # fmt: skip
    assert "kd (weight 7.25)" in card.render(run(weighted))


def test_mistakes_taken_over_are_a_table() -> None:
    copied = (CopiedErrors("student_alone", 2000, 200, 80, 41.0), CopiedErrors("distilled", 2000, 200, 120, 44.25, 55, 15))
    text = markdown.render(replace(sample.good(), copied=copied))
    assert "Mistakes taken over from the teacher" in text
    assert "| Student alone | 200 | 80 | 40.0 | 41.0 | — | — | — |" in text
    assert "| Distilled student | 200 | 120 | 60.0 | 44.2 | 55 | 15 |" in text
    assert "Mistakes taken over" not in markdown.render(sample.good())
