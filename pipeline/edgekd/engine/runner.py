"""Executes a plan: stages in order, each committed in one rename, then the run folder with its report.

Whatever happens, finished stages stay in the cache, so the same command goes on where it stopped; and what can be delivered
is delivered, whichever format or device failed.
"""

from __future__ import annotations

import datetime
import os
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from edgekd import __version__, cache, environment
from edgekd.assembly import layers, operators, peers
from edgekd.assembly.background import Background
from edgekd.assembly.context import Context, changed, processes, recent_graphs
from edgekd.assembly.recent import Recent
from edgekd.assembly.stage import perform
from edgekd.cache import storage
from edgekd.data import described, fingerprint, same_samples
from edgekd.devices import targets
from edgekd.engine import gates, guard, locked, plan, preflight, unmeasured
from edgekd.engine.beside import Beside
from edgekd.engine.guard import guarded
from edgekd.engine.plan import Planned
from edgekd.engine.run_folder import point_latest, run_folder, write_reports
from edgekd.errors import DataError, EdgekdError, ExitCode, ExportError, FilesError, RecipeError, worst
from edgekd.loading.loaded import Loaded
from edgekd.profiling import readiness
from edgekd.progress import Progress, Silent
from edgekd.reads import watch
from edgekd.reads.bytecode import from_source
from edgekd.recipe import Recipe
from edgekd.report import missing as missing_words
from edgekd.report.layouts import card
from edgekd.results.codec import to_json
from edgekd.results.findings import missing as lacking
from edgekd.results.profile import DeviceRecord
from edgekd.results.run import RunResult, StageRecord, reported
from edgekd.results.upgrade import SCHEMA
from edgekd.stages import tune
from edgekd.stages.package import PackageStage
from edgekd.stages.profile import ProfileStage
from edgekd.task import base

if TYPE_CHECKING:
    from torch import fx

Made = list[tuple[cache.Entry, Literal["ran", "cached"]]]
"""What a process has made: the entry of each of its stages."""


@dataclass(frozen=True)
class Options:
    """Options of a run: folder, progress, training processes, threads.

    ``without_devices``: go on where a device is not ready. ``labels`` says more of a stage, by its key, such as which of all
    trainings it is; ``interrupted`` whether an interruption was requested; ``graphs`` has those that stages have traced.
    """

    out: Path
    progress: Progress
    processes: int = 1
    threads: int = 1
    without_devices: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)
    interrupted: Callable[[], bool] = bool  # never
    graphs: Recent[fx.GraphModule] = field(default_factory=recent_graphs)


@dataclass(frozen=True)
class Outcome:
    """A finished run: its folder, what it found, and what the shell should see."""

    folder: Path
    result: RunResult
    exit_code: ExitCode


def run(loaded: Loaded, options: Options) -> Outcome:
    """Run a recipe.

    A format that cannot be written and a device that fails are told in the result; everything else is delivered.

    Raises:
        RecipeError: A device that it names is not there, or its file is wrong.
        DeviceError: A device is not ready, and nothing has been trained yet.
        StageError: Another stage failed; all stages before it are kept.
        StorageError: A disk is full or a folder cannot be written.
    """
    if mistakes := preflight.devices(loaded):
        raise RecipeError(mistakes)
    steps = plan.make(loaded, processes(options.processes))
    for step in steps:
        if isinstance(step.problem, DataError):  # of no stage's own
            raise step.problem
        if step.problem is not None:
            raise step.problem.saying(f"{step.name} cannot run: {step.problem.message}") from step.problem
    asked = readiness.check(loaded.recipe, options.progress.say, options.without_devices)
    folder = run_folder(options.out / loaded.name, steps[-1].key)
    with storage(folder):
        (folder / "logs").mkdir()
        locked.write(loaded, folder)
    _describe(loaded, steps, options)
    _check_views(loaded, steps)
    _check_layers(steps, options, folder)
    _check_operators(steps, options, folder)
    work = _Work(loaded, options, folder, steps)
    work.asked = asked
    with ExitStack() as stack:
        beside = _beside(steps, options)
        quiet = replace(options, progress=Silent())
        aside = None
        while work.pending:
            step = work.pending.pop(0)
            if beside and aside is None and not _is_given(step):
                stack.callback(cache.sweep)  # a process that is killed leaves what it has half made
                aside = stack.enter_context(Background(_stages, loaded, beside, quiet, folder, {}))
                work.options = replace(options, progress=Beside(options.progress, aside, beside[0].name))
            if aside is not None and (failure := aside.failure()):
                raise failure
            if step in beside:
                options.progress.say(f"{work.title(step)}: {step.reason}; trains beside the others")
                continue
            if step.name == "evaluate" and aside is not None:  # the first to read what was trained aside
                for own, (entry, status) in zip(beside, aside.result(), strict=True):
                    options.progress.say(f"  {own.name}: done in {entry.seconds:.0f} s, beside the others")
                    work.finished(own, entry, status)
                beside, aside, work.options = [], None, options
            (_measure if isinstance(step.node.stage, ProfileStage) else _Work.do)(work, step)
    result = _finish(work)
    return Outcome(folder, result, work.exit_code(result))


