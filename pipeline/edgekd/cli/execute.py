"""Runs a loaded recipe and prints what came of it."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgekd.cli import interruption
from edgekd.errors import ExitCode

if TYPE_CHECKING:
    from edgekd.loading.loaded import Loaded


def threaded(loaded: Loaded, asked: int | None, processes: int) -> Loaded:
    """The recipe with the number of threads that it runs with: what was typed, what it says, or the default."""
    threads = threads_of(asked or loaded.recipe.threads, processes)
    return replace(loaded, recipe=loaded.recipe.model_copy(update={"threads": threads}))


def threads_of(asked: int | None, processes: int) -> int:
    """How many threads torch gets, before it is imported."""
    # OpenMP's threads spin while they wait; on a busy machine that is several times slower than to sleep.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("KMP_BLOCKTIME", "0")
    return asked or max(1, min(4, len(os.sched_getaffinity(0))) // processes)


def execute(
    loaded: Loaded, out: Path, *, processes: int = 1, threads: int | None = None, as_json: bool = False,
    without_devices: bool = False,
) -> int:  # fmt: skip
    """Run a recipe into a folder of ``out``; the exit code."""
    from edgekd.engine import gates, runner, torchrun
    from edgekd.progress import for_stream

    locked = loaded.recipe.threads if loaded.lock else None
    loaded = threaded(loaded, threads, processes)
    threads = loaded.recipe.threads or 1
    if torchrun.rank():
        torchrun.follow(loaded, threads)
        return int(ExitCode.OK)
    progress = interruption.Heard(for_stream())
    if locked not in (None, threads):
        progress.say(f"threads: {threads}, and the lock has {locked}: what is computed anew will have other bytes")
    options = runner.Options(out, progress, processes, threads, without_devices, interrupted=interruption.heard)
    outcome = runner.run(loaded, options)
    if as_json:
        for line in gates.failures(outcome.result.gates):  # the summary, which says them, is not printed
            click.echo(line, err=True)
        click.echo(json.dumps(runner.result_of(outcome), ensure_ascii=False))
    else:
        from rich.console import Console

        from edgekd.report.layouts import terminal

        terminal.show(outcome.result, Console())
        click.echo(f"\nReport: {outcome.folder / 'report.html'}\nArtifacts: {outcome.folder / 'artifacts'}")
    return int(outcome.exit_code)
