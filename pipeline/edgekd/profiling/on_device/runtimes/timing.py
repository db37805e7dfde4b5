"""Times of inferences."""

from __future__ import annotations

import time
from typing import Any


def timed(work: Any, runs: int) -> list[float]:
    """Milliseconds of each of ``runs`` calls, after as many to warm up."""
    for _ in range(runs):
        work()
    times = []
    for _ in range(runs):
        began = time.perf_counter_ns()
        work()
        times.append((time.perf_counter_ns() - began) / 1e6)
    return times
