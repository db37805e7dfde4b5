"""The study's results as a page, and how often they were right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

PATTERNS = (
    "tests/protocol/study.py", "pipeline/edgekd/profiling/compare.py", "pipeline/edgekd/profiling/rounds.py",
    "pipeline/edgekd/profiling/on_device/timing.py", "pipeline/edgekd/profiling/on_device/reference.py",
)  # fmt: skip
"""What is compared, and how it is timed."""
WAYS = {
    "same": "a file against itself, in one session",
    "slower": "10 % more to compute, in one session",
    "same_over": "a file against itself, over two sessions",
    "slower_over": "10 % more to compute, over two sessions",
}
LEAST = {"same": 0.95, "slower": 0.80}
"""Share of comparisons that have to be right: no difference shown, and slower. Over two sessions it is only reported."""
RIGHT = {"same": "no difference shown", "slower": "slower", "same_over": "no difference shown", "slower_over": "slower"}

Row = Mapping[str, Any]


def counts(rows: Sequence[Row], way: str) -> dict[str, int]:
    """How often which verdict was given."""
    said = [row[way][0] for row in rows if row[way]]
    return {verdict: said.count(verdict) for verdict in ("no difference shown", "slower", "faster", "refused")}


def missed(rows: Sequence[Row]) -> list[str]:
    """Ways that were right less often than they have to be."""
    return [way for way, least in LEAST.items() if counts(rows, way)[RIGHT[way]] < least * len(rows)]


def page(value: Mapping[str, Any]) -> str:
    """Return the results as Markdown."""
    machine, rows = value["machine"], value["rows"]
    packages = ", ".join(f"{name} {machine['packages'][name]}" for name in ("onnxruntime", "numpy"))
    p50 = sorted(row["p50"] for row in rows)
    true = median(row["slower"][1] for row in rows if row["slower"][0] != "refused")
    lines = [
        "# Comparisons", "",
        "Made by `make soak`: each session measures a network twice and one with 10 % more to compute"
        f" ({value['multiplications']:.3f} times the multiplications), in turns, and compares them with 99 % intervals"
        " (`profiling/compare.py`). Over two sessions: with what the session before measured.", "",
        f"{len(rows)} sessions. Commit {machine['commit']}, {machine['cpu']}, {machine['cores']} cores, Python"
        f" {machine['python']}, {packages}. The machine was used by other programs meanwhile: on average"
        f" {sum(row['others'] for row in rows) / len(rows):.1f} cores; edgekd trusted the figures of"
        f" {sum(not row['untrusted'] for row in rows)} sessions. p50 of the same file went from {p50[0]:.2f} to"
        f" {p50[-1]:.2f} ms (median {median(p50):.2f}). Median ratio of the slower file: {true:.3f}.", "",
        "| comparison | right is | of | no difference shown | slower | faster | refused | median width of the interval |",
        "|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for way, words in WAYS.items():
        found = counts(rows, way)
        widths = [row[way][3] - row[way][2] for row in rows if row[way] and row[way][0] != "refused"]
        goal = f", {LEAST[way]:.0%} at least" if way in LEAST else ""
        lines.append(
            f"| {words} | {RIGHT[way]}{goal} | {sum(found.values())} | {' | '.join(map(str, found.values()))} |"
            f" {median(widths) if widths else 0:.3f} |"
        )
    return "\n".join([*lines, ""])
