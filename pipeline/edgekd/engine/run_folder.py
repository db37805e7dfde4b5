"""The folder of a run: its name, what is written into it, and the link to the latest."""

from __future__ import annotations

import os
import re
from pathlib import Path

from edgekd import writes
from edgekd.cache import storage
from edgekd.report.layouts import html, markdown
from edgekd.results.run import RunResult


def write_reports(result: RunResult, folder: Path) -> None:
    """Write report.html and report.md from a result."""
    for name, text in (("report.html", html.render(result)), ("report.md", markdown.render(result))):
        writes.write_text(folder / name, text, errors="backslashreplace")


def run_folder(parent: Path, key: str) -> Path:
    """Make the next ``NNNN-key8`` folder."""
    with storage(parent):
        parent.mkdir(parents=True, exist_ok=True)
        while True:
            taken = [int(m[1]) for path in parent.iterdir() if (m := re.match(r"(\d{4,})-", path.name))]
            folder = parent / f"{max(taken, default=0) + 1:04d}-{key[:8]}"
            try:
                folder.mkdir()
            except FileExistsError:  # another run took the number
                continue
            return folder


def point_latest(folder: Path) -> None:
    """Let ``latest`` beside a run folder point at it."""
    link = folder.parent / f".latest-{os.getpid()}"
    link.symlink_to(folder.name)
    link.replace(folder.parent / "latest")
