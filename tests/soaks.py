"""What the soaks share: the machine, the gates of a run, and results that are kept in a file and on a page."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from edgekd import environment
from edgekd.results.run import RunResult


def machine() -> dict[str, Any]:
    """Processor, cores, versions and commit, as they stand in the results."""
    known = environment.describe()
    command = ["git", "rev-parse", "--short=12", "HEAD"]
    done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    return {"commit": done.stdout.strip(), **{key: known[key] for key in ("cpu", "cores", "python", "packages")}}


def gates(result: RunResult) -> list[list[Any]]:
    """Each gate of each file as ``[name, file, limit, measured, verdict]``."""
    return [
        [gate.name, gate.model, str(gate.limit) if gate.limit else "", gate.measured, gate.verdict] for gate in result.gates
    ]


def failing(gates: Sequence[Sequence[Any]]) -> str:
    """Name the gates that do not pass, with what was measured and the limit."""
    return "; ".join(
        f"{name} of {file} {verdict}" + ("" if measured is None else f" ({measured:.4g}, limit {limit})")
        for name, file, limit, measured, verdict in gates
        if verdict != "pass"
    )


def last_line(text: str) -> str:
    """Return the last line of a text that is not empty, 300 characters at most; empty where there is none."""
    return ([line for line in text.splitlines() if line.strip()] or [""])[-1][:300]


def write(path: Path, value: Mapping[str, Any], page: Callable[[Mapping[str, Any]], str]) -> None:
    """Write the results and, beside them, their page."""
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    path.with_suffix(".md").write_text(page(value), encoding="utf-8")
