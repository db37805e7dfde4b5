"""Runs a loaded recipe and prints what came of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgekd.cli import interruption
from edgekd.cli.options import print_json
from edgekd.errors import ExitCode

if TYPE_CHECKING:
    from edgekd.loading.loaded import Loaded


def execute(
    loaded: Loaded, out: Path, *, processes: int = 1, threads: int | None = None, as_json: bool = False,
    without_devices: bool = False,
) -> int:  # fmt: skip
    """Run a recipe into a folder of ``out``; the exit code."""
    from edgekd.engine import gates, runner, torchrun
    from edgekd.engine.threads import compare_with_lock, threaded
    from edgekd.progress import for_stream

    written, loaded = loaded, threaded(loaded, threads, processes)
    threads = loaded.recipe.threads or 1
    if torchrun.rank():
        torchrun.follow(loaded, threads)
        return int(ExitCode.OK)
    progress = interruption.Heard(for_stream())
    compare_with_lock(written, threads, progress.say)
    options = runner.Options(out, progress, processes, threads, without_devices, interrupted=interruption.heard)
    outcome = runner.run(loaded, options)
    if as_json:
        for line in gates.failures(outcome.result.gates):  # the summary, which says them, is not printed
            click.echo(line, err=True)
        print_json(runner.result_of(outcome), outcome.exit_code)
    else:
        from rich.console import Console

        from edgekd.report.layouts import terminal

        terminal.show(outcome.result, Console())
        click.echo(f"\nReport: {outcome.folder / 'report.html'}\nArtifacts: {outcome.folder / 'artifacts'}")
    return int(outcome.exit_code)
