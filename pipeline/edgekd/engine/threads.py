"""Threads that torch computes with: decided before it is imported, for they decide the last bits of every sum."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace

from edgekd.loading.loaded import Loaded


def threads_of(asked: int | None, processes: int) -> int:
    """Return how many threads torch gets in each of the processes that train together."""
    # OpenMP's threads spin while they wait; on a busy machine that is several times slower than to sleep.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("KMP_BLOCKTIME", "0")
    return asked or max(1, min(4, len(os.sched_getaffinity(0))) // processes)


def threaded(loaded: Loaded, asked: int | None, processes: int) -> Loaded:
    """Return the recipe with the threads that it runs with: those asked for, its own, or the default."""
    threads = threads_of(asked or loaded.recipe.threads, processes)
    return replace(loaded, recipe=loaded.recipe.model_copy(update={"threads": threads}))


def compare_with_lock(loaded: Loaded, threads: int, say: Callable[[str], None]) -> None:
    """Say if a lock is replayed with another number of threads than it has."""
    locked = loaded.recipe.threads if loaded.lock else None
    if locked not in (None, threads):
        say(f"threads: {threads}, and the lock has {locked}: recomputed stages will have other bytes")
