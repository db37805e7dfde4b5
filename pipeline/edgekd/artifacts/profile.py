"""``edgekd profile``: any model files on any devices, into a folder with run.json, raw samples and a report."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import os
import shlex
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

from edgekd import __version__, environment
from edgekd.artifacts import against, found, inputs, protocol
from edgekd.artifacts.against import Against
from edgekd.artifacts.found import ModelFile
from edgekd.artifacts.inputs import Given, Prepared
from edgekd.cache import storage
from edgekd.devices import schema, targets
from edgekd.devices.isa import Isa
from edgekd.devices.schema import Device
from edgekd.engine.run_folder import point_latest, run_folder, write_reports
from edgekd.errors import DeviceError, ExitCode, UsageError
from edgekd.evaluation import device_checks
from edgekd.evaluation.device_checks import Expected
from edgekd.profiling import compare, doctor, inspection, transports, verdicts
from edgekd.profiling.participants import SAMPLES
from edgekd.profiling.session import Session, measure
from edgekd.progress import Progress, Silent
from edgekd.recipe.profile import Profile
from edgekd.report.findings import sentence as written
from edgekd.report.missing import sentence as lack
from edgekd.results.findings import Finding, Missing, missing
from edgekd.results.profile import Comparison, DeviceRecord, ProfileRecord
from edgekd.results.run import DataRecord, RunResult, reported
from edgekd.results.speed import Int8Speed
from edgekd.results.upgrade import SCHEMA

NAME = "profile"
"""Folder of these results beside those of recipes."""
INTERRUPTED = "interrupted"
"""Why a device has no figures that was still measuring."""
T = TypeVar("T")


@dataclass(frozen=True)
class Settings:
    """Settings of ``edgekd profile``.

    Attributes:
        devices: Names of devices, or paths of their files.
        threads: Threads of a runtime; None as the device's file says, else 1.
        cores: Cores to pin to; empty as the device's file says.
        given: Inputs and shapes.
        out: The result's folder goes into ``profile/`` there.
        against: Folder of an earlier result to compare with.
        protocol: Warm-up and blocks.
        progress: Where to report.
        interrupted: Returns whether an interruption (Ctrl-C) was requested.
        debug: Print the traceback of a device that failed.
    """

    devices: tuple[str, ...] = ("host",)
    threads: int | None = None
    cores: tuple[int, ...] = ()
    given: Given = field(default_factory=Given)
    out: Path = Path("reports")
    against: Path | None = None
    protocol: Profile = field(default_factory=Profile)
    progress: Progress = field(default_factory=Silent)
    interrupted: Callable[[], bool] = bool  # never
    debug: bool = False


@dataclass(frozen=True)
class Profiled:
    """Result of ``edgekd profile``: the folder, the figures, reasons for missing ones, and the exit code."""

    folder: Path
    result: RunResult
    failures: tuple[str, ...]
    interrupted: bool = False

    @property
    def exit_code(self) -> ExitCode:
        """130 after an interruption, 4 where a device or a file on it failed."""
        if self.interrupted:
            return ExitCode.INTERRUPTED
        return ExitCode.DEVICE_FAILED if self.failures else ExitCode.OK


@dataclass(frozen=True)
class Measured:
    """Result of one device; ``session`` is None where it failed, with the reason."""

    device: Device
    session: Session | None
    reason: str = ""
    interrupted: bool = False


def profile(artifacts: Sequence[Path], settings: Settings) -> Profiled:
    """Measure model files on devices: all files of a device in one session, all devices at the same time.

    After an interruption, whenever it comes, the result has the devices that were finished.

    Raises:
        KeyboardInterrupt: It was interrupted before a device was finished.
        UsageError: A path is no model file, no device is named, one does not exist, or its file is wrong.
        StorageError: The folder cannot be written.
    """
    if not artifacts:
        raise UsageError("no model file is given", "edgekd profile MODEL.onnx")
    if not settings.devices:
        raise UsageError("no device is named", "name host, which is this machine, or one that `edgekd devices` lists")
    devices = _devices(settings)
    files = found.files(artifacts)
    with TemporaryDirectory(prefix="edgekd-") as scratch:
        prepared = inputs.prepare(files, settings.given, Path(scratch))
        before = against.find(settings.against, files, prepared.variants) if settings.against else None
        folder = run_folder(settings.out / NAME, _key(files, devices))
        with storage(folder):
            return _profiled(artifacts, files, prepared, settings, devices, folder, before)


def _profiled(
    artifacts: Sequence[Path],
    files: Sequence[ModelFile],
    prepared: Prepared,
    settings: Settings,
    devices: Sequence[Device],
    folder: Path,
    before: Against | None,
) -> Profiled:
    """Measure into a folder."""
    if before and before.again:  # in turns with the earlier files
        settings = replace(settings, protocol=compare.protocol(settings.protocol))
        prepared = replace(prepared, variants=(*prepared.variants, *before.again.values()))
    measured = _sessions(prepared, settings, devices, folder / SAMPLES)
    looked: _Checked | None = None
    with contextlib.suppress(KeyboardInterrupt):
        if not any(one.interrupted for one in measured):
            here = _here(prepared, measured, settings)
            looked = _checked(files, prepared, measured, _expected(prepared, here), settings)
            looked = replace(looked, notes=(*looked.notes, *_not_here(prepared, measured, here)))

    def write() -> Profiled:
        checked = looked or _not_compared(_checked(files, prepared, measured, _expected(prepared, {}), settings), measured)
        if before:
            found = tuple(against.comparisons(before, checked.profiles, folder / SAMPLES, checked.devices))
            kept = tuple(record for record in checked.profiles if not before.is_again(record.model))
            checked = replace(checked, profiles=kept, comparisons=found)
        return _write(_result(artifacts, files, prepared, measured, settings, folder, checked), folder, measured)

    done, interrupted = _to_its_end(write)
    return replace(done, interrupted=done.interrupted or interrupted or looked is None)


def _to_its_end(work: Callable[[], T], stop: Callable[[], None] = lambda: None) -> tuple[T, bool]:
    """Do work in a thread, which no interruption reaches, and return its result and whether there was one.

    Each interruption calls ``stop``, which makes the work end early; the next may come in the middle of that.
    """
    interrupted = False
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(work)
        while not future.done():
            try:
                if interrupted:
                    stop()
                wait([future])
            except KeyboardInterrupt:
                interrupted = True
    return future.result(), interrupted


def finished(
    artifacts: Sequence[Path],
    files: Sequence[ModelFile],
    prepared: Prepared,
    measured: Sequence[Measured],
    settings: Settings,
    raw: Sequence[str],
    host: Mapping[str, tuple[inspection.Given | None, tuple[float | None, ...]]],
) -> Profiled:
    """Make the result of a measurement that is over, of a device that cannot be asked any more.

    Args:
        artifacts: What was measured, as it is typed.
        files: The files.
        prepared: Inputs and what is known of them.
        measured: The session.
        settings: Where the result goes.
        raw: Its raw samples, as lines.
        host: By the name of an artifact, its outputs on the host and one step of each.
    """
    expected = {
        name: Expected(host[name][0], known.torch, known.labels, known.host_classes, host[name][1], known.classes)
        for name, known in prepared.known.items()
    }
    checked = _checked(files, prepared, measured, expected, settings, reached=False)
    folder = run_folder(settings.out / NAME, _key(files, [one.device for one in measured]))
    with storage(folder):
        (folder / SAMPLES).mkdir()
        for one in measured:
            (folder / SAMPLES / f"{one.device.name}.jsonl").write_text("\n".join(raw) + "\n", encoding="utf-8")
        return _write(_result(artifacts, files, prepared, measured, settings, folder, checked), folder, measured)


def _write(result: RunResult, folder: Path, measured: Sequence[Measured]) -> Profiled:
    with reported(result, folder):
        write_reports(result, folder)
    point_latest(folder)
    return Profiled(folder, result, tuple(map(lack, _lost(measured))), any(one.interrupted for one in measured))


def _devices(settings: Settings) -> list[Device]:
    """The devices with what was asked for on the command line."""
    asked: dict[str, object] = {}
    if settings.threads:
        asked["threads"] = settings.threads
    if settings.cores:
        asked["cores"] = settings.cores
    loaded: dict[str, Device] = {}
    for typed in settings.devices:
        device = schema.load(typed, Path.cwd())
        if loaded.setdefault(device.name, device) != device:
            raise UsageError(f"two devices are called {device.name}; the second is {typed}", "give each a name: of its own")
    devices = [device.model_copy(update=asked) for device in loaded.values()]
    here = os.sched_getaffinity(0)
    for device in devices:
        if device.transport == "host" and not here.issuperset(device.cores):
            cores, known = (", ".join(map(str, sorted(part))) for part in (device.cores, here))
            raise UsageError(f"cores {cores} of {device.name}: this machine has no such cores", f"it has {known}")
    return devices


def _sessions(prepared: Prepared, settings: Settings, devices: Sequence[Device], folder: Path) -> list[Measured]:
    """One session a device, all at the same time but those of one board, which are in turn."""
    asked = settings.protocol.model_copy(update={"threads": settings.threads or settings.protocol.threads})
    ways = {device.name: transports.to(device) for device in devices}
    stopped = threading.Event()

    def stop() -> None:
        stopped.set()
        for way in ways.values():
            way.local.stop()

    def interrupted() -> bool:
        return stopped.is_set() or settings.interrupted()

    def on(device: Device) -> Measured:
        if interrupted():
            return Measured(device, None, INTERRUPTED, interrupted=True)
        with settings.progress.task(f"profile on {device.name}", 100) as task:
            done = 0

            def report(what: str, steps: int, total: int) -> None:
                nonlocal done
                if interrupted():
                    raise KeyboardInterrupt
                share = 100 * steps // max(1, total)
                task.advance(share - done, what)
                done = share

            way = ways[device.name]
            try:

                def say(fact: Finding) -> None:
                    settings.progress.say(f"  {written(fact)}")

                session = measure(prepared.variants, asked, device, folder, report, way, prepared.wants, say)
                with contextlib.suppress(KeyboardInterrupt):  # it is finished
                    report(f"{len(session.profiles)} of {len(prepared.variants)} files measured", 1, 1)
                return Measured(device, session)
            except DeviceError as error:
                if interrupted():  # what was asked was ended
                    return Measured(device, None, INTERRUPTED, interrupted=True)
                if settings.debug:
                    settings.progress.say(traceback.format_exc())
                return Measured(device, None, str(error))
            except KeyboardInterrupt:
                return Measured(device, None, INTERRUPTED, interrupted=True)
            except BaseException:  # nothing can be written: the others stop, too
                stop()
                raise

    boards: dict[object, list[Device]] = {}
    for device in devices:
        boards.setdefault(targets.board(device), []).append(device)

    def everywhere() -> dict[str, Measured]:
        with ThreadPoolExecutor(len(boards)) as pool:
            found = pool.map(lambda own: [on(device) for device in own], boards.values())
            return {one.device.name: one for several in found for one in several}

    found, _ = _to_its_end(everywhere, stop)
    measured = [found[device.name] for device in devices]
    if any(one.interrupted for one in measured) and not any(one.session for one in measured):
        raise KeyboardInterrupt
    return measured


def _result(
    artifacts: Sequence[Path],
    files: Sequence[ModelFile],
    prepared: Prepared,
    measured: Sequence[Measured],
    settings: Settings,
    folder: Path,
    checked: _Checked,
) -> RunResult:
    """Put everything into one result."""
    bundle = next((file.bundle for file in files if file.bundle and file.bundle.samples), None)
    size = next((spec.shape[-2] for file in files for spec in file.record.inputs if spec.layout == "NCHW"), 0)
    rule = bundle.preprocessing if bundle else None
    data = DataRecord(
        source="the bundle's samples" if bundle else "the inputs given" if settings.given.inputs else "random values",
        fingerprint="", classes=bundle.classes if bundle else (), train=0, val=0, test=0, image_size=size,
        channels=rule.channels if rule else 0,
        mean=rule.mean if rule else (), std=rule.std if rule else (),
        inputs=None if rule else {spec.name: spec.shape[1:] for file in files for spec in file.record.inputs},
    )  # fmt: skip
    typed = " ".join(shlex.quote(str(path)) for path in artifacts)
    asked = "".join(f" --device {shlex.quote(name)}" for name in settings.devices)
    asked += "".join(f" --set {text}" for text in protocol.typed(settings.protocol))
    used = settings.protocol.model_dump(mode="json") | {"devices": [one.device.name for one in measured]}
    return RunResult(
        schema=SCHEMA,
        edgekd=__version__,
        name=files[0].record.name if len(files) == 1 else NAME,
        run=folder.name,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        command=f"edgekd profile {typed}{asked}",
        verdict="not_applicable",
        recipe={"profile": used},
        data=data,
        stages=(),
        models=tuple(file.record for file in files),
        curves=(),
        profiles=checked.profiles,
        gates=(),
        environment=environment.describe(),
        task=prepared.task,
        findings=(*(note for file in files for note in file.notes), *checked.findings),
        speeds=checked.speeds,
        not_measured=(*_lost(measured), *prepared.notes, *checked.notes),
        devices=checked.devices,
        failures=tuple(failure for one in measured if one.session for failure in one.session.failures),
        comparisons=checked.comparisons,
        kind="profile",
    )


@dataclass(frozen=True)
class _Checked:
    """Records, findings, the speed of int8, what is not known, and the devices."""

    profiles: tuple[ProfileRecord, ...]
    findings: tuple[Finding, ...]
    speeds: tuple[Int8Speed, ...]
    notes: tuple[Missing, ...]
    devices: tuple[DeviceRecord, ...]
    comparisons: tuple[Comparison, ...] = ()


def _here(prepared: Prepared, measured: Sequence[Measured], settings: Settings) -> dict[str, inspection.Given]:
    """What this machine gives for the same inputs, where others were measured."""
    elsewhere = any(one.session is not None and one.device.transport != "host" for one in measured)
    if not elsewhere or not prepared.wants.outputs:
        return {}
    return device_checks.on_host(prepared.variants, settings.threads or settings.protocol.threads, settings.progress)


def _not_here(prepared: Prepared, measured: Sequence[Measured], here: Mapping[str, inspection.Given]) -> Iterator[Missing]:
    """Yield which outputs of other devices have none of this machine to be compared with."""
    for one in measured:
        if one.session is None or one.device.transport == "host" or not prepared.wants.outputs:
            continue
        for name in prepared.known:
            if name not in here:
                yield Missing(Finding("not_here"), "outputs", name, one.device.name)


def _expected(prepared: Prepared, here: Mapping[str, inspection.Given]) -> dict[str, Expected]:
    """What this machine and torch give for the same inputs."""
    return {
        name: Expected(here.get(name), known.torch, known.labels, known.host_classes, classes=known.classes)
        for name, known in prepared.known.items()
    }


def _not_compared(checked: _Checked, measured: Sequence[Measured]) -> _Checked:
    """Add the outputs that were not compared for an interruption."""
    names = [one.device.name for one in measured if one.session and one.device.transport != "host"]
    told = (Missing(Finding("not_here", figures={"why": INTERRUPTED}), "outputs", "", name) for name in names)
    return replace(checked, notes=(*checked.notes, *told))


def _checked(
    files: Sequence[ModelFile],
    prepared: Prepared,
    measured: Sequence[Measured],
    expected: Mapping[str, Expected],
    settings: Settings,
    *,
    reached: bool = True,
) -> _Checked:
    """Compare the outputs of every device with what is expected."""
    threads = settings.threads or settings.protocol.threads
    profiles: list[ProfileRecord] = []
    findings: list[Finding] = []
    speeds: list[Int8Speed] = []
    notes: list[Missing] = []
    records: list[DeviceRecord] = []
    for one in measured:
        if one.session is None:
            records.append(doctor.silent(one.device, DeviceError(one.reason)))
            continue
        checked = device_checks.check(one.session, prepared.variants, one.device, expected, threads, reached=reached)
        profiles += checked.profiles
        models = [file.record for file in files]
        cpu = one.device.cpu() if reached else Isa(one.session.device.arch, frozenset(one.session.device.isa))
        findings += [*checked.findings, *verdicts.settings(checked.profiles, models, one.device.name)]
        speeds += verdicts.speeds(checked.profiles, models, cpu, one.device.name)
        notes += [*one.session.notes, *checked.notes]
        records.append(one.session.device)
    return _Checked(tuple(profiles), tuple(findings), tuple(speeds), tuple(notes), tuple(records))


def _lost(measured: Sequence[Measured]) -> Iterator[Missing]:
    """Yield the devices that gave nothing, and the files that failed on others."""
    for one in measured:
        if one.session is None:
            yield missing("", one.reason, "", one.device.name)
        else:
            yield from (missing("", failure.reason, failure.model, failure.device) for failure in one.session.failures)


def _key(files: Sequence[ModelFile], devices: Sequence[Device]) -> str:
    """What tells these results from others in their folder's name."""
    text = "\n".join([*(f"{file.record.sha256}" for file in files), *(device.model_dump_json() for device in devices)])
    return hashlib.sha256(text.encode()).hexdigest()
