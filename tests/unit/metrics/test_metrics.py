"""Metrics by name against numpy's and scipy's arithmetic, and their intervals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.special import log_softmax

from edgekd.metrics import fidelity, intervals
from edgekd.metrics.base import Metric
from edgekd.registry import metrics
from edgekd.results.layers import EXACT_DB

PRIMARY = "logits"


def metric(name: str) -> Metric:
    found: Metric = metrics.get(name)()
    return found


def drawn(n: int = 400, classes: int = 10, noise: float = 0.3) -> tuple[Any, Any, Any]:
    random = np.random.default_rng(7)
    labels = random.integers(0, classes, n)
    logits = random.normal(size=(n, classes)).astype(np.float32) + 2 * np.eye(classes, dtype=np.float32)[labels]
    return labels, logits, logits + noise * random.normal(size=logits.shape).astype(np.float32)


def value(name: str, output: Any, target: Any) -> float:
    rows = metric(name).per_sample({PRIMARY: output}, target, PRIMARY)
    assert rows is not None
    return metric(name).reduce(rows)


def test_classification() -> None:
    labels, logits, _ = drawn()
    assert value("top1", logits, labels) == np.mean(logits.argmax(1) == labels)
    best = np.argsort(-logits, axis=1)[:, :5]
    assert value("top5", logits, labels) == np.mean([label in row for label, row in zip(labels, best, strict=True)])
    expected = -log_softmax(logits.astype(np.float64), axis=1)[np.arange(len(labels)), labels].mean()
    assert value("loss", logits, labels) == pytest.approx(expected, rel=1e-12)


def test_top5_of_five_classes_says_nothing() -> None:
    labels, logits, _ = drawn(classes=5)
    assert metric("top5").per_sample({PRIMARY: logits}, labels, PRIMARY) is None


def test_agreement_is_what_fidelity_says() -> None:
    _, logits, other = drawn()
    known = fidelity.compare("float", logits, other)
    target = {PRIMARY: logits}
    assert known.agreement is not None
    assert known.expected_drop is not None
    assert value("agreement", other, target) == known.agreement.value
    assert value("sqnr_db", other, target) == pytest.approx(known.sqnr_db.value, abs=1e-9)
    assert value("expected_drop", other, target) == pytest.approx(known.expected_drop.value, abs=1e-12)
    assert value("sqnr_db", logits, target) == EXACT_DB


@pytest.mark.parametrize("name", sorted({*metrics.names()}))
def test_laws_of_every_metric(name: str) -> None:
    """Weights count samples: two of a sample are a weight of 2, none is a weight of 0; and the order does not matter."""
    labels, logits, other = drawn(60)
    own, target = (other, {PRIMARY: logits}) if name in ("agreement", "sqnr_db", "expected_drop") else (logits, labels)
    rows = metric(name).per_sample({PRIMARY: own}, target, PRIMARY)
    assert rows is not None
    assert rows.shape[0] == 60
    weights = np.random.default_rng(1).integers(0, 3, 60).astype(np.float64)
    repeated = np.repeat(rows, weights.astype(int), axis=0)
    assert metric(name).reduce(rows, weights) == pytest.approx(metric(name).reduce(repeated), rel=1e-9)
    assert metric(name).reduce(rows) == pytest.approx(metric(name).reduce(rows[::-1]), rel=1e-9)
    assert (metric(name).name, metric(name).better in ("higher", "lower")) == (name, True)


def test_the_interval_of_a_share_is_wilsons_and_of_a_mean_that_of_students_t_nearly() -> None:
    from edgekd.statistics import mean_interval, wilson

    labels, logits, _ = drawn()
    rows = metric("top1").per_sample({PRIMARY: logits}, labels, PRIMARY)
    assert rows is not None
    found = intervals.figure(metric("top1"), rows)
    assert (found.low, found.high) == wilson(found.value, 400)
    rows = metric("loss").per_sample({PRIMARY: logits}, labels, PRIMARY)
    assert rows is not None
    found, student = intervals.figure(metric("loss"), rows), mean_interval(rows[:, 0].tolist())
    assert student is not None
    assert (found.low, found.high) == pytest.approx(student, rel=0.03)
    assert found == intervals.figure(metric("loss"), rows), "reproducible"


def test_a_drop_is_paired_and_positive_where_it_is_worse() -> None:
    labels, logits, _ = drawn()
    for name in ("top1", "loss"):
        worse = np.where(np.arange(400)[:, None] % 10 == 0, -logits, logits)
        before, after = (metric(name).per_sample({PRIMARY: x}, labels, PRIMARY) for x in (logits, worse))
        assert before is not None
        assert after is not None
        found = intervals.drop(metric(name), before, after)
        assert found.low is not None
        assert found.low > 0
        same = intervals.drop(metric(name), before, before)
        assert same.value == 0


def test_one_sample_has_no_interval() -> None:
    found = intervals.figure(metric("loss"), np.array([[0.5]]))
    assert (found.value, found.n, found.low) == (0.5, 1, None)
