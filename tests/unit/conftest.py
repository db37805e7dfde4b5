from __future__ import annotations

import multiprocessing.context
import os

import pytest
from tests import processes

# openvino reports home, from a fork, when it is imported and when it converts; in continuous integration it does not.
os.environ.setdefault("CI", "true")


@pytest.fixture(autouse=True)
def warm_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes of training import torch once for all tests; a module about how they start has a fixture of its own."""
    monkeypatch.setitem(multiprocessing.context._concrete_contexts, "spawn", processes.Warm())  # type: ignore[attr-defined]
