"""What each way to be taught gives on one small student: the recipes of recipes/regimes/, whole, to their int8 files.

    python benchmarks/regimes.py [--only mutual byot]

Runs every recipe like `edgekd run`, from the checkout: black-box.yaml reads the report of black-box-teacher.yaml. Finished
stages come from the cache. A finished row is written at once to benchmarks/results/regimes.json, and all rows to
regimes.md. One seed, and nothing here is timed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from edgekd import environment
from edgekd.results.run import RunResult, read_run

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "recipes" / "regimes"
ROWS = ROOT / "benchmarks" / "results" / "regimes.json"
PAGE = ROWS.with_suffix(".md")
FILES = {"onnx": "ONNX", "tflite": "TFLite", "openvino": "OpenVINO"}
FIRST = "black-box-teacher"  # whose file black-box learns from


def names() -> list[str]:
    """All regimes, that which another needs first."""
    return sorted((path.stem for path in FOLDER.glob("*.yaml")), key=lambda name: (name != FIRST, name))


def run(name: str) -> dict[str, Any]:
    """Run one; a gate that fails is a finding."""
    done = subprocess.run([sys.executable, "-m", "edgekd", "run", str(FOLDER / f"{name}.yaml")], cwd=ROOT, check=False)
    if done.returncode not in (0, 1):
        raise SystemExit(f"{name}: exit code {done.returncode}")
    return figures(read_run(ROOT / "reports" / name / "latest"))


def figures(result: RunResult) -> dict[str, Any]:
    """What the table has of a run; a figure that it lacks is None."""

    def top1(name: str) -> float | None:
        model = result.model(name)
        found = model.figure("top1") if model else None
        return found.value if found else None

    student = result.student()
    return {
        "teacher": top1("teacher"), "alone": top1("student_alone"), "student": top1(student.name) if student else None,
        **{name: top1(name) for name in FILES},
        "gates": [sum(gate.verdict == "pass" for gate in result.gates), len(result.gates)],
    }  # fmt: skip


def table(rows: dict[str, dict[str, Any]]) -> str:
    """The page."""
    about = environment.describe()
    lines = [
        "# Who teaches: every regime once",
        "",
        "Made by `python benchmarks/regimes.py`: the recipes of recipes/regimes/ as they are, one seed each. Top-1 in % on"
        " the 2,000 test images of fashion-mnist-mini: one point is 20 images, and the 95 % interval of a figure of 85 % is"
        " ± 1.6 points. Budgets are of three epochs or so and differ from one recipe to another: a row says that the way"
        " works from end to end, and is no ranking of the ways. One without a row has not been run.",
        "",
        f"- {about['cpu']}, torch {about['packages']['torch']}, {about['os']}.",
        "",
        f"| regime | teacher | student alone | student | {' | '.join(f'{name} int8' for name in FILES.values())} | gates |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in names():
        if name not in rows or name == FIRST:
            continue
        row = rows[name]
        cells = [_percent(row[key]) for key in ("teacher", "alone", "student", *FILES)]
        passed, of = row["gates"]
        lines.append(f"| [{name}](../../recipes/regimes/{name}.yaml) | {' | '.join(cells)} | {passed} of {of} |")
    return "\n".join(lines) + "\n"


def _percent(value: float | None) -> str:
    return "—" if value is None else f"{100 * value:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=names(), default=names())
    options = parser.parse_args()
    rows = json.loads(ROWS.read_text(encoding="utf-8")) if ROWS.exists() else {}
    for name in options.only:
        rows[name] = run(name)
        ROWS.write_text(json.dumps(rows, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        PAGE.write_text(table(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
