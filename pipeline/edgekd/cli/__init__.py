"""The command line: arguments and printing. Imports neither torch nor a runtime."""

from __future__ import annotations

import io
import json
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgekd import __version__
from edgekd.cli import device, interruption, listing, model, profile, study, upgrade
from edgekd.cli.execute import execute
from edgekd.cli.options import (
    debug_option,
    json_option,
    out_option,
    print_json,
    processes_option,
    recipe_argument,
    set_option,
    threads_option,
    without_devices_option,
)
from edgekd.errors import EdgekdError, ExitCode, RecipeError, UsageError, ended, nearest, unexpected, worst

if TYPE_CHECKING:
    from edgekd.engine.plan import Planned
    from edgekd.loading.loaded import Loaded

RUN_HELP = """Run a recipe: distill → quantize → export → profile → report.

RECIPE is a file, or the name of a recipe that ships with edgekd (edgekd list recipes). Finished stages are reused: after an
interruption the same command continues, and a training that was running starts anew. A format or a device that fails has a
row with the reason in the report; the others are delivered. Before anything is trained, every device is asked whether it is
ready for what the recipe measures.

\b
  edgekd run recipes/mobilenet.yaml
  edgekd run mobilenet --set student.model=torchvision:resnet18 --set student.args={}
  edgekd run reports/mobilenet/latest/recipe.lock.yaml

Exit codes: 0 ok, 1 a gate failed, 2 recipe or usage error, 3 a stage failed or a requested file is missing, 4 a device
failed, 130 interrupted; of several 130 before 3, 4 and 1.
"""


GREETING = f"""\
edgekd {__version__}: a big trained network in, a small int8 one out, proven on its device.

  edgekd run mobilenet                                           the example
  edgekd quantize net.py:Net --weights best.pt --data images/    your own model to int8
  edgekd check my.yaml                                           is this recipe right?
  edgekd devices                                                 boards and phones to measure on
  edgekd --help                                                  all commands"""


@click.group(invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, "-V", "--version", message="edgekd %(version)s")
@click.pass_context
def cli(context: click.Context) -> None:
    """Turn a big trained network into a small int8 file for an edge device, and prove that it works there.

    One recipe, one command: distill → quantize → export → profile → report.

    \b
      edgekd run recipes/mobilenet.yaml      the whole chain
      edgekd check my.yaml                   is this recipe right?
      edgekd plan my.yaml                    what would run, what is cached, and why
      edgekd list losses                     what a recipe can name
      edgekd upgrade my.yaml                 an older recipe to the newest version
      edgekd study studies/losses            which method is better, over several seeds
      edgekd devices                         boards and phones to measure on; edgekd devices add pi@raspberrypi
      edgekd doctor pi4                      what a device can measure, and what is in the way

    Without a recipe, for a model that is trained already:

    \b
      edgekd quantize net.py:Net --weights best.pt --data images/
      edgekd export torchvision:resnet18 --weights best.pt --format onnx
      edgekd profile model.onnx --device pi4
    """
    if context.invoked_subcommand is None:
        click.echo(GREETING)


@cli.command(help=RUN_HELP)
@recipe_argument
@set_option
@out_option("reports")
@processes_option
@threads_option
@without_devices_option
@json_option
@debug_option
def run(
    recipe: Path, overrides: tuple[str, ...], out: Path, processes: int, threads: int | None, without_devices: bool,
    as_json: bool, debug: bool,
) -> int:  # fmt: skip
    from edgekd.loading import load

    loaded = load(recipe, overrides)
    return execute(
        loaded, out, processes=processes, threads=threads, as_json=as_json, without_devices=without_devices
    )  # fmt: skip


