"""Executes a plan: stages in order, each committed in one rename, then the run folder with its report.

Whatever happens, finished stages stay in the cache, so the same command goes on where it stopped.
"""

from __future__ import annotations

import datetime
import importlib
import logging
import os
import re
import shlex
import time
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from edgekd import __version__, cache, data, environment, gates, plan, rundir, samples
from edgekd.background import Background
from edgekd.errors import DeviceError, EdgekdError, ExitCode, StageError
from edgekd.loading import Loaded, lock_text
from edgekd.plan import Planned
from edgekd.progress import Progress, Silent
from edgekd.recipe import Recipe
from edgekd.recipe_quantize import Qat
from edgekd.records_json import to_json
from edgekd.report import card, html, markdown
from edgekd.rundir import RunResult, StageRecord
from edgekd.stages import layers, package, peers, tune
from edgekd.stages.context import Context, processes


@dataclass(frozen=True)
class Options:
    """How a recipe is run: where the run folder goes, where to report, processes to train on, threads.

    ``labels`` says more of a stage, by its key, such as which of all trainings it is.
    """

    out: Path
    progress: Progress
    devices: int = 1
    threads: int = 1
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """A finished run: its folder, what it found, and what the shell should see."""

    folder: Path
    result: RunResult
    exit_code: ExitCode


def run(loaded: Loaded, options: Options) -> Outcome:
    """Run a recipe.

    Raises:
        StageError: A stage failed; all stages before it are kept.
        StorageError: A disk is full or a folder cannot be written.
    """
    steps = plan.make(loaded, processes(options.devices))
    for step in steps:
        if step.status == "blocked":
            raise StageError(f"{step.name} cannot run: {step.reason.partition(chr(10))[0]}", _hint(step.reason))
    folder = run_folder(options.out / loaded.name, steps[-1].key)
    with _storage(folder):
        (folder / "logs").mkdir()
        (folder / "recipe.lock.yaml").write_text(lock_text(loaded), encoding="utf-8")
    _check_views(loaded, steps)
    _check_layers(steps, options, folder)
    done: dict[str, Path] = {}
    records: list[StageRecord] = []
    lost: list[str] = []
    with ExitStack() as stack:
        beside = _beside(steps, options)
        quiet = replace(options, progress=Silent())
        aside = None
        for number, step in enumerate(steps[:-1], start=1):
            if beside and aside is None and not _is_given(step):
                aside = stack.enter_context(Background(_stages, loaded, beside, quiet, folder))
            title = f"[{number}/{len(steps)}] {step.name}"
            if step.key in options.labels:
                title += f", {options.labels[step.key]}"
            if step in beside:
                options.progress.say(f"{title}: {step.reason}; trains beside the others")
                continue
            if step.name == "evaluate" and aside is not None:  # the first to read what was trained aside
                for own, (entry, status) in zip(beside, aside.result(), strict=True):
                    options.progress.say(f"  {own.name}: done in {entry.seconds:.0f} s, beside the others")
                    done[own.name] = entry.path
                    records.append(StageRecord(own.name, status, own.key, round(entry.seconds, 1)))
            try:
                entry, status = _stage(loaded, step, options, done, folder, title)
            except DeviceError as error:  # the other figures are still worth having
                lost.append(f"{step.name}: {error.message}")
                options.progress.say(f"{title}: FAILED, {error.message}")
                records.append(StageRecord(step.name, "failed", step.key, 0.0))
                continue
            done[step.name] = entry.path
            records.append(StageRecord(step.name, status, step.key, round(entry.seconds, 1)))
    order = {step.name: number for number, step in enumerate(steps)}
    records.sort(key=lambda record: order[record.name])
    result = _finish(loaded, steps[-1], options, done, folder, records, lost)
    code = ExitCode.DEVICE_FAILED if lost else ExitCode.OK if gates.passed(result.gates) else ExitCode.GATE_FAILED
    return Outcome(folder, result, code)


def _check_views(loaded: Loaded, steps: Sequence[Planned]) -> None:
    """Fail now if a teacher that is to be made sees other samples than the student; a plan does not open torchvision's."""
    for view in {step.node.recipe.data for step in steps if step.status == "run"}:
        samples.same(loaded.recipe.data, view)


def _check_layers(steps: Sequence[Planned], options: Options, folder: Path) -> None:
    """Fail now if the losses' layers or a peer do not exist, and not when what comes before is trained."""
    trains = ("teacher", "distill", "tune")
    first = next((step.name for step in steps if step.status == "run" and step.node.module in trains), "")
    for step, recipe in lessons(steps):
        if step.name != first:
            log = folder / "logs" / f"{step.name}.log"
            with _guarded(step, Context(recipe, step.name, folder, {}, log, options.progress)):
                layers.find(recipe, options.progress, step.name)


def lessons(steps: Sequence[Planned]) -> Iterator[tuple[Planned, Recipe]]:
    """The stages that are about to distill with losses on layers or with peers, with the recipe of their student."""
    waiting = {step.name: step for step in steps if step.status == "run"}
    for name, recipe in layers.lessons(steps[-1].node.recipe):
        if name in waiting and (layers.compared(recipe) or peers.sections(recipe)):
            yield waiting[name], recipe