class _Work:
    """A run under way: the stages to come, the folders of those that are finished, and what failed.

    A format that cannot be written, a file that does not run and a device that does not answer are taken out, and the run
    goes on with what is left.
    """

    def __init__(self, loaded: Loaded, options: Options, folder: Path, steps: Sequence[Planned]) -> None:
        self.loaded, self.options, self.folder = loaded, options, folder
        self.pending, self.package = list(steps[:-1]), steps[-1]
        self.done: dict[str, Path] = {}
        self.entries: list[cache.Entry] = []
        self.codes: list[ExitCode] = []  # of devices
        self.asked: Sequence[DeviceRecord] = ()  # the devices before the first stage
        self._records: dict[str, StageRecord] = {}
        self._order = [step.name for step in steps]

    def title(self, step: Planned) -> str:
        """Number and name of a stage, and which of all trainings it is."""
        name = f"[{self._order.index(step.name) + 1}/{len(self._order)}] {step.name}"
        label = self.options.labels.get(step.key)
        return f"{name}, {label}" if label else name

    def finished(self, step: Planned, entry: cache.Entry, status: Literal["ran", "cached"]) -> None:
        """Note that a stage is finished."""
        self.done[step.name] = entry.path
        self.entries.append(entry)
        self._records[step.name] = StageRecord(step.name, status, step.key, round(entry.seconds, 1))

    def do(self, step: Planned, aside: Background[Made] | None = None) -> None:
        """Run a stage, or take it from the cache; ``aside``: the process that runs it.

        Raises:
            EdgekdError: It failed, and there is nothing without it.
        """
        began = time.monotonic()
        try:
            if aside is None:
                made = _stage(self.loaded, step, self.options, self.done, self.folder, self.title(step))
            else:
                (made,) = aside.result()
                self.options.progress.say(f"  {step.name}: done in {made[0].seconds:.0f} s")
            self.finished(step, *made)
        except EdgekdError as error:
            if self.options.interrupted():  # a library has made another error of the interruption
                raise
            if isinstance(error, FilesError):  # their stages have ended well
                self.pending.insert(0, step)
                for stage, failure in error.failures.items():
                    self._failed(replace(self._records[stage], status="failed"), failure)
            elif step.node.stage.optional:
                self._failed(StageRecord(step.name, "failed", step.key, round(time.monotonic() - began, 1)), error)
                if isinstance(step.node.stage, ProfileStage):
                    self.codes.append(error.exit_code)
            else:
                raise
            *self.pending, self.package = plan.without(self.loaded, [*self.pending, self.package], self.lost())

    def _failed(self, record: StageRecord, error: EdgekdError) -> None:
        reason = guard.reason(self.loaded.recipe, record.name, error)
        self.options.progress.say(f"  FAILED: {record.name}: {reason}")
        self.done.pop(record.name, None)
        self._records[record.name] = replace(record, reason=reason.replace(f"{self.folder}/", ""))

    def records(self) -> tuple[StageRecord, ...]:
        """The stages in the order of the plan."""
        return tuple(self._records[name] for name in self._order if name in self._records)

    def lost(self, kind: str = "") -> tuple[str, ...]:
        """Names of the stages that failed and begin with ``kind``, such as ``export.``."""
        return tuple(r.name for r in self.records() if r.status == "failed" and r.name.startswith(kind))

    def exit_code(self, result: RunResult) -> ExitCode:
        """Return the exit code: requested files that are missing, devices and gates together."""
        missing = [ExitCode.STAGE_FAILED] if gates.missing(self.loaded.recipe, result.models) else []
        failed = [ExitCode.DEVICE_FAILED] if result.failures else []
        judged = ExitCode.OK if gates.passed(result.gates) else ExitCode.GATE_FAILED
        return worst([*missing, *failed, *self.codes, judged])


