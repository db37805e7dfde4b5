"""The conformance suite of metrics."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
import pytest
from numpy.typing import NDArray

from edgekd.metrics.base import Arrays, Metric, Rows
from edgekd.registry import metrics
from edgekd.testing.suite import Suite

N, SIZE, PRIMARY = 60, 10, "answer"
Targets = Literal["labels", "values", "reference"]


@dataclass(frozen=True)
class Drawn:
    """Outputs of a network and what they are compared with.

    Attributes:
        outputs: By name, each with N as its first dimension.
        targets: As the metric takes them.
    """

    outputs: Arrays
    targets: Any

    def at(self, rows: NDArray[np.int64]) -> Drawn:
        """Return some of the samples."""
        targets = self.targets
        taken = {key: value[rows] for key, value in targets.items()} if isinstance(targets, dict) else targets[rows]
        return Drawn({key: value[rows] for key, value in self.outputs.items()}, taken)


class MetricSuite(Suite):
    """Conformance suite of metrics. In two lines: ``class TestMine(MetricSuite): name = "mine"``.

    Attributes:
        targets: What the metric compares outputs with: ``labels`` (int64, N, of 10 classes), ``values`` (float32, N×10), or
            ``reference``, the outputs of another network by name. Override :meth:`draw` and :meth:`perfect` for others.
    """

    registry = metrics
    targets: ClassVar[Targets] = "labels"

    def draw(self) -> Drawn:
        """Return outputs of a mediocre network for 60 samples, the primary one under the name ``answer``."""
        random = np.random.default_rng(7)
        outputs = random.normal(size=(N, SIZE)).astype(np.float32)
        if self.targets == "labels":
            labels = np.arange(N, dtype=np.int64) % SIZE
            return Drawn({PRIMARY: outputs + 2 * np.eye(SIZE, dtype=np.float32)[labels]}, labels)
        noisy = outputs + 0.3 * random.normal(size=outputs.shape).astype(np.float32)
        return Drawn({PRIMARY: noisy}, {PRIMARY: outputs} if self.targets == "reference" else outputs)

    def perfect(self, drawn: Drawn) -> Drawn:
        """Return the same samples with outputs that cannot be better."""
        if self.targets == "labels":
            return replace(drawn, outputs={PRIMARY: 50 * np.eye(SIZE, dtype=np.float32)[drawn.targets]})
        best = drawn.targets[PRIMARY] if self.targets == "reference" else drawn.targets
        return replace(drawn, outputs={PRIMARY: best.copy()})

    def entry(self) -> Metric:
        """Return the metric."""
        try:
            found: Metric = metrics.get(self.name)()
        except TypeError as error:
            raise AssertionError(f"make {self.name} a class that is created without arguments: {error}") from error
        return found

    def rows(self, drawn: Drawn) -> Rows:
        """Return the rows of samples."""
        rows = self.entry().per_sample(drawn.outputs, drawn.targets, PRIMARY)
        assert rows is not None, "per_sample returns None for the suite's outputs: override draw() with outputs it measures"
        return rows

    def test_facts(self) -> None:
        """Name, label, unit and direction are there."""
        metric = self.entry()
        assert metric.name == self.name, f"name is {metric.name!r}: make it {self.name!r}, the key in run.json and in gates"
        assert metric.label, "give a label, the metric's name in tables, such as top-1"
        assert isinstance(metric.unit, str), "unit is a text: % for a share, empty for none"
        assert metric.better in ("higher", "lower"), f"better is {metric.better!r}: write higher or lower"
        assert type(metric).__doc__, "write a docstring: what the metric is, and its source"

    def test_rows(self) -> None:
        """There is a row of finite float64 numbers for each sample, and outputs and targets stay as they are."""
        drawn = self.draw()
        before = copy.deepcopy(drawn)
        rows = self.rows(drawn)
        assert rows.ndim == 2, f"per_sample returns {rows.ndim} dimensions: return N×k, also where k is 1"
        assert len(rows) == N, f"per_sample returns {len(rows)} rows for {N} samples"
        assert rows.dtype == np.float64, f"rows are {rows.dtype}: return float64, for sums over many samples"
        assert np.isfinite(rows).all(), "rows are not finite for ordinary outputs"
        np.testing.assert_equal(drawn.outputs, before.outputs, "per_sample changes the outputs: copy what is changed")
        np.testing.assert_equal(drawn.targets, before.targets, "per_sample changes the targets: copy what is changed")

    def test_one_sample(self) -> None:
        """One sample gives one row and a finite value."""
        rows = self.rows(self.draw().at(np.array([3])))
        assert len(rows) == 1, f"one sample has {len(rows)} rows"
        assert math.isfinite(self.entry().reduce(rows)), "the value of one sample is not finite"

    def test_streams(self) -> None:
        """A sample's row does not depend on the other samples: rows of parts, concatenated, are the rows of the whole."""
        drawn = self.draw()
        parts = [self.rows(drawn.at(part)) for part in np.split(np.arange(N), [7, 40])]
        message = "rows change with the other samples of the call: compute each from its own sample, and combine in reduce"
        np.testing.assert_allclose(np.concatenate(parts), self.rows(drawn), rtol=1e-9, err_msg=message)

    def test_value(self) -> None:
        """The value of all rows is one finite Python float, always the same."""
        rows = self.rows(self.draw())
        value = self.entry().reduce(rows)
        assert isinstance(value, float), f"reduce returns {type(value).__name__}: return float(...)"
        assert math.isfinite(value), f"reduce returns {value} for ordinary rows"
        assert value == self.entry().reduce(rows), "reduce returns another value for the same rows: it must not draw"
        if self.entry().unit == "%":
            assert -1 <= value <= 1, f"a metric in % is a share, 0 to 1, and the value is {value:g}: do not multiply by 100"

    def test_order(self) -> None:
        """The order of the rows does not matter."""
        rows = self.rows(self.draw())
        value, turned = self.entry().reduce(rows), self.entry().reduce(rows[::-1])
        assert turned == pytest.approx(value, rel=1e-9), f"{value:g} becomes {turned:g} with the rows in another order"

    def test_weights(self) -> None:
        """Weights count samples: ones change nothing, 0 leaves a sample out, 2 counts it twice."""
        rows, reduce = self.rows(self.draw()), self.entry().reduce
        ones = reduce(rows, np.ones(N))
        assert ones == pytest.approx(reduce(rows), rel=1e-9), f"weights of one change {reduce(rows):g} to {ones:g}"
        weights = np.random.default_rng(1).integers(0, 3, N).astype(np.float64)
        weighted, repeated = reduce(rows, weights), reduce(np.repeat(rows, weights.astype(int), axis=0))
        assert weighted == pytest.approx(repeated, rel=1e-9), (
            f"weights give {weighted:g}, the samples repeated that often {repeated:g}: weigh each row (np.average); "
            "intervals are computed with weights"
        )

    def test_best(self) -> None:
        """Perfect outputs are better than mediocre ones, by ``better``."""
        drawn, metric = self.draw(), self.entry()
        found, best = (metric.reduce(self.rows(one)) for one in (drawn, self.perfect(drawn)))
        assert best != found, f"perfect and mediocre outputs both have {best:g}: a metric has to tell them apart"
        assert (best > found) == (metric.better == "higher"), (
            f"perfect outputs have {best:g}, mediocre ones {found:g}, and {metric.better} is better: turn better round"
        )

    def test_primary(self) -> None:
        """The output called ``primary`` is read; others beside it change nothing."""
        drawn = self.draw()
        extra = {"before": np.zeros((N, 2), np.float32), **drawn.outputs, "behind": np.ones((N, 3), np.float32)}
        message = "another output changes the rows: read outputs[primary]"
        np.testing.assert_array_equal(self.rows(replace(drawn, outputs=extra)), self.rows(drawn), message)
