"""Conformance suites for plug-ins: pytest classes that the author of a loss or a runtime subclasses in two lines."""

try:
    import pytest  # noqa: F401
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("edgekd.testing needs pytest: pip install pytest", name="pytest") from error

from edgekd.testing.losses import LossSuite
from edgekd.testing.metrics import MetricSuite
from edgekd.testing.runtimes import RuntimeSuite
from edgekd.testing.sources import SourceSuite
from edgekd.testing.suite import Gap, Suite, suites
from edgekd.testing.tasks import TaskSuite
from edgekd.testing.transports import TransportSuite

__all__ = [
    "Gap",
    "LossSuite",
    "MetricSuite",
    "RuntimeSuite",
    "SourceSuite",
    "Suite",
    "TaskSuite",
    "TransportSuite",
    "suites",
]
