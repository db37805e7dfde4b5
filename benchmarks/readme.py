"""Write the measured parts of README.md and recipes/README.md from the committed example runs.

    python benchmarks/readme.py                take reports/examples/ as it is
    python benchmarks/readme.py --take RUN     first replace the example with this run folder, and its picture

So no figure in them is typed by hand; a test holds that they are up to date.
"""

from __future__ import annotations

import argparse
import io
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from rich.console import Console

from edgekd.assembly.wiring import FOUND
from edgekd.report.layouts import terminal
from edgekd.results.models import ModelRecord
from edgekd.results.run import RunResult, read_run

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "reports" / "examples"
KEPT = ("run.json", "report.html", "report.md", "recipe.lock.yaml")


def example(name: str) -> RunResult:
    return read_run(EXAMPLES / name)


def terminal_text(result: RunResult) -> str:
    stream = io.StringIO()
    terminal.show(result, Console(file=stream, width=120, no_color=True, force_terminal=False))
    return stream.getvalue().rstrip()


def conditions(result: RunResult) -> str:
    environment = result.environment
    minutes = sum(stage.seconds for stage in result.stages) / 60
    return (
        f"{minutes:.0f} min for its stages, one after the other, on {environment['cores']} cores, {environment['cpu']}, "
        f"{environment['os']}, Python {environment['python']}"
    )


def recipe_row(name: str, result: RunResult) -> str:
    def top1(model: str) -> str:
        found = result.model(model)
        figure = found.figure("top1") if found else None
        value = figure.value if figure else None
        return "not measured" if value is None else f"{100 * value:.1f}"

    int8 = [model for model in result.models if model.role == "artifact" and not model.name.endswith("_float")]
    sizes = " / ".join(f"{model.bytes / 2**20:.2f}" for model in int8 if model.bytes is not None)
    return (
        f"| [`{name}`]({name}.yaml) | {result.data.source} "
        f"| {top1('teacher')} | {top1('student_alone')} | {top1('distilled')} "
        f"| {' / '.join(top1(model.name) for model in int8)} | {sizes} | {' / '.join(_p50(result, m) for m in int8)} "
        f"| {conditions(result)} |"
    )


def _p50(result: RunResult, model: ModelRecord) -> str:
    profile = next((profile for profile in result.profiles if profile.model == model.name), None)
    if profile is None:
        return "not measured"
    return f"{profile.latency_ms.p50:.3g}{'' if profile.trust.verdict == 'trusted' else ' (untrusted)'}"


def readme_block() -> str:
    """Return the first three paragraphs of the summary: verdict, gates, the best file."""
    result = example("mobilenet")
    summary = "\n\n".join(terminal_text(result).split("\n\n")[:3])
    return (
        f"It prints this first, then all models and what was not measured ({conditions(result)}):\n\n```text\n{summary}\n```"
    )


def checks_block() -> str:
    """Return what a run checks, with the limits and figures of the example run."""
    result = example("mobilenet")

    def span(name: str, factor: float = 1.0) -> tuple[str, str]:
        """Return the limit of a gate, and its figures over all files."""
        gates = [gate for gate in result.gates if gate.name == name and gate.level == "error"]
        limit = next(gate.limit.value for gate in gates if gate.limit is not None)
        low, high = (f"{factor * of(gate.measured or 0.0 for gate in gates):.3g}" for of in (min, max))
        return f"{factor * limit:.3g}", low if low == high else f"{low} to {high}"

    top1, lsb = span("parity_top1", 100), span("parity_lsb_p99")
    drop, size = span("accuracy_drop", 100), span("size_ratio")
    models = {model.name: 100 * found.value for model in result.models if (found := model.figure("top1"))}
    images = f"{result.gates[0].n:,}"
    checks = {
        "The file is the network.": f"In its own runtime, each file finds the class that torch's int8 graph finds on "
        f"≥ {top1[0]} % of the {images} test images (here {top1[1]} %), and 99 % of the output errors are ≤ {lsb[0]} steps "
        f"(here {lsb[1]}). Outputs on a [device](docs/devices.md) are compared, too.",
        "int8 keeps the accuracy.": f"It is at most {drop[0]} points of top-1 below float, with a 95 % interval "
        f"(here {drop[1]} points). A [gate](docs/gates.md) that fails ends the run with "
        "[exit code 1](docs/run.md#exit-codes).",
        "int8 is smaller and faster, or the report says why not.": "Float and int8 are measured in one session, in turns; "
        f"operations that stay in float are named (here {size[1]} times the size of float).",
        "Distillation helps, or the report says that it does not.": "The same student without a teacher has the same budget "
        f"(here {models['student_alone']:.1f} %; distilled {models['distilled']:.1f} %, teacher {models['teacher']:.1f} %).",
        "The inputs are right.": f"Given weights are tried on labelled images first, {FOUND} or more: a wrong "
        "normalization, size or class order stops the run with its [cause](docs/weights.md).",
        "The figures reproduce.": "One seed, one lock, one machine: the same bytes ([cache](docs/cache.md)).",
    }
    return "\n".join(f"* **{claim}** {text}" for claim, text in checks.items())


def recipes_block() -> str:
    head = (
        "| recipe | data | teacher, top-1 % | student alone | distilled | int8 ONNX / TFLite / OpenVINO | int8 size, MiB "
        "| int8 p50 on the host, ms | whole run |\n|---|---|---|---|---|---|---|---|---|"
    )
    rows = [recipe_row(path.name, example(path.name)) for path in sorted(EXAMPLES.iterdir()) if path.is_dir()]
    return "\n".join([head, *rows])


def replaced(text: str, marker: str, block: str) -> str:
    pattern = rf"(<!-- {marker} -->\n).*?(<!-- /{marker} -->)"
    return re.sub(pattern, lambda found: f"{found[1]}{block}\n{found[2]}", text, flags=re.S)


def rendered() -> dict[Path, str]:
    """The two files as they should be."""
    readme, recipes = ROOT / "README.md", ROOT / "recipes" / "README.md"
    return {
        readme: replaced(replaced(readme.read_text("utf-8"), "run", readme_block()), "checks", checks_block()),
        recipes: replaced(recipes.read_text(encoding="utf-8"), "table", recipes_block()),
    }


def take(run: Path) -> None:
    """Keep a run as the example of its recipe, and its report's picture."""
    result = read_run(run)
    target = EXAMPLES / result.name
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for name in KEPT:
        shutil.copyfile(run / name, target / name)
    with tempfile.TemporaryDirectory() as profile:
        subprocess.run(
            ["chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
             "--hide-scrollbars", f"--user-data-dir={profile}", "--window-size=1280,1500",
             f"--screenshot={ROOT / 'docs' / f'report-{result.name}.png'}", (target / "report.html").resolve().as_uri()],
            check=True, capture_output=True,
        )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--take", type=Path, metavar="RUN")
    options = parser.parse_args()
    if options.take:
        take(options.take)
    for path, text in rendered().items():
        path.write_text(text, encoding="utf-8")
        print(f"wrote {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
