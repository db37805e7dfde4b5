"""``edgekd profile --pack``: a folder or a zip that measures on a board without a network, and its result as a report."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import math
import re
import shutil
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd import __version__
from edgekd.artifacts import board, found, inputs
from edgekd.artifacts.inputs import Prepared
from edgekd.artifacts.profile import Measured, Profiled, Settings, finished
from edgekd.cache import storage
from edgekd.data.preprocessing import Preprocessing
from edgekd.devices import schema
from edgekd.devices.schema import Device
from edgekd.errors import DeviceError, EdgekdError, UsageError
from edgekd.evaluation import device_checks
from edgekd.profiling import doctor, inspection, measured
from edgekd.profiling.agents.python import packed
from edgekd.profiling.inspection import Inspection, Wants
from edgekd.profiling.measured import Run, Setting
from edgekd.profiling.participants import REFERENCE, SAMPLES
from edgekd.profiling.session import Session
from edgekd.profiling.variant import Variant
from edgekd.reads import file_sha256
from edgekd.recipe.profile import Profile
from edgekd.results.codec import from_json, to_json
from edgekd.results.findings import Finding, Missing, missing
from edgekd.results.models import ModelRecord, TaskFacts
from edgekd.results.profile import Failure
from edgekd.results.run import damage
from edgekd.runtimes import base

KEY = "edgekd_pack"
"""Key that a result of a pack has in its file."""
_README = """\
Made by edgekd profile --pack: it measures the model files in this folder on a board without a network.
On the board, in this folder:  python3 profile.py
  --name NAME: what the report calls the board.  --emulated: it is emulated, so its times are stamped.
