"""The oracle's results as a page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import soaks

DESTROYED, SOUND = 0.05, 0.01
"""True change of top-1 from which a network is destroyed, and up to which it is sound."""
VERDICTS = ("pass", "undecided", "fail", "untrusted", "not_measured", "none")

Row = Mapping[str, Any]


def wrong(rows: Sequence[Row]) -> list[Row]:
    """Return the rows whose verdict is not true: a destroyed network passes, or a sound one fails."""
    return [row for row in rows if (row["truth"], row["verdict"]) in {("destroyed", "pass"), ("sound", "fail")}]


def line(row: Row) -> str:
    """Return a row in a line of text."""
    drop = "no file" if row["drop"] is None else f"{100 * row['drop']:.2f} points lost"
    mark = "  WRONG" if wrong([row]) else ""
    return (
        f"{row['network']}, seed {row['seed']}, {row['look']}: {row['verdict']}; {row['truth']}, {drop} "
        f"of {100 * row['float_top1']:.1f} % ({row['seconds']:.0f} s){mark}" + (f": {row['said']}" if row["said"] else "")
    )


def table(rows: Sequence[Row]) -> str:
    """Return how often which verdict was given to networks of which truth, as Markdown."""
    counts = Counter((row["look"], row["truth"], row["verdict"]) for row in rows)
    verdicts = [*VERDICTS, *sorted({row["verdict"] for row in rows} - {*VERDICTS})]
    lines = [f"| edgekd sees | truth | {' | '.join(verdicts)} |", "|---|---|" + "---|" * len(verdicts)]
    for look in sorted({row["look"] for row in rows}):
        for truth in ("sound", "between", "destroyed", "unknown"):
            found = [counts[look, truth, verdict] for verdict in verdicts]
            if any(found):
                lines.append(f"| {look} | {truth} | {' | '.join(str(count) for count in found)} |")
    return "\n".join(lines) + "\n"


def page(value: Mapping[str, Any]) -> str:
    """Return the results as Markdown."""
    machine, rows = value["machine"], value["rows"]
    networks = len({(row["network"], row["seed"]) for row in rows})
    packages = ", ".join(f"{name} {number}" for name, number in machine["packages"].items())
    return "\n".join([
        "# Oracle", "",
        "Made by `make soak`: small networks (tests/oracle/networks.py) that int8 leaves alone or destroys, quantized by"
        " `edgekd run` with its defaults. Truth: top-1 of the float network minus that of the worst int8 file, on 5,000"
        f" images of Fashion-MNIST that edgekd never sees. Sound: {100 * SOUND:g} point at most; destroyed:"
        f" {100 * DESTROYED:g} or more; in between, any verdict is right.", "",
        f"{networks} networks, {len(rows)} runs; verdicts that are wrong: {len(wrong(rows))}. Commit {machine['commit']},"
        f" {machine['cpu']}, {machine['cores']} cores, Python {machine['python']}, {packages}.", "",
        table(rows),
        "| network | seed | edgekd sees | float, % | true drop, points | truth | verdict | gates that do not pass |",
        "|---|---|---|---|---|---|---|---|",
        *(_row(row) for row in rows), "",
    ])  # fmt: skip


def _row(row: Row) -> str:
    drop = "—" if row["drop"] is None else f"{100 * row['drop']:.2f}"
    verdict = f"**{row['verdict']}**" if wrong([row]) else row["verdict"]
    return (
        f"| {row['network']} | {row['seed']} | {row['look']} | {100 * row['float_top1']:.1f} | {drop} | {row['truth']} |"
        f" {verdict} | {soaks.failing(row['gates']) or row['said']} |"
    )
