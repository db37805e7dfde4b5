"""Model files that a path means, and their descriptions: complete for a bundle, almost empty for any other file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from edgekd.errors import UsageError, cause_of, printable
from edgekd.profiling.inspection import Preprocessing
from edgekd.profiling.participants import REFERENCE
from edgekd.reads import file_sha256
from edgekd.results import upgrade
from edgekd.results.codec import from_json
from edgekd.results.models import ModelRecord

FORMATS: Mapping[str, Literal["onnx", "tflite", "openvino"]] = {
    ".onnx": "onnx", ".tflite": "tflite", ".lite": "tflite", ".xml": "openvino",
}  # fmt: skip
TORCH, HOST = "torch_", "logits_"
"""Begin the names of outputs in a bundle's samples: torch's by its network, the artifacts' on the host."""


@dataclass(frozen=True)
class Bundle:
    """The description that lies beside an artifact in its folder.

    Attributes:
        folder: The folder.
        preprocessing: How an image becomes an input.
        classes: Their names.
        samples: The ``samples.npz``; None where it is not there.
    """

    folder: Path
    preprocessing: Preprocessing
    classes: tuple[str, ...]
    samples: Path | None


@dataclass(frozen=True)
class ModelFile:
    """One file to measure: its record, and its bundle where it is in one."""

    path: Path
    record: ModelRecord
    bundle: Bundle | None = None
    notes: tuple[str, ...] = field(default=())

    @property
    def format(self) -> Literal["onnx", "tflite", "openvino"]:
        """Its format, which names the runtime."""
        return FORMATS[self.path.suffix.lower()]


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
                f"{path} has no manifest.json", f"name the files: {', '.join(FORMATS)}; or give the folder of an edgekd run"
            )
        yield from _bundled(folder)
        return
    if path.suffix.lower() not in FORMATS:
        hint = "give the .xml file" if path.suffix == ".bin" else f"give a file that ends in {', '.join(FORMATS)}"
        raise UsageError(f"{path} is not a model file that a device can run", hint)
    _check(path)
    if (path.parent / "manifest.json").is_file():
        mine = [file for file in _bundled(path.parent) if file.path.name == path.name]
        if mine:
            yield mine[0]
            return
    yield _foreign(path, path.stem)