It needs Python 3.8 or later, numpy, and the runtime of each file: onnxruntime, ai-edge-litert (or tflite-runtime), openvino.
It prints the figures and writes edgekd-result.json into the folder where it is started.
Copy that file to a machine with edgekd, and make the report there:  edgekd report edgekd-result.json
"""


def pack(artifacts: Sequence[Path], settings: Settings, target: Path) -> Path:
    """Write everything that a board needs to measure model files: the agent, files, inputs, expected outputs.

    Args:
        artifacts: As for ``profile``.
        settings: Threads, cores, inputs and protocol.
        target: A new folder, or a file that ends in .zip.

    Raises:
        UsageError: A path is no model file, or the target is there already or cannot be written.
        StorageError: The disk is full.
    """
    files = found.files(artifacts)
    with _beside(target) as scratch, storage(target):
        folder = scratch / "pack" / (target.stem if target.suffix == ".zip" else target.name)
        given = scratch / "given"
        given.mkdir()
        (folder / "inputs").mkdir(parents=True)
        (folder / "agent.pyz").write_bytes(packed())
        plan = _write(folder, files, inputs.prepare(files, settings.given, given), settings)
        (folder / "plan.json").write_text(json.dumps(plan, ensure_ascii=False) + "\n", encoding="utf-8")
        (folder / "plan.sha256").write_text(f"{file_sha256(folder / 'plan.json')}  plan.json\n", encoding="utf-8")
        (folder / "README.txt").write_text(_README, encoding="utf-8")
        shutil.copyfile(board.__file__, folder / "profile.py")
        whole = folder
        if target.suffix == ".zip":
            whole = scratch / "whole.zip"
            with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as archive:
                for path in sorted(folder.rglob("*")):
                    archive.write(path, path.relative_to(folder.parent))
        whole.rename(target)
    return target


@contextlib.contextmanager
def _beside(target: Path) -> Iterator[Path]:
    """A new folder beside the target, on its disk, so that the finished pack is only renamed.

    Raises:
        UsageError: The target is there already, or nothing can be written beside it.
    """
    try:
        if target.exists() or target.is_symlink():
            raise UsageError(f"{target} is there already", "name another folder or file, or remove it")
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = TemporaryDirectory(prefix=".edgekd-", dir=target.parent)
    except OSError as error:
        raise UsageError(f"--pack {target} cannot be written: {error.strerror}", "name another place") from error
    with scratch as folder:
        yield Path(folder)


def _write(folder: Path, files: Sequence[found.ModelFile], prepared: Prepared, settings: Settings) -> dict[str, Any]:
    """Copy files and inputs into a folder; returns the plan, with the hash of everything that is in the folder by then."""
    brought: dict[Path, str] = {}

    def bring(path: Path) -> str:
        if path not in brought:
            brought[path] = f"inputs/{len(brought)}{path.suffix}"
            shutil.copyfile(path, folder / brought[path])
        return brought[path]

    threads = settings.threads or settings.protocol.threads
    here = device_checks.on_host(prepared.variants, threads, settings.progress)
    rows = []
    for number, (file, variant) in enumerate(zip(files, prepared.variants, strict=True)):
        parts = {f"model{number}{part.suffix}": part for part in base.files(file.path)}
        for name, part in parts.items():
            shutil.copyfile(part, folder / name)
        if tuple(file_sha256(folder / name) for name in parts) != file.record.content:
            raise UsageError(f"{file.path} has changed meanwhile", "pack again when it is written to the end")
        known, host = prepared.known[variant.model], here.get(variant.model)
        expected = None if host is None else _text({f"{at}": value for at, value in enumerate(host.arrays.values())})
        too_large = host is not None and expected is None  # so it is on the board, and nothing of it is compared
        compared = bool(known.torch) and not too_large
        rows.append(
            {
                "record": to_json(file.record),
                "notes": to_json(file.notes),
                "format": file.format,
                "path": next(iter(parts)),
                "parts": list(parts),
                "inputs": {key: bring(path) for key, path in variant.inputs.items()},
                "shapes": {key: list(shape) for key, shape in variant.shapes.items()},
                "layout": variant.layout,
                "digest": measured.digest(variant.inputs),
                "steps": list(device_checks.steps(variant)),
                "host": expected,
                "names": [] if host is None else list(host.arrays),
                "varying": [] if host is None else list(host.varying),
                "torch": _text({f"{at}": value for at, value in enumerate(known.torch.values())}) if compared else None,
                "torch_names": list(known.torch),
                "labels": None if known.labels is None else known.labels.tolist(),
                "host_classes": None if known.host_classes is None else known.host_classes.tolist(),
                "classes": known.classes,
            }
        )
    wants = prepared.wants
    rule = wants.preprocessing
    plan = {
        "schema": board.SCHEMA,
        "edgekd": __version__,
        "protocol": settings.protocol.model_dump(mode="json"),
        "threads": threads,
        "cores": list(settings.cores),
        "files": rows,
        "preprocessing": None if rule is None else {"mean": rule.mean, "std": rule.std, "channels": rule.channels},
        "encoded": [bring(path) for path in wants.encoded],
        "images": bring(wants.images) if wants.images else None,
        "counted": len(np.load(wants.images, mmap_mode="r")) if wants.images else 0,
        "notes": to_json(prepared.notes),
        "task": to_json(prepared.task),
    }
    packed_ = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {**plan, "sha256": {path.relative_to(folder).as_posix(): file_sha256(path) for path in packed_}}


def is_result(path: Path) -> bool:
    """Return whether a file is what a pack has written on a board, however it is formatted; a damaged one is, too."""
    if not path.is_file():
        return False
    content = path.read_bytes()
    try:
        value = json.loads(content)
        return isinstance(value, dict) and KEY in value
    except (ValueError, RecursionError):
        return content.lstrip().startswith(b"{") and f'"{KEY}"'.encode() in content


def report(path: Path, out: Path) -> Profiled:
    """Turn the result of a pack into a result of ``edgekd profile``, with its report.

    Args:
        path: What ``profile.py`` wrote on the board.
        out: Where the result's folder goes into ``profile/``.

    Raises:
        UsageError: The file is damaged, or of another version.
    """
    try:
        value = json.loads(path.read_bytes())
        if value[KEY] != board.SCHEMA or value["plan"]["schema"] != board.SCHEMA:
            raise UsageError(f"{path} is of another version of edgekd", "pack again with this one")
        plan, answers = value["plan"], value["answers"]
        files = tuple(_file(row) for row in plan["files"])
        for file in files:
            name = file.record.name
            if name in answers["models"] and tuple(answers["sha256"][name]) != file.record.content:
                raise UsageError(f"{path}: what was measured as {name} is not the file that was packed", "measure again")
        device = _device(plan, answers)
        session, raw = _session(plan, answers, device)
        wants = Wants(preprocessing=_rule(plan["preprocessing"]) if plan["preprocessing"] else None)
        known = {row["record"]["name"]: _known(row) for row in plan["files"]}
        variants = tuple(_variant(row) for row in plan["files"])
        notes = tuple(from_json(Missing, note) for note in plan["notes"])
        prepared = Prepared(variants, wants, known, notes, from_json(TaskFacts, plan["task"]))
        expected = {row["record"]["name"]: (_host(row), tuple(row["steps"])) for row in plan["files"]}
        used = Profile.model_validate(plan["protocol"])
        settings = Settings(out=out, devices=(device.name,), threads=plan["threads"], protocol=used)
        return finished([path], files, prepared, [Measured(device, session)], settings, raw, expected)
    except EdgekdError:
        raise
    except Exception as error:  # whatever a damaged file brings about
        raise UsageError(f"{path} cannot be read: {damage(error)}", "copy it again from the board") from error


def _file(row: Mapping[str, Any]) -> found.ModelFile:
    record = from_json(ModelRecord, row["record"])
    return found.ModelFile(Path(row["path"]), record, notes=tuple(from_json(Finding, note) for note in row["notes"]))


def _device(plan: Mapping[str, Any], answers: Mapping[str, Any]) -> Device:
    told = answers["board"]
    called = str(told["name"] or answers["facts"].get("model") or "")
    name = re.sub(r"[^A-Za-z0-9_]+", "-", called).strip("-")
    if name in ("", schema.HOST):
        name = "board"
    return Device(
        edgekd=1, name=name, transport="host", description="measured without a network, from a pack",
        emulated=told["emulated"], threads=plan["threads"], cores=tuple(plan["cores"]),
    )  # fmt: skip


def _session(plan: Mapping[str, Any], answers: Mapping[str, Any], device: Device) -> tuple[Session, list[str]]:
    """The session that the board has run, and its raw samples as lines."""
    rows = {row["record"]["name"]: row for row in plan["files"]}
    runs = [_run(_variant(rows[name]), found) for name, found in answers["models"].items()]
    reference = _run(Variant(REFERENCE, "onnx", Path()), answers["reference"]) if answers["reference"] else None
    everyone = [*runs, *([reference] if reference else [])]
    now = measured.conditions(answers["before"], answers["after"], everyone, device.emulated)
    setting = Setting(device, plan["threads"], now, f"{SAMPLES}/{device.name}.jsonl", reference)
    found = {name: _look(one["looks"], name, device.name) for name, one in answers["models"].items()}
    profiles = []
    for run in runs:
        record = measured.record(run, setting)
        fed = rows[record.model]["digest"]
        images = run.start["feeds"] if rows[record.model]["inputs"] else 0
        profiles.append(found[record.model].into(replace(record, inputs=fed, images=images)))
    python = answers["python"]
    facts = answers["facts"]
    records = [(python, {**row, "facts": facts}) for row in answers["runtimes"]]
    described = doctor.described(device, facts, records, tuple(dict.fromkeys(row["format"] for row in plan["files"])))
    failures = tuple(Failure(model, device.name, reason) for model, reason in answers["failures"].items())
    notes = [*measured.notes(runs, device), *(note for look in found.values() for note in look.notes)]
    lines = [
        json.dumps({"model": run.variant.model, "attempt": 1, "round": turn, "samples_ms": block["samples"]})
        for run in everyone
        for turn, block in enumerate(run.blocks)
    ]
    return Session(tuple(profiles), described, failures, tuple(notes), found), lines


class _Ended:
    """The agent of a measurement that is over."""

    label = "pack"

    def ask(self, command: str, timeout: float, **arguments: Any) -> Mapping[str, Any]:
        """There is nobody to ask."""
        raise DeviceError("the measurement of a pack is over")

    def close(self, *, grace: float = 0.0) -> None:
        """It is closed."""


def _run(variant: Variant, answers: Mapping[str, Any]) -> Run:
    rounds = [(before, after) for before, after in answers["rounds"]]
    begun, end = answers["start"], answers["end"]
    figures = [*(begun.get(key) for key in ("first_ms", "cold_ms", "warm_ms")), answers["warmup"]["ms"], end.get("peak_mib")]
    for figure in (*figures, *(ms for block in answers["blocks"] for ms in block["samples"])):
        if figure is not None and not 0 <= figure < math.inf:
            raise ValueError(f"{variant.model}: {figure} is no time and no size")
    return Run(variant, _Ended(), answers["start"], answers["warmup"], list(answers["blocks"]), rounds, [], answers["end"])


def _variant(row: Mapping[str, Any]) -> Variant:
    return Variant(row["record"]["name"], row["format"], Path(row["path"]), layout=row["layout"])


def _look(answers: Mapping[str, Any], model: str, device: str) -> Inspection:
    notes: list[Missing] = []
    if "failed" in answers:
        notes.append(missing("outputs, the whole path, single operations", answers["failed"], model, device))
    outputs = None
    if told := answers.get("outputs"):
        if told["content"] is None:
            notes.append(Missing(Finding("too_large"), "outputs", model, device))
        else:
            stored = _arrays(told["content"])
            arrays = {name: stored[key] for name, key in zip(told["names"], told["arrays"], strict=True)}
            outputs = inspection.Given(arrays, dict(zip(told["names"], told["kinds"], strict=True)))
            notes += [inspection.not_compared(name, model, device) for name in told.get("others", ())]
    costs = inspection.operations_of(answers["operations"]) if "operations" in answers else None
    if isinstance(costs, str):
        notes.append(missing("single operations", costs, model, device))
        costs = None
    path = inspection.path_of(answers["whole"]) if "whole" in answers else ()
    if isinstance(path, str):
        notes.append(missing("the whole path", path, model, device))
        path = ()
    classes = tuple(answers["answers"]["classes"]) if "answers" in answers else None
    return Inspection(outputs, costs, path, classes, tuple(notes))


def _known(row: Mapping[str, Any]) -> inputs.Known:
    stored = _arrays(row["torch"]) if row["torch"] else {}
    names = row.get("torch_names")  # older packs have one output, whose name is not told
    torch = dict(zip([""] if names is None else names, stored.values(), strict=True)) if stored else {}
    labels, found = (None if row[key] is None else np.array(row[key]) for key in ("labels", "host_classes"))
    return inputs.Known(torch, labels, found, classes=row.get("classes", True))


def _host(row: Mapping[str, Any]) -> inspection.Given | None:
    if row["host"] is None:
        return None
    stored = _arrays(row["host"])
    return inspection.Given(
        {name: stored[str(at)] for at, name in enumerate(row["names"])}, {}, (), tuple(row.get("varying", ()))
    )


def _rule(value: Mapping[str, Any]) -> Preprocessing:
    return Preprocessing(tuple(value["mean"]), tuple(value["std"]), int(value["channels"]))


def _text(arrays: Mapping[str, NDArray[Any]]) -> str | None:
    """Arrays as text; None where a board would not bring as much."""
    if sum(array.nbytes for array in arrays.values()) > board.MOST_BYTES:
        return None
    data = io.BytesIO()
    np.savez(data, allow_pickle=False, **arrays)
    return base64.b64encode(data.getvalue()).decode()


def _arrays(text: str) -> dict[str, NDArray[Any]]:
    with np.load(io.BytesIO(base64.b64decode(text)), allow_pickle=False) as stored:
        return {name: stored[name] for name in stored}
