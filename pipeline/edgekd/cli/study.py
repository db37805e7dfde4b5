"""``edgekd study``, and what ``check`` and ``plan`` say of a study."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgekd.cli import interruption
from edgekd.cli.options import (
    debug_option,
    json_option,
    out_option,
    print_json,
    processes_option,
    set_option,
    threads_option,
)
from edgekd.errors import UsageError, worst

HELP = """Compare methods: every method trains the student of every pair with several seeds and the same budget.

STUDY is a file, or the name of a study that ships with edgekd. Finished trainings are reused: after an interruption the same
command continues. A method that fails has a row with the reason, and the others continue.

\b
  edgekd study studies/losses
  edgekd study my.yaml --set seeds=5 --set distill.epochs=20
  edgekd plan my.yaml                    which trainings there are, and which are done

\b
my.yaml:
  study: 1
  recipe: mobilenet                      what all have in common: a recipe, or its keys
  seeds: 3
  pairs:                                 optional: other teachers and students
    small: {student: {model: edgekd:resnet10, args: {width: 8}}}
  methods:                               beside baselines: [student_alone, kd]
    fitnet: [{kind: task}, {kind: fitnet}]
    dkd: [{kind: task}, {kind: dkd}]

--set changes a key of the study (seeds, methods, …) or of the common recipe.

Exit codes: 0 ok, 2 study or usage error, 3 a row failed or could not be trained, 130 interrupted; with artifacts: true also
1 a gate failed, 3 a requested file is missing, 4 a device failed.
"""

if TYPE_CHECKING:
    from edgekd.results.study import StudyResult


@click.command(help=HELP, short_help="Compare methods over teacher-student pairs and seeds.")
@click.argument("study", type=click.Path(path_type=Path))
@set_option
@out_option("reports")
@processes_option
@threads_option
@json_option
@debug_option
def study(
    study: Path, overrides: tuple[str, ...], out: Path, processes: int, threads: int | None, as_json: bool, debug: bool
) -> int:
    import os

    from edgekd.engine import runner
    from edgekd.engine.threads import threads_of
    from edgekd.progress import for_stream
    from edgekd.results.codec import to_json
    from edgekd.study import runner as studies
    from edgekd.study.loading import load_study

    loaded = load_study(study, overrides)
    if "TORCHELASTIC_RUN_ID" in os.environ:
        raise UsageError("a study does not run under torchrun", "edgekd study … --processes N")
    options = runner.Options(out, interruption.Heard(for_stream()), processes, threads_of(threads, processes))
    outcome = studies.run(loaded, options, str(study), interruption.heard)
    if as_json:
        print_json({"folder": str(outcome.folder), "study": to_json(outcome.result)}, outcome.exit_code)
    else:
        _show(outcome.result, outcome.folder)
    return int(outcome.exit_code)


def _show(result: StudyResult, folder: Path) -> None:
    from rich.console import Console

    from edgekd.report import study as page
    from edgekd.report.layouts import terminal

    terminal.show_tables(page.build(result), "ranking", Console())
    click.echo(f"\nReport: {folder / 'report.html'}")


def report(path: Path, *, markdown: bool, as_json: bool) -> int:
    """Write the reports of a study again from its study.json, and show the ranking."""
    from edgekd import writes
    from edgekd.cache import storage
    from edgekd.report import study as page
    from edgekd.report.layouts import markdown as md
    from edgekd.results.codec import to_json
    from edgekd.results.study import FILE, read_study
    from edgekd.study import runner as studies

    folder = path if path.is_dir() else path.parent
    with storage(folder), writes.completing(folder / FILE) as file:
        result = read_study(file)
        studies.write_reports(result, folder)
    if as_json:
        print_json(to_json(result))
    elif markdown:
        click.echo(md.document(page.build(result)))
    else:
        _show(result, folder)
    return 0


def is_study(path: Path) -> bool:
    """Return whether a file is a study; what cannot be read is not, and is told of by who reads it as a recipe."""
    from edgekd.errors import RecipeError
    from edgekd.loading import files, shape
    from edgekd.loading.source import parse

    try:
        found, text = files.read(path)
    except RecipeError:
        return False
    return shape.is_study(parse(text, str(found)).value)


def check(path: Path, overrides: tuple[str, ...], as_json: bool) -> int:
    """Check a study and every recipe in it."""
    from edgekd.engine.checking import refusal
    from edgekd.study import checking

    found = checking.check(path, overrides)
    if found.loaded is None:
        raise refusal(found.problems, found.not_checked)
    loaded = found.loaded
    if as_json:
        print_json({"study": loaded.study.model_dump(mode="json")})
    else:
        counts = f"pairs: {len(loaded.pairs)}, methods: {len(loaded.study.methods)}, seeds: {loaded.study.seeds}"
        click.echo(f"{path}: ok, a study ({counts})")
    return 0


def plan(path: Path, overrides: tuple[str, ...], processes: int, threads: int | None, as_json: bool) -> int:
    """Show the trainings of a study: each with run, cached or blocked, and why."""
    from edgekd.engine.threads import threads_of
    from edgekd.study import runner as studies
    from edgekd.study.loading import load_study

    steps = studies.planned(load_study(path, overrides), processes, threads_of(threads, processes))
    rows = [
        {"pair": cell.pair.name, "method": cell.name, "stage": s.name, "status": s.status, "reason": s.reason, "key": s.key}
        for cell, own in steps
        for s in own
        if s.node.stage.name == "distill" or (s.node.stage.name == "teacher" and cell.role == "teacher")
    ]
    if as_json:
        click.echo(json.dumps(rows, ensure_ascii=False))
    else:
        titles = [f"{row['pair']} · {row['method']}" for row in rows]
        widths = max(map(len, titles)), max(len(row["stage"]) for row in rows)
        for title, row in zip(titles, rows, strict=True):
            line = f"{title:<{widths[0]}}  {row['stage']:<{widths[1]}}  {row['status']:<7}  {row['reason']}"
            click.echo(line.rstrip())
        labels, done = studies.trainings(steps)
        click.echo(f"\n{len(labels)} trainings to do, {done} in the cache")
    return int(worst(step.problem.exit_code for _, own in steps for step in own if step.problem is not None))
