"""The rows of the students: whether each meets its goal, and all as a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from students import FORMATS

import soaks

PATTERNS = (
    "tests/recipes/students.py", "recipes/mobilenet.yaml",
    "pipeline/edgekd/models/build.py", "pipeline/edgekd/models/torchvision.py",
    "pipeline/edgekd/recipe/quantize.py", "pipeline/edgekd/quantization/**/*.py",
    "pipeline/edgekd/exporting/formats/**/*.py", "pipeline/edgekd/exporting/parity.py",
    "pipeline/edgekd/engine/gates.py", "pipeline/edgekd/results/gates.py", "pipeline/edgekd/recipe/gates.py",
    "pipeline/edgekd/statistics.py", "pipeline/edgekd/metrics/fidelity.py",
)  # fmt: skip
"""The recipe, how a student is made, quantized and written, and what decides a verdict. The training is not among them: how
well the float network has learnt stands in its row."""
LEAST = 0.6
"""Top-1 of every file: a network that has not learnt agrees with anything."""
KNOWN = {"shufflenet_v2_x1_0": ("size_ratio of openvino fail",)}
"""How the reasons of known misses begin, by student. Of a row with another reason the exit code is 1."""

Row = Mapping[str, Any]


def missed(row: Row) -> list[str]:
    """Return what keeps a row from its goal: verdict pass, no float operation, top-1 above ``LEAST``, on all test images."""
    reasons = []
    if row["verdict"] != "pass":
        reasons.append(soaks.failing(row["gates"]) or row["said"] or f"verdict {row['verdict']}")
    for name in FORMATS:
        if name not in row["top1"]:
            reasons.append(f"{name} has no top-1")
            continue
        if row["top1"][name] <= LEAST:
            reasons.append(f"top-1 of {name} is {100 * row['top1'][name]:.1f} %")
        if row["n"][name] != row["test"]:
            reasons.append(f"{name} was measured on {row['n'][name]:,} images")
        if row["float_ops"][name]:
            reasons.append(f"float in {name}: {', '.join(row['float_ops'][name])}")
    return reasons


def unknown(row: Row) -> list[str]:
    """Return the reasons of :func:`missed` that are not known."""
    known = KNOWN.get(row["student"], ())
    return [reason for reason in missed(row) if not reason.startswith(known)]


def line(row: Row) -> str:
    """Return a row in a line of text."""
    return f"{row['student']}: {row['verdict']} ({row['seconds']:.0f} s)" + "".join(f"; {one}" for one in missed(row))


def page(value: Mapping[str, Any]) -> str:
    """Return the results as Markdown."""
    machine, rows = value["machine"], value["rows"]
    packages = ", ".join(f"{name} {number}" for name, number in machine["packages"].items())
    met = sum(not missed(row) for row in rows)
    return "\n".join([
        "# Other students", "",
        "Made by `make soak`: the shipped recipe `mobilenet` with students that it was not written for, on a part of"
        " fashion-mnist-mini, two epochs, without baselines and profile. Goal of each: the verdict is pass with the recipe's"
        f" gates, no operation is float, and top-1 of every file is above {LEAST:.0%}.", "",
        f"{met} of {len(rows)} meet the goal. Commit {machine['commit']}, {machine['cpu']}, {machine['cores']} cores,"
        f" Python {machine['python']}, {packages}.", "",
        f"| student | images to train, to test | verdict | top-1 in float, % | {' | '.join(FORMATS)} | float operations |"
        " accuracy_drop, points | seconds | goal missed |",
        "|---" * (8 + len(FORMATS)) + "|",
        *(_line(row) for row in rows), "",
        *_gates(rows),
    ])  # fmt: skip


def _line(row: Row) -> str:
    files = " | ".join(_percent(row["top1"], name) for name in FORMATS)
    operations = " / ".join(str(len(row["float_ops"][name])) if name in row["float_ops"] else "—" for name in FORMATS)
    drops = [gate[3] for gate in row["gates"] if gate[0] == "accuracy_drop" and gate[3] is not None]
    return (
        f"| {row['student']} | {row['train']:,}, {row['test']:,} | {row['verdict']} | {_percent(row['top1'], 'float')} |"
        f" {files} | {operations} | {' / '.join(f'{100 * drop:.2f}' for drop in drops) or '—'} | {row['seconds']:.0f} |"
        f" {'; '.join(missed(row))} |"
    )


def _percent(values: Mapping[str, float], name: str) -> str:
    return f"{100 * values[name]:.1f}" if name in values else "—"


def _gates(rows: Sequence[Row]) -> list[str]:
    lines = ["## Gates", "", "| student | file | gate | limit | measured | verdict |", "|---|---|---|---|---|---|"]
    for row in rows:
        for name, file, limit, measured, verdict in row["gates"]:
            figure = "—" if measured is None else f"{measured:.4g}"
            lines.append(f"| {row['student']} | {file} | {name} | {limit} | {figure} | {verdict} |")
    return [*lines, ""]