def _measure(work: _Work, first: Planned) -> None:
    """Measure on a device, and on all others that it does not disturb at the same time, each in a process of its own."""
    names = [
        step.name.removeprefix("profile.") for step in (first, *work.pending) if isinstance(step.node.stage, ProfileStage)
    ]
    chosen = {f"profile.{name}" for name in targets.together(work.loaded.recipe, names)[1:]}
    beside = [step for step in work.pending if step.name in chosen]
    work.pending = [step for step in work.pending if step.name not in chosen]
    quiet = replace(work.options, progress=Silent())
    with ExitStack() as stack:
        processes = []
        for step in beside:
            work.options.progress.say(f"{work.title(step)}: {step.reason}; beside {first.name}")
            aside = Background(_stages, work.loaded, [step], quiet, work.folder, work.done)
            processes.append(stack.enter_context(aside))
        work.do(first)
        for step, process in zip(beside, processes, strict=True):
            work.do(step, process)


def _describe(loaded: Loaded, steps: Sequence[Planned], options: Options) -> None:
    """Say what is read before the first stage that looks at it."""
    if any(step.status == "run" and step.node.stage.reused for step in steps):
        views = dict.fromkeys([loaded.recipe.data, *(step.node.recipe.data for step in steps)])
        for source in dict.fromkeys(view.source for view in views):
            view = next(view for view in views if view.source == source)
            for line in described.described(view, options.progress, task=loaded.recipe.task):
                options.progress.say(line)


def _check_views(loaded: Loaded, steps: Sequence[Planned]) -> None:
    """Fail now if a teacher that is to be made sees other samples than the student; a plan does not open torchvision's."""
    for view in {step.node.recipe.data for step in steps if step.status == "run"}:
        same_samples.same(loaded.recipe.data, view)


def _check_layers(steps: Sequence[Planned], options: Options, folder: Path) -> None:
    """Fail now if the student, the losses' layers or a peer cannot be, and not when what comes before is trained."""
    trains = ("teacher", "distill", "tune")
    first = next((step.name for step in steps if step.status == "run" and step.node.stage.name in trains), "")
    student = next((step for step in steps if step.status == "run" and step.node.stage.name == "distill"), None)
    if student is not None and student.name != first:
        log = folder / "logs" / f"{student.name}.log"
        with guarded(student, Context(student.node.recipe, student.name, folder, {}, log, options.progress)):
            layers.check_student(student.node.recipe, options.progress)
    for step, recipe in lessons(steps):
        if step.name != first:
            log = folder / "logs" / f"{step.name}.log"
            with guarded(step, Context(recipe, step.name, folder, {}, log, options.progress)):
                layers.find(recipe, options.progress, step.name)