def _beside(steps: Sequence[Planned], options: Options) -> list[Planned]:
    """The baseline of each seed, to be trained beside the others, where both have to be and there is a core for each."""
    waiting = [step for step in steps if step.status == "run" and step.node.module == "distill"]
    alone = [step for step in waiting if step.name.partition(".")[0] == "student_alone"]
    return alone if alone and len(alone) < len(waiting) and _two_lanes(options) else []


def _is_given(step: Planned) -> bool:
    """Whether it is a teacher that is not trained here: if its file does not fit, nothing else is trained either."""
    teacher = step.node.recipe.teacher if step.node.module == "teacher" else None
    return teacher is not None and teacher.budget is None


def _stages(
    loaded: Loaded, steps: Sequence[Planned], options: Options, folder: Path
) -> list[tuple[cache.Entry, Literal["ran", "cached"]]]:
    """Stages that read no other, one after the other."""
    return [_stage(loaded, step, options, {}, folder, step.name) for step in steps]


def _two_lanes(options: Options) -> bool:
    """Whether two students may train at a time: on a CPU with two threads to give; a GPU is filled by one."""
    alone = options.devices == 1 and "TORCHELASTIC_RUN_ID" not in os.environ
    return alone and options.threads > 1 and not Path("/dev/nvidiactl").exists()


def _threads(step: Planned, options: Options) -> int:
    """Threads of a stage; the two students get half each, also when only one of them runs: threads change the bits."""
    return options.threads // 2 if step.node.module in ("distill", "tune") and _two_lanes(options) else options.threads


def _stage(
    loaded: Loaded, step: Planned, options: Options, done: dict[str, Path], folder: Path, title: str
) -> tuple[cache.Entry, Literal["ran", "cached"]]:
    if step.entry is not None:
        options.progress.say(f"{title}: cached")
        return step.entry, "cached"
    options.progress.say(f"{title}: {step.reason}")
    with cache.locked(step.key):
        entry, _ = cache.lookup(step.key)
        if entry is not None and step.node.module not in plan.ALWAYS:  # another run has just made it
            return entry, "cached"
        with cache.scratch() as scratch:
            started = time.monotonic()
            context = Context(
                recipe=tune.chosen(step.node.recipe, done, step.name), name=step.name, out=scratch,
                inputs={name: done[name] for name in step.node.inputs},
                log=folder / "logs" / f"{step.name}.log",
                progress=options.progress, devices=options.devices, threads=_threads(step, options),
            )  # fmt: skip
            with _guarded(step, context):
                importlib.import_module(f"edgekd.stages.{step.node.module}").run(context)
            entry = cache.commit(scratch, step.key, step.material, time.monotonic() - started)
    cache.remember(loaded.name, step.name, step.material)
    return entry, "ran"


@contextmanager
def _guarded(step: Planned, context: Context) -> Iterator[None]:
    """Turn whatever a stage raises into an edgekd error with its log; what libraries warn of goes into the log."""
    try:
        with _quiet(context.log):
            yield
    except EdgekdError as error:
        _append(context.log, traceback.format_exc())
        raise error from error.__cause__
    except OSError as error:
        _append(context.log, traceback.format_exc())
        raise cache.storage_error(error, context.out) from error
    except MemoryError as error:
        raise StageError(
            f"{step.name} ran out of memory", "lower distill.batch_size or data.image_size, and run the same command"
        ) from error
    except Exception as error:
        _append(context.log, traceback.format_exc())
        if "os error 28" in str(error) or "No space left" in str(error):
            raise cache.storage_error(OSError(28, "No space left on device"), context.out) from error
        first = str(error).strip().splitlines()[0] if str(error).strip() else ""
        raise StageError(
            f"{step.name} failed: {type(error).__name__}: {first}",
            f"the whole story is in {context.log}; finished stages are kept, the same command goes on from here",
        ) from error


