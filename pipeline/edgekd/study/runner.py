"""Runs a study: every method of every pair is a recipe of its own for the runner, whose stages are kept like any other.

So the same command goes on after an interruption, and a method that fails is a row with its reason.
"""

from __future__ import annotations

import datetime
import json
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from edgekd import __version__, environment, writes
from edgekd.assembly import layers
from edgekd.cache import key_of, storage
from edgekd.engine import plan, preflight, runner, torchrun, unmeasured
from edgekd.engine.plan import Planned
from edgekd.engine.run_folder import point_latest, run_folder
from edgekd.errors import EdgekdError, ExitCode, LayerError, Problem, RecipeError, StorageError, worst
from edgekd.loading.loaded import Loaded
from edgekd.recipe import Recipe
from edgekd.recipe.base import need
from edgekd.recipe.gates import Gates
from edgekd.recipe.student import Student
from edgekd.recipe.teacher import Teacher
from edgekd.report import facts
from edgekd.report import study as page
from edgekd.report.layouts import html, markdown
from edgekd.results.codec import to_json
from edgekd.results.findings import Finding, Missing
from edgekd.results.run import RunResult
from edgekd.results.study import FILE, Row, StudyResult, TeacherRow, judged
from edgekd.results.tuning import words
from edgekd.results.upgrade import SCHEMA
from edgekd.stages import distill
from edgekd.study.loading import LoadedStudy, Pair, once
from edgekd.task import base


@dataclass(frozen=True)
class Cell:
    """One recipe of a study: a pair's teacher, a baseline of it, or a method."""

    pair: Pair
    name: str
    role: Literal["teacher", "baseline", "method"]
    loaded: Loaded


@dataclass(frozen=True)
class Outcome:
    """A finished study: its folder, what it found, and what the shell should see."""

    folder: Path
    result: StudyResult
    exit_code: ExitCode


def cells(loaded: LoadedStudy) -> Iterator[Cell]:
    """The recipes of a study in the order they run: for each pair the teacher, the baselines, the methods."""
    for pair in loaded.pairs:
        common = pair.common.recipe
        if common.teacher:
            no_student = {"student": None, "distill": None, "tune": None, "seeds": 1}
            no_files = {"quantize": None, "export": (), "profile": None, "gates": Gates()}
            yield _cell(pair, "teacher", "teacher", common.model_copy(update=no_student | no_files))
        for baseline, make in distill.BASELINES.items():
            possible = common.data.teaches if baseline == "student_alone" else common.teacher
            if baseline in loaded.study.baselines and possible:
                yield _cell(pair, baseline, "baseline", make(common))
        for name, own in pair.methods.items():
            yield Cell(pair, name, "baseline" if name in loaded.study.baselines else "method", own)


def _cell(pair: Pair, name: str, role: Literal["teacher", "baseline"], recipe: Recipe) -> Cell:
    return Cell(pair, name, role, replace(pair.common, recipe=recipe, name=f"{pair.common.name}.{name}"))


def planned(loaded: LoadedStudy, processes: int = 1, threads: int | None = None) -> list[tuple[Cell, list[Planned]]]:
    """Plan every recipe of a study. Looks at files, never at torch.

    Raises:
        RecipeError: A device that it names is not there, or its file is wrong.
    """
    found = [_threaded(cell, threads) for cell in cells(loaded)]
    if mistakes := once(problem for cell in found for problem in preflight.devices(cell.loaded)):
        raise RecipeError(mistakes)
    return [(cell, plan.make(cell.loaded, processes)) for cell in found]


def _threaded(cell: Cell, threads: int | None) -> Cell:
    """The cell with the number of threads that it is trained with."""
    recipe = cell.loaded.recipe.model_copy(update={"threads": threads})
    return replace(cell, loaded=replace(cell.loaded, recipe=recipe))


def trainings(steps: Sequence[tuple[Cell, list[Planned]]]) -> tuple[dict[str, str], int]:
    """Say of each training that is to run which one it is, by its key, and count those that are there already."""
    waiting = dict.fromkeys(step.key for _, own in steps for step in own if torchrun.trains(step))
    labels = {key: f"training {number} of {len(waiting)}" for number, key in enumerate(waiting, start=1)}
    done = {step.key for _, own in steps for step in own if step.entry and step.node.stage.name in {"teacher", "distill"}}
    return labels, len(done)