def _bundled(folder: Path) -> Iterator[ModelFile]:
    """The artifacts of a bundle."""
    try:
        path = folder / "manifest.json"
        value = upgrade.manifest(json.loads(path.read_text(encoding="utf-8")), str(path))
        rule = value["preprocessing"]
        preprocessing = Preprocessing(tuple(rule["mean"]), tuple(rule["std"]), int(rule["channels"]))
        records = [from_json(ModelRecord, item) for item in value["artifacts"]]
        classes = tuple(value["classes"])
        hashes = {name: str(told["sha256"]) for name, told in value["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{folder / 'manifest.json'} cannot be read: {cause_of(error)}", "name the model files") from error
    samples = folder / "samples.npz"
    bundle = Bundle(folder, preprocessing, classes, samples if samples.is_file() else None)
    for record in records:
        if record.path is not None:
            path = folder / Path(record.path).name
            _check(path)
            changed = [part.name for part in parts(path) if file_sha256(part) != hashes.get(part.name)]
            if changed:
                told = (
                    f"{' and '.join(changed)} is not what manifest.json beside it describes; measured as any other file is"
                )
                yield _foreign(path, record.name, (f"{record.name}: {told}",))
            else:
                yield ModelFile(path, replace(record, bin_sha256=hashes.get(path.with_suffix(".bin").name)), bundle)


def parts(path: Path) -> list[Path]:
    """All files of a model: of OpenVINO the .xml and the .bin."""
    return [path, *([path.with_suffix(".bin")] if path.suffix == ".xml" else [])]


def content(path: Path) -> tuple[str, ...]:
    """Hashes of all files of a model, as ``ModelRecord.content`` has them."""
    return tuple(file_sha256(part) for part in parts(path))


def _foreign(path: Path, name: str, notes: tuple[str, ...] = ()) -> ModelFile:
    hashes = content(path)
    record = ModelRecord(
        name=name, role="artifact", format=FORMATS[path.suffix.lower()], precision=None, path=path.name,
        sha256=hashes[0], bytes=sum(part.stat().st_size for part in parts(path)),
        bin_sha256=hashes[1] if len(hashes) > 1 else None,
    )  # fmt: skip
    return ModelFile(path, record, None, (*notes, *_signatures(path, name)))


def _signatures(path: Path, name: str) -> Iterator[str]:
    """Say which signatures of a .tflite file are not measured: each is a graph of its own."""
    if FORMATS[path.suffix.lower()] != "tflite":
        return
    from ai_edge_litert import schema_py_generated as schema

    try:
        model = schema.Model.GetRootAs(path.read_bytes(), 0)
        found = [model.SignatureDefs(at) for at in range(model.SignatureDefsLength())]
        called = [(one.SubgraphIndex(), one.SignatureKey().decode(errors="replace")) for one in found]
    except Exception:  # of a damaged file, of many classes: its runtime says what is wrong with it
        return
    if others := [key for graph, key in called if graph]:
        first = ", ".join(key for graph, key in called if not graph) or "its first graph"
        yield (
            f"{name} has {len(called)} signatures: edgekd measures {first}, not {', '.join(others)}; to measure another, "
            "convert it to a file with this signature only"
        )


def _check(path: Path) -> None:
    """See that a file is what its name says, as far as that can be seen at once.

    Raises:
        UsageError: It is not there, or is something else.
    """
    if not path.is_file():
        raise UsageError(f"{path} does not exist", "give a model file, a bundle's folder or a run folder")
    kind = FORMATS[path.suffix.lower()]
    with path.open("rb") as file:
        head = file.read(512)
    if kind == "tflite" and head[4:8] != b"TFL3":
        raise UsageError(f"{path} is not a TensorFlow Lite file", "its bytes 5 to 8 have to be TFL3")
    if kind == "openvino":
        if path.suffix != ".xml":
            raise UsageError(f"{path}: OpenVINO's files end in .xml and .bin, in small letters", "name them so")
        if b"<net" not in head:
            raise UsageError(f"{path} is not an OpenVINO model", "give the .xml file that openvino.save_model wrote")
        if not path.with_suffix(".bin").is_file():
            raise UsageError(f"{path.with_suffix('.bin')} does not exist", "an OpenVINO model is two files, .xml and .bin")
    if kind == "onnx":
        _check_onnx(path)


def _messages(message: Any) -> Iterator[Any]:
    """A message of protobuf and all messages inside of it: tensors are in graphs, branches, functions and attributes."""
    yield message
    for described, value in message.ListFields():
        if described.message_type:
            for part in [value] if hasattr(value, "ListFields") else value:
                yield from _messages(part)


def _check_onnx(path: Path) -> None:
    import onnx

    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # of protobuf, one of several classes
        raise UsageError(f"{path} is not an ONNX file: {cause_of(error)}", "give a file that onnx.save wrote") from error
    if not model.graph.node and not model.graph.output:
        raise UsageError(f"{path} is not an ONNX file: it has no graph", "give a file that onnx.save wrote")
    names = {
        entry.value
        for tensor in _messages(model)
        if isinstance(tensor, onnx.TensorProto) and tensor.data_location == onnx.TensorProto.EXTERNAL
        for entry in tensor.external_data
        if entry.key == "location"
    }
    if names:
        raise UsageError(
            f"{path} has its weights in other files: {', '.join(sorted(names))}",
            "write it as one file: python -c \"import onnx; onnx.save(onnx.load('IN.onnx'), 'OUT.onnx')\"",
        )
