"""``edgekd profile --against``: which earlier measurement each file is compared with, and in which way."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from edgekd.artifacts import found
from edgekd.artifacts.found import ModelFile
from edgekd.errors import UsageError, cause_of
from edgekd.profiling import compare
from edgekd.profiling.participants import REFERENCE, SAMPLES
from edgekd.profiling.variant import Variant
from edgekd.results import codec
from edgekd.results.findings import Finding
from edgekd.results.models import ModelRecord
from edgekd.results.profile import Comparison, DeviceRecord, ProfileRecord
from edgekd.results.run import RunResult, read_run
from edgekd.runtimes import base

MEMORY = 0.1
"""A machine may tell another size of its memory by this much: the kernel and the firmware keep a part."""


@dataclass(frozen=True)
class Against:
    """An earlier result to compare with.

    Attributes:
        folder: Its folder.
        result: What it found.
        pairs: By the name of a file, the name that it has there.
        again: By the name of a file, the earlier file, which is measured again in turns with it: it is another one and still
            there.
        gone: By the name of a file, the earlier file that is another one and cannot be measured again.
        refusals: By earlier name and device, why the figures of then cannot be compared with.
    """

    folder: Path
    result: RunResult
    pairs: dict[str, str]
    again: dict[str, Variant] = field(default_factory=dict)
    refusals: dict[tuple[str, str], Finding] = field(default_factory=dict)
    gone: dict[str, str] = field(default_factory=dict)

    def is_again(self, model: str) -> bool:
        """Return whether a record is that of an earlier file that was measured again."""
        return any(variant.model == model for variant in self.again.values())


def find(folder: Path, files: Sequence[ModelFile], variants: Sequence[Variant]) -> Against:
    """Find the earlier measurement of each file: of the same name, or the only one where there is one file in both.

    Args:
        folder: Of a run or of a result of ``edgekd profile``.
        files: The files that are measured now.
        variants: The same, with their inputs.

    Raises:
        UsageError: The folder is no result, or has none of the files.
    """
    before = read_run(folder)
    folder = folder if folder.is_dir() else folder.parent
    there = list(dict.fromkeys(record.model for record in before.profiles))
    pairs = {file.record.name: file.record.name for file in files if file.record.name in there}
    if not pairs and len(files) == len(there) == 1:
        pairs = {files[0].record.name: there[0]}
    if not pairs:
        names = ", ".join(there) or "no file"
        raise UsageError(f"{folder} has no figures of these files; it has {names}", "name files that it has measured")
    again, gone = {}, {}
    for file, variant in zip(files, variants, strict=True):
        model = before.model(pairs[file.record.name]) if file.record.name in pairs else None
        path = _still_there(folder, model)
        if model is None or model.content == file.record.content:
            continue
        if path is None and model.content:
            gone[file.record.name] = Path(model.path or model.name).name
        elif path is not None:
            again[file.record.name] = replace(
                variant,
                model=f"{model.name} of {before.run}",
                path=path,
                runtime=base.suffixes()[path.suffix.lower()],
            )
    earlier = [record for record in before.profiles if record.model in pairs.values()]
    reasons = {(record.model, record.device): _unreadable(folder, record) for record in earlier}
    known = {key: reason for key, reason in reasons.items() if reason is not None}
    return Against(folder, before, pairs, again, known, gone)


def _still_there(folder: Path, model: ModelRecord | None) -> Path | None:
    """The earlier file, unchanged; None where it is not there."""
    if model is None or model.path is None or not model.content:
        return None
    path = Path(model.place) if model.place else folder / model.path
    there = all(part.is_file() for part in base.files(path))
    return path if there and found.content(path) == model.content else None


def _raw(folder: Path, record: ProfileRecord) -> Path:
    return folder / SAMPLES / Path(record.samples or f"{record.device}.jsonl").name


def _unreadable(folder: Path, record: ProfileRecord) -> Finding | None:
    """Why the raw samples of an earlier measurement cannot be read; None where they can."""
    raw = _raw(folder, record)
    if not raw.is_file():
        return Finding("no_samples")
    try:
        for name in (record.model, *([REFERENCE] if record.reference else [])):
            values = compare.paces(raw, name)
            if not values or not all(0 < value < math.inf for value in values):
                raise ValueError(f"no times of {name}")
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        return Finding("damaged_samples", figures={"file": raw.name, "why": cause_of(error)})
    return None


def comparisons(
    against: Against, profiles: Sequence[ProfileRecord], samples: Path, devices: Sequence[DeviceRecord]
) -> Iterator[Comparison]:
    """Compare each measurement with the earlier one.

    Args:
        against: The earlier result.
        profiles: The records of now, with those of earlier files that were measured again.
        samples: Folder of the raw samples of now.
        devices: The devices of now.
    """
    for now in profiles:
        if now.model not in against.pairs:
            continue
        if now.model in against.again:
            name = against.again[now.model].model
            beside = next((one for one in profiles if (one.model, one.device) == (name, now.device)), None)
            if beside is not None:
                result = compare.in_one_session(now, beside, samples / f"{now.device}.jsonl")
                # In turns, what disturbs one disturbs the other: tests/protocol/ was right where no session was trusted.
                yield replace(result, reasons=(*result.reasons, *_doubts(now, beside)))
                continue
        yield _then(against, now, samples, devices)


def _then(against: Against, now: ProfileRecord, samples: Path, devices: Sequence[DeviceRecord]) -> Comparison:
    """Compare with the earlier figures.

    The numbers of ``compare`` know neither of the machines behind a name nor of trust.
    """
    name = against.pairs[now.model]
    before = next((one for one in against.result.profiles if (one.model, one.device) == (name, now.device)), None)
    label = f"{name} of {against.result.run}"

    def refused(reason: Finding) -> Comparison:
        return Comparison(now.model, label, now.device, "two sessions", "refused", reasons=(reason,))

    if before is None:
        return refused(Finding("not_then", figures={"device": now.device}))
    if reason := against.refusals.get((name, now.device)):
        return refused(reason)
    result = compare.over_sessions(now, before, samples / f"{now.device}.jsonl", _raw(against.folder, before))
    machines = _machines(*(_device(found, now.device) for found in (devices, against.result.devices)))
    if refusals := (*machines, *_references(now, before), *_doubts(now, before)):
        result = replace(result, verdict="refused", ratio=None, low=None, high=None, reasons=(*result.reasons, *refusals))
    result = replace(result, before=label)
    if now.model not in against.gone:
        return result
    gone = Finding("gone", figures={"file": against.gone[now.model]})
    return replace(result, reasons=(gone, *result.reasons))


def _device(devices: Sequence[DeviceRecord], name: str) -> DeviceRecord | None:
    return next((device for device in devices if device.name == name), None)


def _machines(now: DeviceRecord | None, then: DeviceRecord | None) -> Iterator[Finding]:
    """Why a device is another machine than the one of its name then; what either side does not know is not compared."""
    if now is None or then is None:
        return
    for what, ours, theirs in (
        ("model", now.model, then.model),
        ("architecture", now.arch, then.arch),
        ("cores", len(now.cores), len(then.cores)),  # their clock limits change with the heat on some phones
    ):
        if ours and theirs and ours != theirs:
            yield compare.changed(f"another machine: {what}", ours, theirs)
    if now.memory_mib and then.memory_mib and abs(math.log(now.memory_mib / then.memory_mib)) > math.log(1 + MEMORY):
        ours, theirs = (f"{device.memory_mib:,.0f} MiB" for device in (now, then))
        yield compare.changed("another machine: memory", ours, theirs)


def _references(now: ProfileRecord, before: ProfileRecord) -> Iterator[Finding]:
    """Why the paces of two sessions have no common scale, where either was measured beside a reference workload."""
    if now.reference != before.reference:
        yield compare.changed(REFERENCE, now.reference or "none", before.reference or "none")


def _doubts(now: ProfileRecord, before: ProfileRecord) -> list[Finding]:
    return [
        Finding("not_trusted", figures={"when": when, "reasons": codec.to_json(record.trust.reasons)})
        for when, record in (("now", now), ("then", before))
        if record.trust.verdict != "trusted"
    ]