def run(
    loaded: LoadedStudy, options: runner.Options, source: str, interrupted: Callable[[], bool] = lambda: False
) -> Outcome:
    """Run a study.

    Args:
        loaded: The study.
        options: As for a recipe; ``out`` is where the study's folder goes.
        source: How the study was called on the command line.
        interrupted: Whether somebody wants to stop; a library may have made a failure of the interruption.

    Raises:
        RecipeError: Losses compare layers that the networks do not have; nothing is trained then.
        StorageError: A disk is full or a folder cannot be written.
    """
    steps = planned(loaded, options.processes, options.threads)
    _check_layers(steps, options, source, interrupted)
    labels, cached = trainings(steps)
    folder = run_folder(options.out / loaded.name, key_of({"study": [step.key for _, own in steps for step in own]}))
    options.progress.say(f"{loaded.name}: {len(labels)} trainings to do, {cached} in the cache; report in {folder}")
    options = replace(options, out=folder / "runs", labels=labels, interrupted=interrupted)
    lost: dict[str, str] = {}  # stages of teachers that failed
    rows: dict[str, list[Row]] = {pair.name: [] for pair in loaded.pairs}
    teachers: list[TeacherRow] = []
    codes, found = [ExitCode.OK], None
    for number, (cell, own) in enumerate(steps, start=1):
        title = f"{cell.pair.name} · {cell.name}"
        options.progress.say(f"[{number}/{len(steps)}] {title}")
        result, reason = None, next((lost[step.key] for step in own if step.key in lost), "")
        if not reason:
            try:
                outcome = runner.run(cell.loaded, options)
                result = outcome.result
                codes.append(outcome.exit_code)
            except StorageError:
                raise
            except EdgekdError as error:
                if interrupted():
                    raise
                codes.append(error.exit_code)
                reason = f"{error.message} → {error.hint}" if error.hint else error.message
                if cell.role == "teacher":
                    lost |= {step.key: f"the teacher failed: {reason}" for step in own if step.node.stage.name == "teacher"}
        if reason:
            options.progress.say(f"  FAILED: {title}: {reason}")
        if cell.role == "teacher":
            teachers.append(_teacher(cell, result, reason))
        else:
            rows[cell.pair.name].append(_row(cell, result, reason))
            found = result or found
    task = base.record(base.task_of(loaded.pairs[0].common.recipe.task))
    study = StudyResult(
        schema=SCHEMA, edgekd=__version__, name=loaded.name, run=folder.name,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        command=shlex.join(["edgekd", "study", source, *(part for text in loaded.overrides for part in ("--set", text))]),
        study=loaded.study.model_dump(mode="json"),
        recipes={pair.name: _public(pair.common.recipe) for pair in loaded.pairs},
        data=found.data if found else None, teachers=tuple(teachers),
        rows=tuple(row for own in rows.values() for row in judged(own, task.metric)), trainings=len(labels) + cached,
        task=task,
        environment=environment.describe() | {"torch_threads": options.threads, "overrides": list(loaded.overrides)},
        not_measured=tuple(_limits(loaded)),
    )  # fmt: skip
    with storage(folder):
        write(study, folder)
    if study.failed or any(row.reason for row in teachers):
        codes.append(ExitCode.STAGE_FAILED)
    return Outcome(folder, study, worst(codes))


def _check_layers(
    steps: Sequence[tuple[Cell, list[Planned]]], options: runner.Options, source: str, interrupted: Callable[[], bool]
) -> None:
    """Fail now if losses compare layers that are not there, with all of them, and not one by one when their turn comes."""
    waiting: dict[str, tuple[Cell, Planned, Recipe]] = {}
    for cell, own in steps:
        for step, recipe in runner.lessons(own):
            waiting.setdefault(step.key, (cell, step, recipe))
    problems: list[Problem] = []
    if waiting:
        options.progress.say(f"looking at the layers that {len(waiting)} of the trainings compare")
    for cell, step, recipe in waiting.values():
        try:
            layers.find(recipe, options.progress, step.name)
        except LayerError as error:
            key = f"methods.{cell.name}" if cell.name in cell.pair.methods else cell.name
            problems.append(Problem(source, key, f"in the pair {cell.pair.name}, {error.message}", error.hint))
        except Exception:  # whatever else is wrong is told in its row
            if interrupted():
                raise
    if problems:
        raise RecipeError(problems)