def _check_operators(steps: Sequence[Planned], options: Options, folder: Path) -> None:
    """Fail now if no format of the recipe can have an operator of the student; say it if only some of them cannot.

    Raises:
        ExportError: All of them cannot.
        QuantizeError: The student cannot be traced, or has no layer that is to stay in float.
    """
    quantized = next((step for step in steps if step.status == "run" and step.name == "quantize"), None)
    if quantized is not None:
        log = folder / "logs" / f"{quantized.name}.log"
        with guarded(quantized, Context(quantized.node.recipe, quantized.name, folder, {}, log, options.progress)):
            operators.check_keep_float(quantized.node.recipe)
    step = next((step for step in steps if step.status == "run" and step.node.stage.name == "export"), None)
    if step is None:
        return
    recipe = steps[-1].node.recipe
    log = folder / "logs" / f"{step.name}.log"
    with guarded(step, Context(recipe, step.name, folder, {}, log, options.progress)):
        found = operators.lacking(recipe, options.progress)
    if operators.impossible(recipe, found):
        raise ExportError(f"no file can be written: {found[0]}", found[0].instead)
    for lack in found:
        options.progress.say(f"  warning: {lack}\n    → {lack.instead}")


def _typed(folder: Path) -> Path:
    """Return a path as it is typed in the working folder."""
    path, here = folder.absolute(), Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def lessons(steps: Sequence[Planned]) -> Iterator[tuple[Planned, Recipe]]:
    """The stages that are about to distill with losses on layers or with peers, with the recipe of their student."""
    waiting = {step.name: step for step in steps if step.status == "run"}
    for name, recipe in layers.lessons(steps[-1].node.recipe):
        if name in waiting and (layers.compared(recipe) or peers.sections(recipe)):
            yield waiting[name], recipe


def _beside(steps: Sequence[Planned], options: Options) -> list[Planned]:
    """The baseline of each seed, to be trained beside the others, where both have to be and there is a core for each."""
    waiting = [step for step in steps if step.status == "run" and step.node.stage.name == "distill"]
    alone = [step for step in waiting if step.name.partition(".")[0] == "student_alone"]
    return alone if alone and len(alone) < len(waiting) and _two_lanes(options) else []


def _is_given(step: Planned) -> bool:
    """Return whether it is a teacher that is not trained here: if its file does not fit, nothing else is trained either."""
    teacher = step.node.recipe.teacher if step.node.stage.name == "teacher" else None
    return teacher is not None and teacher.budget is None


def _stages(loaded: Loaded, steps: Sequence[Planned], options: Options, folder: Path, done: Mapping[str, Path]) -> Made:
    """Stages that do not read each other, one after the other."""
    return [_stage(loaded, step, options, dict(done), folder, step.name) for step in steps]


def _two_lanes(options: Options) -> bool:
    """Return whether two students may train at a time: on a CPU with two threads to give; a GPU is filled by one."""
    alone = options.processes == 1 and "TORCHELASTIC_RUN_ID" not in os.environ
    return alone and options.threads > 1 and not Path("/dev/nvidiactl").exists()


def _threads(step: Planned, options: Options) -> int:
    """Threads of a stage; the two students get half each, also when only one of them runs: threads change the bits."""
    return options.threads // 2 if step.node.stage.name in ("distill", "tune") and _two_lanes(options) else options.threads


def _stage(
    loaded: Loaded, step: Planned, options: Options, done: dict[str, Path], folder: Path, title: str
) -> tuple[cache.Entry, Literal["ran", "cached"]]:
    if step.entry is not None:
        options.progress.say(f"{title}: cached")
        return step.entry, "cached"
    options.progress.say(f"{title}: {step.reason}")
    with cache.locked(step.key):
        entry, _ = cache.lookup(step.key, loaded.folder)
        if entry is not None and step.node.stage.reused:  # another run has just made it
            return entry, "cached"
        with cache.scratch() as scratch, watch.recording(step.files) as recorder, from_source():
            started, before = time.monotonic(), options.interrupted()
            context = Context(
                recipe=tune.chosen(step.node.recipe, done, step.name), name=step.name, out=scratch,
                inputs={name: done[name] for name in step.node.inputs},
                log=folder / "logs" / f"{step.name}.log",
                progress=options.progress, processes=options.processes, threads=_threads(step, options),
                folder=loaded.folder, files=step.files, graphs=options.graphs, words=missing_words.while_running,
            )  # fmt: skip
            with guarded(step, context):
                perform(step.node.stage, context)
            if options.interrupted() and not before:  # a library or a side figure has swallowed it
                raise KeyboardInterrupt
            found = context.reads(recorder)
            if source := _changed_data(step):
                raise changed(step.name, source)
            entry = cache.commit(scratch, step.key, step.material, time.monotonic() - started, found)
    cache.remember(loaded.name, step.name, step.material)
    return entry, "ran"


