"""The suites find what is broken: one entry for each kind of fault, and the checks that have to fail."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest
from tests.conformance.broken import failures

LOSSES = '''
from typing import Any, ClassVar, Literal

import torch
from edgekd.recipe.loss import Loss
from edgekd.registry import losses
from edgekd.testing import Gap, LossSuite

calls = []


class Mine(Loss):
    """Squared error (Nobody 2020)."""

    kind: str = ""
    full: ClassVar[bool] = True
    power: float = 2.0
    """Of the error."""

    def __call__(self, student, teacher, batch, adapter):
        s, t = student.primary, teacher.primary
        return self.of(s.float(), t.float(), batch) if self.full else self.of(s, t, batch).float()

    def of(self, s, t, batch):
        return (s - t).abs().pow(self.power).mean()


def suite(name, of=None, gaps=None, **fields):
    types = {key: ClassVar[Any] for key in fields}
    space = {"__doc__": Mine.__doc__, "__annotations__": {"kind": Literal[name], **types}, "kind": name, **fields}
    losses.register(name)(type(Mine)(name.title(), (Mine,), space | ({"of": of} if of else {})))
    globals()[f"Test_{name}"] = type(f"Test_{name}", (LossSuite,), {"name": name, "gaps": gaps or {}})


suite("good")
suite("vector", lambda self, s, t, batch: (s - t).pow(2).mean(1))
suite("infinite", lambda self, s, t, batch: (s - t).pow(2).mean() / 0.0)
suite("detached", lambda self, s, t, batch: (s - t).detach().pow(2).mean())
suite("sign", lambda self, s, t, batch: -(s - t).pow(2).mean())
suite("walks", lambda self, s, t, batch: (s - t).pow(2).mean().detach() - 0 * s.sum() - (s - t).pow(2).mean() * 1e-9)
suite("in_place", lambda self, s, t, batch: (s - t.sub_(t.mean())).pow(2).mean())
suite("ignores_teacher", lambda self, s, t, batch: s.pow(2).mean())
suite("hidden_labels", lambda self, s, t, batch: (s - t).pow(2).mean() + s.gather(1, batch.target[:, None]).mean())
suite("needless_labels", reads_labels=True)
suite("stateful", lambda self, s, t, batch: calls.append(1) or (s - t).pow(2).mean() * len(calls))
suite("order", lambda self, s, t, batch: (s - t).pow(2).mean(1).mul(torch.arange(len(s))).mean())
suite("steep", lambda self, s, t, batch: (s / s.norm(dim=1, keepdim=True) - t).pow(2).mean())
suite("half", lambda self, s, t, batch: ((s + 300) - (t + 300)).pow(2).mean(), full=False)
suite("passing_gap", gaps={"order": Gap("never", "no reason")})
suite("known_gap", lambda self, s, t, batch: (s - t).pow(2).mean(1).mul(torch.arange(len(s))).mean(),
      gaps={"order": Gap("never", "weighs by place")})
suite("unknown_gap", gaps={"ordre": Gap("never", "weighs by place")})


@losses.register("undocumented")
class Undocumented(Mine):
    kind: Literal["undocumented"] = "undocumented"
    anything: Any = 1


class TestUndocumented(LossSuite):
    name = "undocumented"


class TestNowhere(LossSuite):
    name = "nowhere"
'''

METRICS = '''
import numpy as np
from edgekd.registry import metrics
from edgekd.testing import MetricSuite


class Mine:
    """Mean absolute error."""

    label, unit, better = "MAE", "", "lower"

    def per_sample(self, outputs, targets, primary):
        return np.abs(outputs[primary].astype(np.float64) - targets).mean(axis=1)[:, None]

    def reduce(self, rows, weights=None):
        return float(np.average(rows[:, 0], weights=weights))


def suite(entry, **fields):
    metrics.register(entry)(type(entry.title(), (Mine,), {"__doc__": Mine.__doc__, "name": entry, **fields}))
    globals()[f"Test_{entry}"] = type(f"Test_{entry}", (MetricSuite,), {"name": entry, "targets": "values"})


def error(outputs, targets, primary="answer"):
    return np.abs(outputs[primary].astype(np.float64) - targets).mean(axis=1)[:, None]


def ascending(self, rows, weights=None):
    return float((rows[:, 0] * np.arange(len(rows))).mean())


suite("good")
suite("misnamed", name="other")
suite("upside_down", better="higher")
suite("constant", per_sample=lambda self, o, t, p: np.ones((len(t), 1)))
suite("directionless", better="up")
suite("flat", per_sample=lambda self, o, t, p: error(o, t)[:, 0])
suite("single", per_sample=lambda self, o, t, p: error(o, t).astype(np.float32))
suite("whole", per_sample=lambda self, o, t, p: error(o, t) / error(o, t).max())
suite("first_output", per_sample=lambda self, o, t, p: error(o, t[:, :1], next(iter(o))))
suite("in_place", per_sample=lambda self, o, t, p: error({p: np.subtract(o[p], 1, out=o[p])}, t))
suite("weightless", reduce=lambda self, rows, weights=None: float(rows.mean()))
suite("ordered", reduce=ascending)
suite("percent", unit="%", reduce=lambda self, rows, weights=None: 100 * Mine.reduce(self, rows, weights))
suite("numpy", reduce=lambda self, rows, weights=None: np.float32(Mine.reduce(self, rows, weights)))
'''


@pytest.fixture(scope="module")
def losses(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    return failures(tmp_path_factory.mktemp("losses"), LOSSES, "edgekd.losses")


@pytest.fixture(scope="module")
def metrics(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    return failures(tmp_path_factory.mktemp("metrics"), METRICS, "edgekd.metrics")


def test_what_a_loss_can_have_wrong(losses: dict[str, set[str]]) -> None:
    assert "Test_good" not in losses
    assert "Test_known_gap" not in losses
    expected = {
        "vector": "value", "infinite": "value", "detached": "gradient", "sign": "best", "in_place": "teacher",
        "ignores_teacher": "uses_teacher", "hidden_labels": "uses_labels", "walks": "falls",
        "needless_labels": "uses_labels", "stateful": "deterministic", "order": "order",
        "steep": "dead_student", "half": "half_precision[bf16]",
        "passing_gap": "order", "unknown_gap": "gaps",
    }  # fmt: skip
    missed = {name: check for name, check in expected.items() if check not in losses.get(f"Test_{name}", set())}
    assert not missed
    assert {"documented", "options"} <= losses["TestUndocumented"]
    assert "name" in losses["TestNowhere"]


def test_what_a_metric_can_have_wrong(metrics: dict[str, set[str]]) -> None:
    assert "Test_good" not in metrics
    expected = {
        "misnamed": "facts", "upside_down": "best", "constant": "best", "directionless": "facts", "flat": "rows",
        "single": "rows", "whole": "streams", "first_output": "primary", "in_place": "rows", "weightless": "weights",
        "ordered": "order", "percent": "value", "numpy": "value",
    }  # fmt: skip
    missed = {name: check for name, check in expected.items() if check not in metrics.get(f"Test_{name}", set())}
    assert not missed


def test_a_message_says_what_to_do(tmp_path: Path) -> None:
    """The assertion's words are what a plug-in's author reads."""
    text = textwrap.dedent("""
        import pytest
        from edgekd.testing import MetricSuite

        class Nowhere(MetricSuite):
            name = "nowhere"

        def test_words():
            with pytest.raises(AssertionError, match="under .project.entry-points.'edgekd.metrics'"):
                Nowhere().test_name()
    """)
    assert failures(tmp_path, text) == {}
