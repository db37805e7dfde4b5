"""Model files that a path means, and their descriptions: complete for a bundle, almost empty for any other file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from edgekd.data.preprocessing import Preprocessing
from edgekd.errors import UsageError, cause_of, printable
from edgekd.profiling.participants import REFERENCE
from edgekd.reads import file_sha256
from edgekd.results import upgrade
from edgekd.results.codec import from_json
from edgekd.results.findings import Finding, said
from edgekd.results.models import ModelRecord, TaskFacts
from edgekd.runtimes import base

TORCH, HOST, INPUT = "torch_", "logits_", "input_"
"""Begin names in a bundle's samples: torch's outputs by its network, the artifacts' on the host, inputs but images."""


@dataclass(frozen=True)
class Bundle:
    """The description that lies beside an artifact in its folder.

    Attributes:
        folder: The folder.
        preprocessing: How an image becomes an input; None where samples are no images.
        classes: Their names.
        samples: The ``samples.npz``; None where it is not there.
        task: What its networks are for.
    """

    folder: Path
    preprocessing: Preprocessing | None
    classes: tuple[str, ...]
    samples: Path | None
    task: TaskFacts


@dataclass(frozen=True)
class ModelFile:
    """One file to measure: its record, and its bundle where it is in one."""

    path: Path
    record: ModelRecord
    bundle: Bundle | None = None
    notes: tuple[Finding, ...] = field(default=())

    @property
    def format(self) -> str:
        """Its format, which names the runtime."""
        return base.suffixes()[self.path.suffix.lower()]


def files(paths: Sequence[Path]) -> tuple[ModelFile, ...]:
    """Find the model files that paths mean: a run folder, a bundle's folder, or single files.

    Raises:
        UsageError: There is none, or one is not a model file.
    """
    found = [file for path in paths for file in _of(path)]
    taken, own = {REFERENCE}, {file.record.name for file in found}
    named = []
    for file in found:
        name, number = file.record.name, 1
        while name in taken or (number > 1 and name in own):  # files of one name in several folders
            number += 1
            name = f"{file.record.name}#{number}"
        taken.add(name)
        place = str(file.path.absolute())
        if printable(place) != place:
            raise UsageError(f"{place}: its name is not UTF-8, and runtimes do not open it", "rename the file or its folder")
        named.append(replace(file, record=replace(file.record, name=name, place=place)))
    return tuple(named)


def _of(path: Path) -> Iterator[ModelFile]:
    if not path.exists():
        raise UsageError(f"{path} does not exist", "give a model file, a bundle's folder or a run folder")
    if path.is_dir():
        folder = path / "artifacts" if (path / "artifacts" / "manifest.json").is_file() else path
        if not (folder / "manifest.json").is_file():
            raise UsageError(
                f"{path} has no manifest.json",
                f"name the files: {', '.join(base.suffixes())}; or give the folder of an edgekd run",
            )
        yield from _bundled(folder)
        return
    if path.suffix.lower() not in base.suffixes():
        hint = "give the .xml file" if path.suffix == ".bin" else f"give a file that ends in {', '.join(base.suffixes())}"
        raise UsageError(f"{path} is not a model file that a device can run", hint)
    not_loaded = _check(path)
    if (path.parent / "manifest.json").is_file():
        mine = [file for file in _bundled(path.parent) if file.path.name == path.name]
        if mine:
            yield mine[0]
            return
    yield _foreign(path, path.stem, not_loaded)


def _bundled(folder: Path) -> Iterator[ModelFile]:
    """The artifacts of a bundle."""
    try:
        path = folder / "manifest.json"
        value = upgrade.manifest(json.loads(path.read_text(encoding="utf-8-sig")), str(path))
        rule = value["preprocessing"]
        preprocessing = rule and Preprocessing(tuple(rule["mean"]), tuple(rule["std"]), int(rule["channels"]))
        records = [from_json(ModelRecord, item) for item in value["artifacts"]]
        classes = tuple(value["classes"])
        task = from_json(TaskFacts, value.get("task", {}))
        hashes = {name: str(told["sha256"]) for name, told in value["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{folder / 'manifest.json'} cannot be read: {cause_of(error)}", "name the model files") from error
    samples = folder / "samples.npz"
    bundle = Bundle(folder, preprocessing, classes, samples if samples.is_file() else None, task)
    for record in records:
        if record.path is not None:
            path = folder / Path(record.path).name
            not_loaded = _check(path)
            changed = [part.name for part in base.files(path) if file_sha256(part) != hashes.get(part.name)]
            if changed:
                told = Finding("not_as_described", "warning", record.name, {"files": changed})
                yield _foreign(path, record.name, not_loaded, (told,))
            else:
                beside = tuple(hashes[part.name] for part in base.files(path)[1:])
                yield ModelFile(path, replace(record, beside=beside), bundle)


def task(files: Sequence[ModelFile]) -> TaskFacts:
    """Return the task of files; of several tasks, or of a file that nobody describes, it is not known."""
    known = [file.bundle.task if file.bundle else None for file in files]
    first = known[0] if known else None
    return first if first is not None and all(one == first for one in known) else TaskFacts(None)


def content(path: Path) -> tuple[str, ...]:
    """Hashes of all files of a model, as ``ModelRecord.content`` has them."""
    return tuple(file_sha256(part) for part in base.files(path))


def _foreign(path: Path, name: str, not_loaded: tuple[str, ...], notes: tuple[Finding, ...] = ()) -> ModelFile:
    hashes = content(path)
    record = ModelRecord(
        name=name, role="artifact", format=base.suffixes()[path.suffix.lower()], precision=None, path=path.name,
        sha256=hashes[0], bytes=sum(part.stat().st_size for part in base.files(path)),
        beside=hashes[1:],
    )  # fmt: skip
    return ModelFile(path, record, None, (*notes, *(said(f"{name} {words}", where=name) for words in not_loaded)))


def _check(path: Path) -> tuple[str, ...]:
    """See that a file is what its name says; returns what of it is not loaded.

    Raises:
        UsageError: It is not there, or is something else.
    """
    if not path.is_file():
        raise UsageError(f"{path} does not exist", "give a model file, a bundle's folder or a run folder")
    return base.of(base.suffixes()[path.suffix.lower()]).check(path)
