"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

recipe_argument = click.argument("recipe", type=click.Path(path_type=Path))
set_option = click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a key, such as distill.epochs=1. Repeatable."
)
devices_option = click.option(
    "--devices", type=click.IntRange(1), default=1, show_default=True, help="GPUs (or CPU processes) to train on."
)
threads_option = click.option(
    "--threads", type=click.IntRange(1), help="Threads for torch.  [default: one a core, at most 4]"
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on standard output.")
debug_option = click.option("--debug", is_flag=True, help="Show tracebacks.")


without_devices_option = click.option(
    "--without-devices", is_flag=True,
    help="Go on though a device does not answer or lacks a runtime: what it could not measure is listed.",
)  # fmt: skip


def out_option(default: str) -> Decorator:
    """``--out``, the folder that run folders go into."""
    return click.option(
        "--out", type=click.Path(path_type=Path), default=Path(default), show_default=True, help="Folder for run folders."
    )
