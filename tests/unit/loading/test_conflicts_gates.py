"""Gates of metrics: the task has to have them."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekd import loading
from edgekd.errors import RecipeError
from edgekd.loading.conflicts.gates import SIDE
from edgekd.recipe.gates import Gates


def check(gates: str) -> None:
    text = (
        "edgekd: 1\ndata: {source: fashion-mnist-mini}\nstudent: {model: edgekd:resnet10}\n"
        f"distill: {{epochs: 1, losses: [{{kind: task}}]}}\nquantize: {{epochs: 1}}\nexport: [onnx]\ngates: {gates}\n"
    )
    loading.load_text(text, Path("r.yaml"), "r.yaml")


def test_metrics_of_the_task_can_be_held() -> None:
    check("{drop: {metric: loss, max: 0.1}, metric: [{name: top1, min: 0.9}, {name: top5, min: 0.99}]}")


@pytest.mark.parametrize(
    ("gates", "place", "hint"),
    [
        ("{drop: {metric: topp1, max: 0.1}}", "gates.drop.metric", "did you mean top1?"),
        (
            "{metric: {name: sqnr_db, min: 30}}",
            "gates.metric.name",
            "the task does not list it among its own; allowed: loss",
        ),
        ("{metric: [{name: top1, min: 0.9}, {name: mae, max: 1}]}", "gates.metric[1].name", "allowed: loss, top1, top5"),
    ],
)
def test_an_unknown_metric_is_refused_at_its_place(gates: str, place: str, hint: str) -> None:
    with pytest.raises(RecipeError) as caught:
        check(gates)
    assert f"{place}: image-classification has no metric" in str(caught.value)
    assert hint in str(caught.value)


@pytest.mark.parametrize(
    ("gates", "place", "message"),
    [
        ("{drop: {metric: loss, min: 0.1}}", "gates.drop.min", "needs max, not min"),
        ("{drop: [{metric: top1, max: 1}, {metric: loss, min: 1}]}", "gates.drop[1].min", "needs max, not min"),
        ("{accuracy_drop: {min: 0}}", "gates.accuracy_drop.min", "needs max, not min"),
        ("{size_ratio: {min: 0.2}}", "gates.size_ratio.min", "needs max, not min"),
        ("{latency_p50_ms: {min: 3}}", "gates.latency_p50_ms.min", "needs max, not min"),
        ("{peak_memory_mib: [{min: 3}]}", "gates.peak_memory_mib[0].min", "needs max, not min"),
        ("{agreement: {max: 0.9}}", "gates.agreement.max", "needs min, not max"),
        ("{worst_sqnr_db: {max: 9}}", "gates.worst_sqnr_db.max", "needs min, not max"),
        ("{metric: {name: top1, max: 1, device: pi}}", "gates.metric.device", "not of a device"),
        ("{size_ratio: {max: 1, device: pi}}", "gates.size_ratio.device", "not of a device"),
    ],
)
def test_a_limit_that_holds_nothing_is_refused(gates: str, place: str, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        check(gates)
    assert any(each.key == place and message in each.message for each in caught.value.problems), caught.value


@pytest.mark.parametrize(
    ("gates", "place", "message", "hint"),
    [
        (
            "{accuracy_drop: {max: 2}}",
            "accuracy_drop.max",
            "2 is 200 points: this is a share",
            "write max: 0.02 for 2 points",
        ),
        ("{accuracy_drop: {max: -5}}", "accuracy_drop.max", "-500 points", "write max: -0.05 for -5 points"),
        ("{agreement: {min: 99.5}}", "agreement.min", "where 0.01 is 1 %", "write min: 0.995 for 99.5 %"),
        ("{parity_top1: {min: 99}}", "parity_top1.min", "9900 %", "write min: 0.99 for 99 %"),
        ("{top1: {min: 90}}", "top1.min", "9000 %", "write min: 0.9 for 90 %"),
        ("{drop: {metric: top5, max: 5}}", "drop.max", "500 points", "write max: 0.05 for 5 points"),
        ("{metric: [{name: loss, max: 3}, {name: top1, min: 60}]}", "metric[1].min", "6000 %", "write min: 0.6 for 60 %"),
        ("{size_ratio: {max: -1}}", "size_ratio.max", "is never below 0", "write max: NUMBER above 0"),
        ("{parity_lsb_p99: {max: -1}}", "parity_lsb_p99.max", "is never below 0", "write max: NUMBER above 0"),
    ],
)
def test_a_limit_that_cannot_be_meant_is_refused(gates: str, place: str, message: str, hint: str) -> None:
    with pytest.raises(RecipeError) as caught:
        check(gates)
    (problem,) = [each for each in caught.value.problems if each.key == f"gates.{place}"]
    assert message in problem.message
    assert hint in problem.hint


def test_the_ends_of_a_share_and_limits_of_other_figures_are_free() -> None:
    """A share of 1, a gain that is asked for, and metrics without a share's unit."""
    check("{accuracy_drop: {max: 1}, top1: {min: 0}, drop: [{metric: loss, max: 40}, {metric: top1, max: -0.01}]}")
    check("{sqnr_db: {min: 30}, parity_lsb_p99: {max: 4}, worst_sqnr_db: {min: -3}}")


@pytest.mark.parametrize("name", ["top1", "loss"])
def test_a_metric_may_have_either_limit(name: str) -> None:
    check(f"{{metric: [{{name: {name}, max: 0.9}}, {{name: {name}, min: 0.1}}]}}")


@pytest.mark.parametrize(
    ("gates", "place"),
    [
        ("{metric: {name: top1}}", "gates.metric"),
        ("{metric: [{name: top1}]}", "gates.metric[0]"),
        ("{drop: {metric: top1}}", "gates.drop"),
        ("{latency_p50_ms: {formats: [onnx]}}", "gates.latency_p50_ms"),
    ],
)
def test_a_gate_without_a_limit_says_so(gates: str, place: str) -> None:
    with pytest.raises(RecipeError) as caught:
        check(gates)
    (problem,) = [each for each in caught.value.problems if each.key == place]
    assert problem.message == "neither max nor min is given"


def test_gates_without_a_default_are_left_out_by_off() -> None:
    check("{drop: off, metric: off}")


def test_every_gate_of_the_schema_has_a_side_unless_it_holds_a_metric() -> None:
    held = {name for name, field in Gates.model_fields.items() if "Gate" in str(field.annotation)}
    assert held - {"metric", "top1"} == {*SIDE}
