"""Differences of two networks: only what the interval carries is called a gain or a loss, wherever a report has it."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from itertools import pairwise

import pytest
from rich.console import Console
from tests.unit.report import sample

from edgekd.report import view
from edgekd.report.difference import Difference, between, independent
from edgekd.report.layouts import card, markdown, terminal
from edgekd.report.metric import MetricWords
from edgekd.report.page import Chart
from edgekd.report.sections.seeds import gain
from edgekd.results.fidelity import Fidelity, Figure
from edgekd.results.models import Estimate, MetricFacts, Metrics, ModelRecord, TaskFacts
from edgekd.results.run import RunResult
from edgekd.statistics import Spread

SHARE = MetricFacts("top1", "top-1", "%", "higher")
FLOW = MetricFacts("mae", "MAE", "l/min", "lower")
CLAIMS = re.compile(r"\b(higher|lower|gained|lost|cost)\b(?! is better)")
PAIRED = 0.002
"""Half the width of the paired interval."""


def run(metric: MetricFacts, step: float, half: float) -> RunResult:
    """The good run where each float network is better than the one before by ``step``, and int8 worse by it.

    Args:
        metric: Of the task.
        step: In ``run.json``'s unit.
        half: Half the width of the interval of each value.
    """
    better = step if metric.better == "higher" else -step
    values = {"teacher": 0.5 + 2 * better, "student_alone": 0.5 - better, "distilled": 0.5}

    def measured(model: ModelRecord) -> ModelRecord:
        is_float = model.precision == "float32"
        value = values.get(model.name, 0.5 if is_float else 0.5 - better)
        drops = {metric.name: Figure(step, 100, step - PAIRED, step + PAIRED)}
        close = None if is_float else Fidelity("distilled", Figure(20.0, 100), drops=drops)
        metrics = (Metrics("test", 100, {metric.name: Estimate(value, value - half, value + half)}),)
        return replace(model, metrics=metrics, fidelity=close)

    base = sample.good()
    models = tuple(measured(model) for model in base.models)
    task = TaskFacts("t", (metric,))
    return replace(base, models=models, task=task, gates=(), findings=(), copied=(), seeds=(), repair=None)


def _steps(result: RunResult) -> Chart:
    return next(block for block in view.build(result).section("accuracy").blocks if isinstance(block, Chart))


def _texts(result: RunResult) -> str:
    stream = io.StringIO()
    terminal.show(result, Console(file=stream, width=160))
    return "\n".join((markdown.render(result).partition("## Provenance")[0], card.render(result), stream.getvalue()))


@pytest.mark.parametrize("metric", [SHARE, FLOW], ids=["share", "lower_is_better"])
@pytest.mark.parametrize("step", [0.001, -0.001])
def test_nothing_inside_the_noise_is_called_a_gain_or_a_loss(metric: MetricFacts, step: float) -> None:
    result = run(metric, step, half=0.05)
    number = view.build(result).numbers[0]
    assert number.delta.startswith("no difference shown, ")
    assert number.tone == ""
    chart = _steps(result)
    for drawn in (str(chart.wide), str(chart.narrow)):
        assert "bar" in drawn
        assert not re.search('class="[a-z]+ (gain|loss)"', drawn)
    lead = view.build(result).section("accuracy").lead
    for text in (number.delta, lead, chart.told, *view.build(result).verdict.cautions):
        assert not CLAIMS.search(text), text
        assert "no difference shown" in text
    assert not [line for line in _texts(result).splitlines() if CLAIMS.search(line) and "no difference" not in line]


@pytest.mark.parametrize("metric", [SHARE, FLOW], ids=["share", "lower_is_better"])
def test_what_the_interval_carries_is_said_and_coloured(metric: MetricFacts) -> None:
    result = run(metric, 0.2, half=0.05)
    number, lead = view.build(result).numbers[0], view.build(result).section("accuracy").lead
    assert number.delta.endswith("lower" if metric.better == "higher" else "higher")
    assert lead.startswith("Distillation gained ")
    assert "int8 training cost " in lead
    drawn = str(_steps(result).wide)
    assert drawn.count('class="bar gain"') == drawn.count('class="figure gain"') == 1  # distilled against alone
    assert drawn.count('class="bar loss"') == 2  # alone against the teacher, int8 training
    assert view.build(run(metric, -0.2, half=0.05)).numbers[0].tone == "good"  # int8 is better


@pytest.mark.parametrize("metric", [SHARE, FLOW], ids=["share", "lower_is_better"])
def test_a_pair_that_the_run_has_decides_before_the_intervals_of_both(metric: MetricFacts) -> None:
    """Of the network in int8, and of a file beside the float file of its format."""
    result = run(metric, 0.01, half=0.05)
    words = MetricWords(metric)
    models = {model.name: model for model in result.models}
    for own, reference in (("qat", "distilled"), ("onnx", "distilled"), ("onnx", "onnx_float")):
        found = between(result, models[own], models[reference], words)
        assert found is not None
        worse = -0.01 if metric.better == "higher" else 0.01
        assert (found.low, found.high) == pytest.approx((worse - PAIRED, worse + PAIRED))
        assert found.gain < 0
    alone = between(result, models["distilled"], models["student_alone"], words)
    assert alone is not None
    assert not alone.shown


def test_a_float_file_with_another_value_does_not_stand_for_its_network() -> None:
    result = run(SHARE, 0.01, half=0.05)
    other = (Metrics("test", 100, {"top1": Estimate(0.45, 0.4, 0.5)}),)
    models = {m.name: replace(m, metrics=other) if m.name == "onnx_float" else m for m in result.models}
    found = between(replace(result, models=tuple(models.values())), models["onnx"], models["onnx_float"], MetricWords(SHARE))
    assert found is not None
    assert found.low is not None
    assert found.low < -0.02


def test_no_interval_is_no_claim() -> None:
    words = MetricWords(SHARE)
    assert Difference(words, 0.2).open == "no difference shown, +20.00 points"
    assert (Difference(words, 0.2).tone, Difference(words, 0.2, 0.1, 0.3).tone) == ("", "good")
    assert Difference(words, 0.0, -0.1, 0.1).open == "no difference"
    assert independent(Figure(0.5, 3), Figure(0.4, 3, 0.3, 0.5)) is None


def test_independent_intervals_narrow_with_those_of_both() -> None:
    ends = [independent(Figure(0.6, 9, 0.6 - h, 0.6 + h), Figure(0.4, 9, 0.4 - h, 0.4 + h)) for h in (0.2, 0.1, 0.01)]
    known = [found for found in ends if found]
    assert len(known) == 3
    assert all(one[0] < other[0] < 0.2 < other[1] < one[1] for one, other in pairwise(known))


def test_seeds_hold_the_same_rule() -> None:
    words = MetricWords(FLOW)
    assert gain(Spread(3, -0.2, 0.1, -0.3, -0.1), words).tone == "good"
    for low, high in ((-0.3, 0.1), (-0.3, 0.0), (None, None)):
        assert gain(Spread(3, -0.1, 0.1, low, high), words).tone == ""
