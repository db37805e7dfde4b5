"""``torchrun --nproc-per-node N -m edgekd run RECIPE``: process 0 runs the recipe, the others train along with it."""

from __future__ import annotations

import os
import time
from pathlib import Path

from edgekd import cache
from edgekd.assembly.context import Context, processes
from edgekd.engine import plan
from edgekd.engine.plan import Planned
from edgekd.loading.loaded import Loaded
from edgekd.progress import Silent


def rank() -> int:
    """Number of this process among those of ``torchrun``; 0 without it."""
    return int(os.environ.get("RANK", "0")) if "TORCHELASTIC_RUN_ID" in os.environ else 0


def follow(loaded: Loaded, threads: int) -> None:
    """Take part in every stage that trains; what process 0 commits is the result.

    Planned before process 0 can finish any training stage, since those need this process: both see the same plan. When
    process 0 fails, torchrun ends this one.
    """
    steps = plan.make(loaded, processes(1))
    last = max((index for index, step in enumerate(steps) if trains(step)), default=-1)
    done: dict[str, Path] = {}
    trained: set[str] = set()  # what is asked for twice, as plain kd can be, is trained once
    for step in steps[: last + 1]:
        if trains(step) and step.key not in trained:
            trained.add(step.key)
            with cache.scratch() as scratch:
                context = Context(
                    recipe=step.node.recipe,
                    name=step.name,
                    out=scratch,
                    inputs={name: done[name] for name in step.node.inputs},
                    log=Path(os.devnull),
                    progress=Silent(),
                    threads=threads,
                    folder=loaded.folder,
                )
                step.node.stage.run(context)
        done[step.name] = _committed(step, loaded.folder)


def trains(step: Planned) -> bool:
    """Return whether a stage that is to run trains a network."""
    return step.status == "run" and plan.trains(step.node)


def _committed(step: Planned, folder: Path) -> Path:
    """Wait until process 0 has committed the stage."""
    while True:
        entry, _ = cache.lookup(step.key, folder)
        if entry is not None:
            return entry.path
        time.sleep(0.2)
