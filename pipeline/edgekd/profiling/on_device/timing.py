"""The timed part: warm-up and blocks of inferences."""

from __future__ import annotations

import time
from typing import Any

from .machine import state, thread_ns

BUSY_THREAD = 0.1
"""Share of a block's wall time from which on a thread counts as having worked."""
SETTLE_RUNS = 3
"""Inferences at the head of a block that do not count: the variant before it left its own data in the caches."""

WINDOW_RUNS = 5
WINDOW_MS = 50.0
"""A window of the warm-up has at least so many inferences and takes at least so long."""
WINDOWS = 3
"""Windows in a row whose medians have to agree."""
AGREE = 0.05
"""They agree where the largest is at most this much above the smallest."""


class Timing:
    """Times inferences; whoever inherits from it has ``runtime`` and ``feeds``, which are taken in turn."""

    runtime: Any
    feeds: list[dict[str, Any]]

    def warmup(self, runs: int, ms: float, limit_ms: float = 0.0) -> dict[str, Any]:
        """Run until the times are steady: the medians of the last ``WINDOWS`` windows agree.

        Args:
            runs: Inferences at the least.
            ms: Milliseconds at the least.
            limit_ms: Milliseconds after which the warm-up ends, steady or not, once it has the least.
        """
        began = time.perf_counter_ns()
        medians: list[float] = []
        done = 0
        while True:
            times = self._repeat(WINDOW_RUNS, WINDOW_MS)
            done += len(times)
            medians.append(sorted(times)[len(times) // 2])
            last, spent = medians[-WINDOWS:], since(began)
            steady = len(last) == WINDOWS and max(last) <= (1 + AGREE) * min(last)
            if done >= runs and spent >= ms and (steady or spent >= limit_ms):
                return {"runs": done, "ms": spent, "steady": steady, "spent_s": time.process_time()}

    def block(self, runs: int, ms: float) -> dict[str, Any]:
        """Time at least ``runs`` inferences and at least ``ms`` milliseconds of them; the state is that right after."""
        self._repeat(SETTLE_RUNS, 0)
        before, mine, began = thread_ns(), time.process_time_ns(), time.perf_counter_ns()
        times = self._repeat(runs, ms)
        wall, cpu = since(began), (time.process_time_ns() - mine) / 1e6
        worked = [(spent - before.get(name, 0)) / 1e6 for name, spent in thread_ns().items()]
        threads = sum(spent > BUSY_THREAD * wall for spent in worked)
        told = {"wall_ms": wall, "cpu_ms": cpu, "threads": threads, "state": state(), "spent_s": time.process_time()}
        return {"samples": times, **told}

    def _timed(self, index: int) -> float:
        feed = self.feeds[index % len(self.feeds)]
        began = time.perf_counter_ns()
        self.runtime.run(feed)
        return since(began)

    def _repeat(self, runs: int, ms: float) -> list[float]:
        end = time.perf_counter_ns() + ms * 1e6
        times: list[float] = []
        while len(times) < runs or time.perf_counter_ns() < end:
            times.append(self._timed(len(times)))
        return times


def since(began: int) -> float:
    """Milliseconds since a reading of ``time.perf_counter_ns``."""
    return (time.perf_counter_ns() - began) / 1e6
