"""Conformance suites for plug-ins: pytest classes that the author of a loss or a runtime subclasses in two lines."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

try:
    import pytest  # noqa: F401
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("edgekd.testing needs pytest: pip install pytest", name="pytest") from error

if TYPE_CHECKING:
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
_MODULES = {
    "Gap": "suite", "LossSuite": "losses", "MetricSuite": "metrics", "RuntimeSuite": "runtimes", "SourceSuite": "sources",
    "Suite": "suite", "TaskSuite": "tasks", "TransportSuite": "transports", "suites": "suite",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    """Import a suite when it is asked for: those of losses and runtimes import torch."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