@cli.command()
@recipe_argument
@set_option
@json_option
@debug_option
def check(recipe: Path, overrides: tuple[str, ...], as_json: bool, debug: bool) -> int:
    """Check a recipe or a study without running anything: every mistake at once, at its line.

    RECIPE is a file, or the name of one that ships with edgekd. The files, models and devices that it names must be there;
    no device is asked.

    \b
      edgekd check recipes/mobilenet.yaml
      edgekd check my.yaml --set distill.epochs=1
      edgekd check studies/losses            every recipe of a study

    Exit codes: 0 ok, 2 it has mistakes.
    """
    from edgekd.engine import checking

    if study.is_study(recipe):
        return study.check(recipe, overrides, as_json)

    checked = checking.check(recipe, overrides)
    if checked.recipe is None:
        raise checking.refusal(checked.problems, checked.not_checked)
    if as_json:
        print_json({"recipe": checked.recipe.model_dump(mode="json")})
    else:
        click.echo(f"{recipe}: ok")
    return 0


@cli.command()
@recipe_argument
@set_option
@click.option("--layers", "with_layers", is_flag=True,
              help="Build both networks; show the layers that each loss compares, and operators that a format "
                   "does not have.")  # fmt: skip
@click.option(
    "--ask-devices", is_flag=True, help="Ask every device whether it is ready, as a run does; exit code 4 if one is not."
)
@processes_option
@threads_option
@json_option
@debug_option
def plan(
    recipe: Path,
    overrides: tuple[str, ...],
    with_layers: bool,
    ask_devices: bool,
    processes: int,
    threads: int | None,
    as_json: bool,
    debug: bool,
) -> int:
    """Show what a run would do: each stage with run, cached or blocked, and why. Executes nothing.

    RECIPE is a recipe or a study: a file, or the name of one that ships with edgekd. No device is asked, unless
    --ask-devices is given.

    \b
      edgekd plan recipes/mobilenet.yaml --set quantize.epochs=3
      edgekd plan my.yaml --layers           which layers each loss compares
      edgekd plan my.yaml --processes 4      the plan of `edgekd run my.yaml --processes 4`
      edgekd plan my.yaml --ask-devices      is every board and phone ready?
      edgekd plan studies/losses             which trainings a study needs

    Exit codes: 0 ok, 2 the recipe has mistakes, 3 a stage is blocked, 4 a device is not ready.
    """
    from edgekd.engine import plan as planning
    from edgekd.engine import preflight
    from edgekd.engine.threads import threaded
    from edgekd.loading import load
    from edgekd.results.codec import to_json

    if study.is_study(recipe) and ask_devices:
        raise UsageError("--ask-devices: a study's devices are not asked", f"edgekd plan {recipe}")
    if study.is_study(recipe):
        return study.plan(recipe, overrides, processes, threads, as_json)

    loaded = threaded(load(recipe, overrides), threads, processes)
    if mistakes := preflight.devices(loaded):
        raise RecipeError(mistakes)
    steps = planning.make(loaded, processes)
    if not any(step.problem for step in steps):
        _check_names(loaded, {step.name for step in steps if step.status == "run"})
    found = _layers(loaded) if with_layers else None
    lacking = _lacking(loaded) if with_layers else []
    asked = device.asked(loaded.recipe) if ask_devices else []
    blocked = [step.problem.exit_code for step in steps if step.problem is not None]
    code = int(worst([*blocked, *([ExitCode.DEVICE_FAILED] if any(record.problems for record in asked) else [])]))
    if as_json:
        rows = [
            {"stage": s.name, "status": s.status, "reason": s.reason, "key": s.key, "note": s.note, "watched": s.watched}
            for s in steps
        ]
        more = {} if found is None else {"losses": found[0], "lacking": lacking}
        more |= {"devices": [to_json(record) for record in asked]} if ask_devices else {}
        if more:
            print_json({"stages": rows, **more}, code)
        else:
            click.echo(json.dumps(rows, ensure_ascii=False))
    else:
        _print_steps(steps)
        if found is not None:
            click.echo("\n" + ("\n".join(found[1]) or "no loss compares layers"))
        for lack in lacking:
            where = f"{lack['operator']}{lack['place']}"
            click.echo(f"\n{lack['format']} cannot have {where}: {lack['why']}\n  → {lack['instead']}")
        for line in device.rows(asked):
            click.echo(line)
    return code


