"""Is the distilled student better than the same student alone? The shipped recipe over several seeds, on validation images.

    python benchmarks/distill_gain.py [--seeds 3] [--recipe mobilenet]

Trains both students of each seed under the same budget (finished ones come from the cache) and writes
benchmarks/results/distill_gain.md. Accuracy only: nothing here is timed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results" / "distill_gain.md"
TRAINING_ONLY = ("quantize=null", "export=[]", "profile=null", "gates.accuracy_drop=null", "gates.size_ratio=null")


def run(recipe: str, seed: int, out: Path) -> dict[str, dict[str, float]]:
    overrides = [part for value in (f"seed={seed}", *TRAINING_ONLY) for part in ("--set", value)]
    command = [sys.executable, "-m", "edgekd", "run", recipe, "--json", "--out", str(out), *overrides]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    result = json.loads(done.stdout)["run"]
    found: dict[str, dict[str, float]] = {"environment": result["environment"]}
    for curve in result["curves"]:
        found[curve["model"]] = {"best": curve["val"]["top1"][curve["best_epoch"]], "last": curve["val"]["top1"][-1]}
    for model in result["models"]:
        test = next(metrics["values"]["top1"]["value"] for metrics in model["metrics"] if metrics["split"] == "test")
        found.setdefault(model["name"], {})["test"] = test
    return found


def table(recipe: str, runs: dict[int, dict[str, dict[str, Any]]]) -> str:
    environment = next(iter(runs.values()))["environment"]
    lines = [
        f"# Distilled against alone: `{recipe}`",
        "",
        f"Made by `python benchmarks/distill_gain.py --seeds {len(runs)} --recipe {recipe}`: same student, budget, seed,"
        " initial weights and order of images; top-1 in %.",
        f"Conditions: {environment['cpu']}, {environment['torch_threads']} threads,"
        f" torch {environment['packages']['torch']}.",
        "The validation split (1,000 images) chose the best epoch; the test split (2,000 images) was only looked at.",
        "",
        "| seed | alone, val best | distilled, val best | gain, val | alone, val last | distilled, val last"
        " | alone, test | distilled, test |",
        "|---|---|---|---|---|---|---|---|",
    ]
    columns: list[list[float]] = []
    for seed, found in runs.items():
        alone, distilled = found["student_alone"], found["distilled"]
        row = [100 * value for value in (
            alone["best"], distilled["best"], distilled["best"] - alone["best"], alone["last"], distilled["last"],
            alone["test"], distilled["test"],
        )]  # fmt: skip
        columns.append(row)
        lines.append(f"| {seed} | " + " | ".join(f"{value:.1f}" for value in row) + " |")
    means = [
        f"{statistics.mean(values):.2f} ± {statistics.stdev(values) if len(values) > 1 else 0:.2f}"
        for values in zip(*columns, strict=True)
    ]
    lines.append("| mean ± sd | " + " | ".join(means) + " |")
    teacher = next(iter(runs.values())).get("teacher", {}).get("test")
    if teacher is not None:
        lines += ["", f"The teacher: {100 * teacher:.1f} % on the test split."]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--recipe", default="mobilenet")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        runs = {seed: run(options.recipe, seed, Path(folder)) for seed in range(options.seeds)}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(table(options.recipe, runs), encoding="utf-8")
    print(RESULTS.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
