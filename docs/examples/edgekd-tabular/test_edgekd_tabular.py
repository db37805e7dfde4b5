"""Hold the task and its metric against edgekd's conformance suites: ``pytest`` in this folder."""

from edgekd.task.base import Samples
from edgekd.testing import MetricSuite, TaskSuite


class TestTask(TaskSuite):
    """Samples of the task, and samples that it refuses."""

    name = "tabular-regression"
    samples = Samples({"x": ((8,), "float32")}, target=(3,))
    others = Samples({"image": ((3, 8, 8), "float32")})


class TestMetric(MetricSuite):
    """The metric compares values."""

    name, targets = "rmse", "values"
