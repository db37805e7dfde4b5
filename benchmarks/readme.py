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
        f"{minutes:.0f} min of work (two trainings at a time) on {environment['cores']} cores ({environment['cpu']}), "
        f"{environment['os']}, Python {environment['python']}"
    )


def recipe_row(name: str, result: RunResult) -> str:
    def top1(model: str) -> str:
        found = result.model(model)
        value = found.top1() if found else None
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
    result = example("mobilenet")
    return f"```text\n{terminal_text(result)}\n```\n\n{conditions(result)}."


def recipes_block() -> str:
    head = (
        "| recipe | data | teacher, top-1 % | student alone | distilled | int8 ONNX / TFLite / OpenVINO | int8 size, MiB "
        "| int8 p50 on the host, ms | whole run |\n|---|---|---|---|---|---|---|---|---|"
    )
    rows = [recipe_row(path.name, example(path.name)) for path in sorted(EXAMPLES.iterdir()) if path.is_dir()]
    return "\n".join([head, *rows])


def replaced(text: str, marker: str, block: str) -> str:
    pattern = rf"(<!-- {marker} -->\n).*?(\n<!-- /{marker} -->)"
    return re.sub(pattern, lambda found: found[1] + block + found[2], text, flags=re.S)


def rendered() -> dict[Path, str]:
    """The two files as they should be."""
    readme, recipes = ROOT / "README.md", ROOT / "recipes" / "README.md"
    return {
        readme: replaced(readme.read_text(encoding="utf-8"), "run", readme_block()),
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
