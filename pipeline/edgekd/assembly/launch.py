"""A training: in this process, or in several that share the work."""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

from edgekd.assembly.background import isolated_children, killed
from edgekd.assembly.context import Context
from edgekd.errors import EdgekdError, ErrorRecord
from edgekd.reads import watch
from edgekd.reads.bytecode import from_source
from edgekd.recipe.train import Train
from edgekd.results import codec

T = TypeVar("T")
_FAILURE = "failure.json"


_READS = "reads.json"  # what a training process of several has read


PACKAGES = ("torch", "torchvision", "lightning-fabric", "numpy")


def launch(context: Context, budget: Train, work: Callable[[Any, Context], T | None]) -> T | None:
    """Call ``work(fabric, context)`` in each training process; process 0 writes the weights and has a result.

    One process on a CPU or a GPU; ``--processes N`` starts N of them, and ``torchrun`` brings its own.
    """
    import torch
    from lightning_fabric import Fabric
    from torch.multiprocessing.spawn import ProcessExitedException

    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # must be set before CUDA starts to have any effect
    gpu = torch.cuda.is_available()
    precision = budget.precision
    if precision == "auto":
        precision = ("bf16-mixed" if torch.cuda.is_bf16_supported() else "16-mixed") if gpu else "32-true"
    under_torchrun = "TORCHELASTIC_RUN_ID" in os.environ
    several = context.processes > 1 or under_torchrun
    fabric = Fabric(
        accelerator="cuda" if gpu else "cpu",
        devices=int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if under_torchrun else context.processes,
        strategy=("ddp" if under_torchrun else "ddp_spawn") if several else "auto",
        precision=precision,
    )
    part = partial(_in_process, context=context, work=work)
    if under_torchrun:
        fabric.launch()
        found = part(fabric).value
        fabric.barrier()
        return found
    others = multiprocessing.active_children()  # what trains beside this one
    try:
        with isolated_children() if several else nullcontext():
            carried: _Carried[T] = fabric.launch(part)
        for told in sorted(context.out.glob(f"*.{_READS}")):
            watch.take_over(json.loads(told.read_text(encoding="utf-8")))
            told.unlink()
        return carried.value
    except BaseException as error:
        for child in multiprocessing.active_children():  # those of this training would go on to the end, for nobody
            if child not in others:
                child.terminate()
        told = context.out / _FAILURE
        if isinstance(error, ProcessExitedException) and error.signal_name == "SIGKILL":
            raise killed(f"process {error.error_index + 1} of {context.processes}") from error
        if not isinstance(error, Exception) or not told.exists():
            raise
        raise codec.read(ErrorRecord, told).error() from error


class _Carried(Generic[T]):
    """A result on its way out of a process: Fabric would take a dataclass apart."""

    def __init__(self, value: T | None) -> None:
        self.value = value


def _in_process(fabric: Any, context: Context, work: Callable[[Any, Context], T | None]) -> _Carried[T]:
    seed(context.recipe.seed, context.threads)
    try:
        with watch.recording(context.files) as recorder, from_source():
            found = work(fabric, context)
        if context.processes > 1:  # a process of its own, which the stage does not see into
            path = context.out / f"{fabric.global_rank}.{_READS}"
            path.write_text(json.dumps(recorder.told()), encoding="utf-8")
        return _Carried(found)
    except EdgekdError as error:
        if context.processes > 1:  # its words would drown in the traceback that comes back from a process
            with suppress(OSError):  # the disk that failed may be this one
                part = context.out / f"{_FAILURE}.{fabric.global_rank}"
                codec.write(ErrorRecord.of(error), part)
                part.replace(context.out / _FAILURE)
        raise


def seed(value: int, threads: int) -> None:
    """Make torch deterministic in this process."""
    import torch

    if not _found:
        _found.append(_Torch.now())
    torch.set_num_threads(threads)
    torch.manual_seed(value)
    torch.use_deterministic_algorithms(True, warn_only=True)
    # It would also fill every fresh tensor, in case a kernel forgets to: benchmarks/results/distill_speed.md has the price.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


@dataclass(frozen=True)
class _Torch:
    """What :func:`seed` changes of torch in this process."""

    threads: int
    deterministic: bool
    warn_only: bool
    fills: bool
    random: Any

    @classmethod
    def now(cls) -> _Torch:
        import torch

        return cls(
            torch.get_num_threads(),
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
            torch.utils.deterministic.fill_uninitialized_memory,  # type: ignore[attr-defined]
            torch.get_rng_state(),
        )

    def put(self) -> None:
        import torch

        torch.set_num_threads(self.threads)
        torch.use_deterministic_algorithms(self.deterministic, warn_only=self.warn_only)
        torch.utils.deterministic.fill_uninitialized_memory = self.fills  # type: ignore[attr-defined]
        torch.set_rng_state(self.random)


_found: list[_Torch] = []
"""Torch as it was before the first :func:`seed`."""


@contextmanager
def handed_back() -> Iterator[None]:
    """Leave torch as it was found: its threads, its deterministic mode and its random numbers belong to who called."""
    _found.clear()
    if "torch" in sys.modules:
        _found.append(_Torch.now())
    try:
        yield
    finally:
        if _found:
            _found.pop().put()