def _print_steps(steps: Sequence[Planned]) -> None:
    """Print the stages, and the files that are watched besides what the recipe names."""
    width = max(len(step.name) for step in steps)
    for step in steps:
        text = step.reason
        if step.entry is not None:
            text = f"{step.key[:8]}, took {step.entry.seconds:.0f} s when it ran"
        text += f"; {step.note}" if step.note else ""
        click.echo(f"{step.name:<{width}}  {step.status:<7}  {text}".rstrip())
    watched = sorted({path for step in steps for path in step.watched})
    if watched:
        click.echo("\nWatched besides what the recipe names (a cached stage runs again when one changes):")
        click.echo("\n".join(f"  {path}" for path in watched))


def _lacking(loaded: Loaded) -> list[dict[str, str]]:
    """Operators of the student that a format of the recipe cannot have."""
    from edgekd.assembly import operators

    return [vars(lack) for lack in operators.lacking(loaded.recipe)]


def _check_names(loaded: Loaded, waiting: set[str]) -> None:
    """See that the layers are there that the recipe names for stages that run; builds networks only if it names any."""
    from edgekd.assembly import layers, operators

    if layers.named(loaded.recipe):
        for name, lesson in layers.lessons(loaded.recipe):
            if name in waiting:
                layers.find(lesson, lesson=name)
    if "quantize" in waiting:
        operators.check_keep_float(loaded.recipe)


def _layers(loaded: Loaded) -> tuple[list[dict[str, Any]], list[str]]:
    """What the losses compare, for ``--json`` and in lines."""
    from edgekd.assembly import layers

    if not layers.compared(loaded.recipe):
        return [], []
    terms = layers.find(loaded.recipe)
    rows = [
        {
            "loss": term.name,
            "pairs": [
                {side: {"layer": layer.path, "shape": layer.shape} for side, layer in vars(pair).items()}
                for pair in term.pairs
            ],
            "parameters": layers.parameters(terms, term.name),
        }
        for term in terms.terms
    ]
    return rows, list(layers.told(terms))


@cli.command()
@click.argument("run_folder", metavar="RUN", type=click.Path(path_type=Path))
@click.option("--markdown", is_flag=True, help="Print the Markdown report instead of the summary.")
@json_option
@debug_option
def report(run_folder: Path, markdown: bool, as_json: bool, debug: bool) -> int:
    """Write a run's report again from its run.json, and print the summary.

    RUN is the folder of a run, a profile or a study, or a file: run.json, study.json, or the result of a pack.

    \b
      edgekd report reports/mobilenet/latest
      edgekd report reports/my-study/latest
      edgekd report edgekd-result.json      what a pack has measured on a board
    """
    from rich.console import Console

    from edgekd import writes
    from edgekd.artifacts import pack
    from edgekd.cache import storage
    from edgekd.engine.run_folder import write_reports
    from edgekd.report.layouts import markdown as md
    from edgekd.report.layouts import terminal
    from edgekd.results import codec
    from edgekd.results import run as runs
    from edgekd.results import study as studies

    code, of_study = 0, run_folder / studies.FILE
    if of_study.is_file() or writes.waiting(of_study).is_file() or run_folder.name == studies.FILE:
        return study.report(run_folder, markdown=markdown, as_json=as_json)
    if pack.is_result(run_folder):
        found = pack.report(run_folder, Path("reports"))
        result, folder, code = found.result, found.folder, int(found.exit_code)  # with its report
    else:
        folder = run_folder if run_folder.is_dir() else run_folder.parent
        with storage(folder), writes.completing(run_folder / runs.FILE if run_folder.is_dir() else run_folder) as file:
            result = runs.read_run(file)
            write_reports(result, folder)
    if as_json:
        print_json(codec.to_json(result), code)
    elif markdown:
        click.echo(md.render(result))
    else:
        terminal.show(result, Console())
        click.echo(f"\nReport: {folder / 'report.html'}")
    return code