def _changed_data(step: Planned) -> str:
    """Return the stage's data source if its files are other ones than the key's, or empty."""
    section = step.node.recipe.data
    return "" if fingerprint.of(section) == step.material["data"] else section.source


def _finish(work: _Work) -> RunResult:
    """Bundle, judge, and write run.json and the reports."""
    loaded, options, folder, done, step = work.loaded, work.options, work.folder, work.done, work.package
    started = time.monotonic()
    context = Context(
        recipe=tune.chosen(loaded.recipe, done), name="package", out=folder / "artifacts", inputs=done,
        log=folder / "logs" / "package.log", progress=options.progress,
    )  # fmt: skip
    with guarded(step, context), storage(folder):
        context.out.mkdir()
        bundle = PackageStage().run(context)
        verdicts = gates.judge(loaded.recipe, bundle.models, bundle.profiles)
        missing = gates.missing(loaded.recipe, bundle.models)
        told = (*missing, *work.lost("profile."))  # these have rows and sections of their own
        lost = [r for r in work.records() if r.status == "failed" and r.name.removeprefix("export.") not in told]
        record = StageRecord("package", "ran", step.key, round(time.monotonic() - started, 1))
        result = RunResult(
            schema=SCHEMA,
            edgekd=__version__,
            name=loaded.name,
            run=folder.name,
            created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            command=f"edgekd run {shlex.quote(f'{_typed(folder)}/recipe.lock.yaml')}",
            verdict="fail" if missing or bundle.failures or work.lost("profile.") else gates.verdict(verdicts),
            recipe=loaded.recipe.model_dump(mode="json", exclude_none=True),
            data=bundle.data,
            stages=(*work.records(), record),
            models=bundle.models,
            curves=bundle.curves,
            profiles=bundle.profiles,
            gates=verdicts,
            environment=environment.describe() | {"torch_threads": options.threads, "overrides": list(loaded.overrides)},
            task=base.record(base.task_of(loaded.recipe.task)),
            findings=bundle.findings,
            speeds=bundle.speeds,
            doubts=bundle.doubts,
            snippets=bundle.snippets,
            not_measured=(
                *(lacking(r.name.removeprefix("export."), r.reason) for r in lost),
                *bundle.not_measured,
                *unmeasured.limits(loaded.recipe, bundle.profiles),
                *unmeasured.not_bundled(bundle.models, bundle.data),
            ),
            layers=bundle.layers,
            repair=bundle.repair,
            float_weights=bundle.float_weights,
            tuning=bundle.tuning,
            baseline_tuning=bundle.baseline_tuning,
            copied=bundle.copied,
            pictures=bundle.pictures,
            seeds=bundle.seeds,
            failures=bundle.failures,
            devices=(*bundle.devices, *readiness.failed(work.asked, work.records())),
        )
        locked.write(loaded, folder, (read for entry in work.entries for read in entry.reads))
        with reported(result, folder):  # whatever fails in it, `edgekd report` makes from the result
            (context.out / "MODEL_CARD.md").write_text(card.render(result), encoding="utf-8")
            write_reports(result, folder)
        point_latest(folder)
    return result


def result_of(outcome: Outcome) -> dict[str, object]:
    """Return the result that ``--json`` prints."""
    failures = [{"stage": r.name, "reason": r.reason} for r in outcome.result.stages if r.status == "failed"]
    return {
        "folder": str(outcome.folder),
        "exit_code": int(outcome.exit_code),
        "failures": failures,
        "run": to_json(outcome.result),
    }
