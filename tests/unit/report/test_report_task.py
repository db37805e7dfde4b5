"""The report of a task that is no classification: its own metric, and no word of classes."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from tests.unit.report import sample

import edgekd
from edgekd.report import advice, findings, missing, speed, trust, view
from edgekd.report.charts.quality import OTHER_SHAPES, SHAPES, Budget, Panel, Point, pareto, shapes
from edgekd.report.layouts import card, markdown
from edgekd.report.metric import MetricWords
from edgekd.report.page import Table
from edgekd.report.sections import comparison
from edgekd.results.gates import GateRecord, Limit
from edgekd.results.models import Estimate, MetricFacts, Metrics, ModelRecord, OutputParity, Parity, TaskFacts
from edgekd.results.run import RunResult

MAE = MetricFacts("mae", "MAE", "", "lower")
REGRESSION = TaskFacts("vector-regression", (MAE,))


def regression() -> RunResult:
    """The good run as if its networks gave values in place of classes."""
    base = sample.good()
    parity = Parity("qat", 40, {"values": OutputParity(0.1, error=1e-4, p99_lsb=1.0, mean_lsb=0.1, max_lsb=1.0)})
    models = tuple(
        replace(
            model,
            metrics=(Metrics("test", 40, {"mae": Estimate(0.7 + 0.01 * number, 0.6, 0.9)}),),
            parity=model.parity and parity,
            inputs=(),
            outputs=(),
            fidelity=model.fidelity and replace(model.fidelity, agreement=None, expected_drop=None, drops={}),
        )
        for number, model in enumerate(base.models)
    )
    gates = (
        GateRecord("parity_top1", "onnx", Limit(">=", 0.995), None, "not_applicable", instead="parity_lsb_p99"),
        GateRecord("parity_lsb_p99", "onnx", Limit("<=", 2), 1.0, "pass"),
        GateRecord("sqnr_db", "onnx", Limit(">=", 5), 20.0, "pass"),
        GateRecord("metric", "onnx", Limit("<=", 2), 0.7, "pass", metric="mae"),
    )
    data = replace(base.data, classes=(), inputs={"x": (8,)}, image_size=0, channels=0, mean=(), std=())
    return replace(
        base, task=REGRESSION, models=models, gates=gates, data=data, curves=(), repair=None, snippets={}, findings=()
    )


def test_nothing_speaks_of_classes() -> None:
    result = replace(regression(), recipe={**sample.RECIPE, "distill": {}})
    for text in (markdown.render(result), card.render(result)):
        body = text.partition("## Provenance")[0]
        assert "MAE" in body
        assert not re.search(r"top-1|logits|images?\b", body, re.IGNORECASE), re.findall(
            r".*top-1.*|.*logits.*|.*image.*", body
        )


def test_a_gate_that_does_not_apply_has_no_row_of_dashes() -> None:
    table = view.build(regression()).verdict.gates
    assert table is not None
    assert [row[0].text for row in table.rows] == ["Output error, p99", "Signal to int8 noise", "MAE"]
    assert table.note.endswith("Class agreement does not apply: Output error, p99 is held instead")


def test_columns_without_a_figure_are_left_out() -> None:
    (table,) = (block for block in view.build(regression()).section("parity").blocks if isinstance(block, Table))
    assert "Class agreement" not in [column.label for column in table.columns]
    assert all(any(row[at].text != "—" for row in table.rows) for at in range(len(table.columns)))


def test_a_figure_without_a_unit_is_measured() -> None:
    number = view.build(regression()).numbers[0]
    assert (number.label, number.unit, number.measured) == ("MAE", "", True)
    assert not view.build(sample.empty()).numbers[0].measured


def test_a_limit_of_a_metric_that_is_better_when_lower_shades_what_is_above() -> None:
    point = Point("ONNX", "circle", True, 1.0, 0.9, 1.1, 0.7)
    drawn = {}
    for better in ("lower", "higher"):
        metric = MetricWords(replace(MAE, better=better))  # type: ignore[arg-type]
        chart = pareto([Panel("host", (point,), (Budget("y", 0.8, "MAE"),))], "", metric)
        (box,) = re.findall(r'<rect x="[\d.]+" y="([\d.]+)" width="[\d.]+" height="[\d.]+" class="out"', str(chart.wide))
        drawn[better] = float(box)
        assert ("(lower is better)</text>" in str(chart.wide).partition("Latency")[0]) is (better == "lower")
    assert drawn["lower"] < drawn["higher"]


def test_each_format_has_a_shape_of_its_own() -> None:
    found = shapes(["npnet", "onnx", "layers"])
    assert {found[name] for name in SHAPES} == {*SHAPES.values()}
    assert (found["layers"], found["npnet"]) == OTHER_SHAPES[:2]
    assert "triangle" not in found.values(), "it is the sign of a doubt"


def test_twins_are_paired_by_their_records_whatever_their_names_are() -> None:
    models = (
        ModelRecord("small", "artifact", "npnet", "int8"),
        ModelRecord("large", "artifact", "npnet", "float32", twin_of="small"),
        ModelRecord("small_float", "artifact", "npnet", "float32"),
    )
    base = sample.good().profiles[0]
    profiles = tuple(replace(base, model=model.name) for model in models)
    found = [(a.model, b.model) for a, b, _ in speed.verdicts.pairs(profiles, models, "host")]
    assert found == [("small", "large")]


def made(pattern: str) -> set[str]:
    """Codes of facts that the pipeline makes."""
    files = Path(edgekd.__file__).parent.rglob("*.py")
    return {code for path in files for code in re.findall(pattern, path.read_text("utf-8"))}


@pytest.mark.parametrize("maker", [r"\bFinding", r"\bdoubt", r"\b_far", "warning", r"\b_of"])
def test_the_report_has_a_sentence_for_every_fact(maker: str) -> None:
    known = {*findings.CODES, *advice.CODES, *missing.CODES, *trust.CODES, *speed.CODES, *comparison.CODES}
    codes = made(maker + r'\(\s*"(\w+)"')
    assert codes, "the pattern finds nothing"
    assert codes <= known