@cli.command()
@click.option("--study", "of_study", is_flag=True, help="Print the schema of a study instead.")
@debug_option
def schema(of_study: bool, debug: bool) -> int:
    """Print the JSON Schema of a recipe or a study, for editors.

    \b
      edgekd schema > recipes/schema.json
      edgekd schema --study > recipes/study.schema.json
    """
    from edgekd.loading import schema as schemas

    value = schemas.study_schema() if of_study else schemas.json_schema()
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))
    return 0


cli.add_command(listing.list_)
cli.add_command(model.quantize)
cli.add_command(model.export)
cli.add_command(profile.profile)
cli.add_command(study.study)
cli.add_command(upgrade.upgrade)
cli.add_command(device.doctor)
cli.add_command(device.devices)


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line; every error becomes words and its exit code."""
    arguments = list(sys.argv[1:] if args is None else args)
    as_json = "--json" in arguments
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # the name of a file may have bytes that are no UTF-8
            stream.reconfigure(errors="backslashreplace")  # \udcff, which is JSON for it
    interruption.listen()
    try:
        with interruption.kept():
            code = cli.main(args=arguments, prog_name="edgekd", standalone_mode=False)
        _hidden()
    except (click.exceptions.Abort, KeyboardInterrupt) as error:
        left = interruption.hint(arguments[0] if arguments else "", error)
        _fail(EdgekdError("interrupted", left), as_json, interruption.EXIT_CODE)
    except click.ClickException as error:
        _fail(UsageError(error.format_message(), _usage(error, arguments)), as_json, ExitCode.USAGE)
    except EdgekdError as error:
        if "--debug" in arguments:
            traceback.print_exc()
        _hidden()
        _fail(error, as_json, error.exit_code)
    except SystemExit as error:  # no command of edgekd's: what a model's code or a plug-in does
        if "--debug" in arguments:
            traceback.print_exc()
        _fail(EdgekdError(*ended(error)), as_json, ExitCode.STAGE_FAILED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # `edgekd list models | head`
        sys.exit(0)
    except Exception as error:
        if "--debug" in arguments:
            raise
        _fail(EdgekdError(*unexpected(error)), as_json, ExitCode.STAGE_FAILED)
    sys.exit(code if isinstance(code, int) else 0)


def _usage(error: click.ClickException, arguments: Sequence[str]) -> str:
    """Say what to type instead of a command line that is wrong: a command that there is, an example, or the help."""
    name = arguments[0] if arguments and not arguments[0].startswith("-") else ""
    if name and name not in cli.commands:
        meant = nearest(name, cli.commands)
        return f"did you mean edgekd {meant}?" if meant else "edgekd --help"
    lines = [line.strip() for line in ((cli.commands[name].help or "") if name else "").splitlines()]
    example = next((line for line in lines if line.startswith(f"edgekd {name} ")), "")
    if isinstance(error, click.MissingParameter) and example:
        return f"such as {example.partition('  ')[0]}; edgekd {name} --help"
    return f"edgekd {name} --help".replace("  ", " ")


def _hidden() -> None:
    """Name the plug-ins that are not used, because edgekd has an entry of the name that the command has used."""
    registry = sys.modules.get("edgekd.registry")
    for text in registry.hidden() if registry is not None else ():
        click.echo(f"note: {text}", err=True)


def _fail(error: EdgekdError, as_json: bool, code: int) -> None:
    if as_json:
        problems = [vars(problem) for problem in error.problems] if isinstance(error, RecipeError) else []
        print_json({"error": error.message, "hint": error.hint, "problems": problems}, code)
    click.echo(str(error) if isinstance(error, RecipeError) else f"error: {error}", err=True)
    sys.exit(int(code))