def write(result: StudyResult, folder: Path) -> None:
    """Write study.json and the reports, and let ``latest`` point at them."""
    text = json.dumps(to_json(result), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    writes.write_text(writes.waiting(folder / FILE), text)
    with writes.completing(folder / FILE):
        write_reports(result, folder)
    point_latest(folder)


def write_reports(result: StudyResult, folder: Path) -> None:
    """Write the reports of a study into its folder."""
    built = page.build(result)
    writes.write_text(folder / "report.html", html.document(built, result, FILE))
    writes.write_text(folder / "report.md", markdown.document(built))


def _row(cell: Cell, result: RunResult | None, reason: str) -> Row:
    recipe = cell.loaded.recipe
    row = Row(
        cell.pair.name, cell.name, "baseline" if cell.role == "baseline" else "method",
        losses=" + ".join(f"{loss.weight:g} {loss.kind}" for loss in need(recipe.distill, "distill").losses),
        other=_other(cell, result), reason=reason,
    )  # fmt: skip
    if result is None:
        return row
    seconds = sum(stage.seconds for stage in result.stages if stage.name.partition(".")[0] in ("tune", "distill"))
    students = tuple(seed for seed in result.seeds if seed.model == "distilled")
    if any(seed.test_kept is None for seed in students):
        return replace(row, reason="nothing is known of the test split: no labels, and no outputs of the teacher")
    found = facts.section_of(result, "distill")["losses"]  # with what a search has chosen
    return replace(
        row, losses=" + ".join(f"{loss['weight']:g} {loss['kind']}" for loss in found), seconds=round(seconds, 1),
        folder=f"runs/{cell.loaded.name}/{result.run}", seeds=students,
        missing=tuple(f"{name} was {why}" for name, why in facts.lost(result)),
    )  # fmt: skip


def _other(cell: Cell, result: RunResult | None) -> str:
    """What a method changes beside its losses, and what it was tuned to: its budget is then another than the other rows'."""
    common, own = (_budget(recipe) for recipe in (cell.pair.common.recipe, cell.loaded.recipe))
    parts = [plan.changed(common, own)] if common != own and cell.name in cell.pair.methods else []
    if result and result.tuning:
        found = result.tuning
        parts.append(f"{len(found.trials)} trials chose {words(found.chosen.values, found.labels)}")
    return "; ".join(parts)


def _budget(recipe: Recipe) -> dict[str, Any]:
    value = recipe.model_dump(mode="json", exclude={"tune", "threads"})
    del value["distill"]["losses"]
    return value


def _teacher(cell: Cell, result: RunResult | None, reason: str) -> TeacherRow:
    recipe = cell.pair.common.recipe
    teacher, student = need(recipe.teacher, "teacher"), need(recipe.student, "student")
    model = result.model("teacher") if result else None
    found = model.figure(result.task.metric.name) if model and result else None
    return TeacherRow(cell.pair.name, _network(teacher), _network(student), found.value if found else None, reason)


def _network(part: Teacher | Student) -> str:
    if isinstance(part, Teacher) and part.ensemble:
        return f"ensemble of {', '.join(part.members())}"
    kind, colon, name = (part.model or "").rpartition(":")
    args = ", ".join(f"{key} {value}" for key, value in part.args.items())
    return f"{Path(kind).name}{colon}{name}" + (f" ({args})" if args else "")


def _public(recipe: Recipe) -> dict[str, Any]:
    return recipe.model_dump(mode="json", exclude_none=True, exclude={"seeds", "baselines"})


def _limits(loaded: LoadedStudy) -> Iterator[Missing]:
    """What a study cannot say, whatever it found."""
    if any(teacher.budget for pair in loaded.pairs if (teacher := pair.common.recipe.teacher)):
        yield Missing(Finding("one_teacher_a_pair"))
    tuned = dict.fromkeys(cell.name for cell in cells(loaded) if cell.loaded.recipe.tune)
    yield Missing(Finding("other_budgets", figures={"tuned": list(tuned)}))
    found: list[Missing] = []
    for pair in loaded.pairs:
        recipe = pair.common.recipe
        limits = (*unmeasured.unlabelled(recipe, loaded.study.baselines), *unmeasured.small_split(recipe))
        found += [limit for limit in limits if limit not in found]
    yield from found
    if not loaded.study.artifacts:
        yield Missing(Finding("no_files_in_a_study"))