@contextmanager
def _quiet(log: Path) -> Iterator[None]:
    """Send warnings and log records of the libraries into the stage's log."""
    handler = logging.FileHandler(log, delay=True, encoding="utf-8")
    root = logging.getLogger()
    kept = root.handlers[:]
    root.handlers = [handler]
    logging.captureWarnings(True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            logging.captureWarnings(True)
            yield
    finally:
        logging.captureWarnings(False)
        root.handlers = kept
        handler.close()


def _finish(
    loaded: Loaded, step: Planned, options: Options, done: dict[str, Path], folder: Path,
    records: Sequence[StageRecord], lost: Sequence[str],
) -> RunResult:  # fmt: skip
    """Bundle, judge, and write run.json and the reports."""
    started = time.monotonic()
    context = Context(
        recipe=tune.chosen(loaded.recipe, done), name="package", out=folder / "artifacts", inputs=done,
        log=folder / "logs" / "package.log", progress=options.progress,
    )  # fmt: skip
    with _guarded(step, context), _storage(folder):
        context.out.mkdir()
        bundle = package.bundle(context, data.fingerprint(loaded.recipe.data))
        verdicts = gates.judge(loaded.recipe, bundle.models, bundle.profiles)
        record = StageRecord("package", "ran", step.key, round(time.monotonic() - started, 1))
        result = RunResult(
            schema=rundir.SCHEMA,
            edgekd=__version__,
            name=loaded.name,
            run=folder.name,
            created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            command=f"edgekd run {shlex.quote(f'{options.out.name}/{loaded.name}/{folder.name}/recipe.lock.yaml')}",
            verdict="fail" if lost else gates.verdict(verdicts),
            recipe=loaded.recipe.model_dump(mode="json", exclude_none=True),
            data=bundle.data,
            stages=(*records, record),
            models=bundle.models,
            curves=bundle.curves,
            profiles=bundle.profiles,
            gates=verdicts,
            environment=environment.describe() | {"torch_threads": options.threads, "overrides": list(loaded.overrides)},
            findings=bundle.findings,
            snippets=bundle.snippets,
            not_measured=(*lost, *bundle.not_measured, *_limits(loaded)),
            layers=bundle.layers,
            repair=bundle.repair,
            tuning=bundle.tuning,
            copied=bundle.copied,
            pictures=bundle.pictures,
            seeds=bundle.seeds,
        )
        (context.out / "MODEL_CARD.md").write_text(card.render(result), encoding="utf-8")
        write_reports(result, folder)
        rundir.write(result, folder)
        point_latest(folder)
    return result


def write_reports(result: RunResult, folder: Path) -> None:
    """Write report.html and report.md from a result."""
    (folder / "report.html").write_text(html.render(result), encoding="utf-8")
    (folder / "report.md").write_text(markdown.render(result), encoding="utf-8")


def _limits(loaded: Loaded) -> Iterator[str]:
    """What this run cannot say, whatever it found."""
    recipe = loaded.recipe
    if not recipe.profile:
        yield "latency and memory: the recipe has no profile section"
    elif recipe.profile.devices == ("host",):
        yield "any other device: only the host was profiled"
    yield "energy: no power meter is read"
    if (
        recipe.distill
        or (recipe.teacher and any(part.budget for _, part in recipe.teacher.lineage()))
        or isinstance(recipe.quantize, Qat)
    ):
        yield from _one_seed(recipe)
    yield from unlabelled(recipe, recipe.baselines)
    if recipe.data.source == "random":
        yield "the preprocessing that the weights were trained with: the images are random, between mean and std as written"
    if recipe.data.source == "fashion-mnist-mini":
        yield "other data: fashion-mnist-mini has 2,000 test images; one point of top-1 is 20 images"


def unlabelled(recipe: Recipe, baselines: Sequence[str]) -> Iterator[str]:
    """What is not known for want of labels, or of real images; ``baselines``: what was asked for."""
    data = recipe.data
    if data.classes is not None or data.labels == "none":
        instead = "files were only compared with the network in torch"
        if recipe.teacher:
            instead = "top-1 is agreement with the teacher, mistakes of the teacher included"
        yield f"accuracy: no labels were looked at, so {instead}"
    if not data.teaches and recipe.distill and "student_alone" in baselines:
        yield "the student alone: without labels there is nothing but the teacher to learn from"
    if data.source == "synthetic":
        yield "real images: none was seen, in training, calibration or evaluation; all were made from a network"


def _one_seed(recipe: Recipe) -> Iterator[str]:
    """What only one seed was drawn for."""
    if recipe.seeds == 1:
        yield f"spread over seeds: one seed ({recipe.seed})"
        return
    if recipe.teacher and any(part.budget for _, part in recipe.teacher.lineage()):
        yield "spread over teachers: the same teacher taught the students of all seeds"
    if recipe.quantize or recipe.export:
        yield f"spread of the files over seeds: they are made from the first seed's student ({recipe.seed})"


def run_folder(parent: Path, key: str) -> Path:
    """Make the next ``NNNN-key8`` folder."""
    with _storage(parent):
        parent.mkdir(parents=True, exist_ok=True)
        while True:
            taken = [int(m[1]) for path in parent.iterdir() if (m := re.match(r"(\d{4,})-", path.name))]
            folder = parent / f"{max(taken, default=0) + 1:04d}-{key[:8]}"
            try:
                folder.mkdir()
            except FileExistsError:  # another run took the number
                continue
            return folder


def point_latest(folder: Path) -> None:
    """Let ``latest`` beside a run folder point at it."""
    link = folder.parent / f".latest-{os.getpid()}"
    link.symlink_to(folder.name)
    link.replace(folder.parent / "latest")


@contextmanager
def _storage(place: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise cache.storage_error(error, place) from error


def _append(log: Path, text: str) -> None:
    try:
        with log.open("a", encoding="utf-8") as file:
            file.write(text)
    except OSError:
        pass  # the disk that failed may be the log's


def _hint(reason: str) -> str:
    return reason.partition("→")[2].strip()


def result_of(outcome: Outcome) -> dict[str, object]:
    """What ``--json`` prints."""
    return {"folder": str(outcome.folder), "exit_code": int(outcome.exit_code), "run": to_json(outcome.result)}
