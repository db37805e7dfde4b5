"""Inputs for model files on a device: a bundle's own samples, files of the user, or random values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.artifacts import declared
from edgekd.artifacts.found import HOST, INPUT, TORCH, Bundle, ModelFile, task
from edgekd.errors import UsageError, cause_of
from edgekd.profiling import inspection
from edgekd.profiling.inspection import Wants
from edgekd.profiling.variant import Variant
from edgekd.results.findings import Finding, Missing
from edgekd.results.models import FilePort, ModelRecord, TaskFacts
from edgekd.runtimes import base

FED = 8
"""Samples that are fed in turn."""


@dataclass(frozen=True)
class Given:
    """Inputs as a user gives them.

    Attributes:
        shapes: By the name of an input, its size where the model leaves it open.
        inputs: By the name of an input, an .npy file whose rows are fed in turn.
        accuracy: Images of the samples whose classes are found on each device.
    """

    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    inputs: Mapping[str, Path] = field(default_factory=dict)
    accuracy: int | None = None


@dataclass(frozen=True)
class Known:
    """Known outputs of an artifact: torch's by output, (N, ...); labels of the counted images, and the host's classes."""

    torch: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    labels: NDArray[np.int64] | None = None
    host_classes: NDArray[np.int64] | None = None
    classes: bool = True
    """Whether the first output may be scores of classes."""


@dataclass(frozen=True)
class Prepared:
    """Everything for the sessions.

    Attributes:
        variants: What is measured, with its inputs.
        wants: What is looked at beside times.
        known: By the name of an artifact.
        notes: What cannot be known, and why.
        task: What the files are for, as far as it is known.
    """

    variants: tuple[Variant, ...]
    wants: Wants
    known: Mapping[str, Known]
    notes: tuple[Missing, ...]
    task: TaskFacts


def prepare(files: Sequence[ModelFile], given: Given, folder: Path) -> Prepared:
    """Write the inputs into a folder.

    Raises:
        UsageError: A file of the user's is no array, or nothing is there for the accuracy.
    """
    arrays = {name: _array(path) for name, path in given.inputs.items()}
    fed = [declared.check(file, given.shapes, arrays) for file in files]
    bundles = {file.bundle.folder: file.bundle for file in files if file.bundle and file.bundle.samples}
    if len(bundles) > 1:
        raise UsageError(
            f"the files are of several bundles: {', '.join(map(str, bundles))}", "give the files of one bundle at a time"
        )
    bundle = next(iter(bundles.values()), None)
    own = _Samples.of(bundle, given.accuracy or 0, folder) if bundle else None
    if given.accuracy and (own is None or own.labels is None):
        raise UsageError("--accuracy needs images with labels", "give a bundle of edgekd whose samples.npz has labels")
    variants, known = [], {}
    notes: list[Missing] = []
    for number, (file, values) in enumerate(zip(files, fed, strict=True)):
        taken = dict(given.inputs)
        for at, (name, array) in enumerate(values.converted.items()):
            taken[name] = folder / f"given{number}_{at}.npy"
            np.save(taken[name], array)
        variants.append(_variant(file, replace(given, inputs=taken), own))
        notes += values.notes
        name = file.record.name
        if file.bundle is None or own is None:
            known[name] = Known()
            figures = {"given": bool(given.inputs)}
            notes.append(Missing(Finding("not_described", figures=figures), "", name))
            continue
        torch = own.of_torch(file.record)
        if not torch:
            notes.append(Missing(Finding("no_torch_outputs"), "", name))
        labels, host = (own.labels, own.host.get(name)) if given.accuracy else (None, None)
        known[name] = Known(torch, labels, host, classes=bool(file.bundle.classes))
    return Prepared(tuple(variants), own.wants if own else Wants(), known, tuple(notes), task(files))


@dataclass(frozen=True)
class _Samples:
    """Samples of a bundle, as files for a device."""

    feeds: Mapping[str, Path]
    """By layout of images; or by the name of an input, with ``.NHWC`` behind it where it has channels last."""
    torch: Mapping[str, NDArray[Any]]
    """By the name of the network, with a dot and the name of an output beside the primary one."""
    host: Mapping[str, NDArray[np.int64]]
    labels: NDArray[np.int64] | None
    wants: Wants

    @classmethod
    def of(cls, bundle: Bundle, counted: int, folder: Path) -> _Samples:
        assert bundle.samples  # only bundles with samples are asked
        if bundle.preprocessing is None:
            return cls._of_arrays(bundle.samples, folder)
        with np.load(bundle.samples, allow_pickle=False) as stored:
            images = stored["images"]
            places, of_split = spread(_common(stored, images), FED), spread(len(images), counted)
            labels = stored["labels"][of_split] if "labels" in stored else None
            host = {
                name.removeprefix(HOST): stored[name][of_split].argmax(axis=1) for name in stored if name.startswith(HOST)
            }
            torch = {name.removeprefix(TORCH): stored[name][places] for name in stored if name.startswith(TORCH)}
        rule, feeds = bundle.preprocessing, {}
        x = rule.arrays(images[places])
        for layout, array in (("NCHW", x), ("NHWC", np.ascontiguousarray(x.transpose(0, 2, 3, 1)))):
            feeds[layout] = folder / f"samples_{layout}.npy"
            np.save(feeds[layout], array)
        split = folder / "split.npy"
        if counted:
            np.save(split, images[of_split])
        encoded = tuple(inspection.encoded(list(images[places]), folder))
        wants = Wants(preprocessing=rule, encoded=encoded, images=split if counted else None)
        return cls(feeds, torch, host, labels, wants)

    @classmethod
    def _of_arrays(cls, samples: Path, folder: Path) -> _Samples:
        """Return samples that are no images: they are fed as they are, and nothing is counted."""
        with np.load(samples, allow_pickle=False) as stored:
            arrays = {name.removeprefix(INPUT): stored[name] for name in stored if name.startswith(INPUT)}
            places = spread(_common(stored, *arrays.values()), FED)
            torch = {name.removeprefix(TORCH): stored[name][places] for name in stored if name.startswith(TORCH)}
        feeds = {}
        for number, (name, array) in enumerate(arrays.items()):
            fed = array[places]
            turned = {f"{name}.NHWC": np.ascontiguousarray(fed.transpose(0, 2, 3, 1))} if fed.ndim == 4 else {}
            for key, value in {name: fed, **turned}.items():
                feeds[key] = folder / f"samples{number}{'_NHWC' * (key != name)}.npy"
                np.save(feeds[key], value)
        return cls(feeds, torch, {}, None, Wants())

    def of_torch(self, record: ModelRecord) -> dict[str, NDArray[Any]]:
        """Return what torch gives, by the file's outputs and in its layout; empty where the bundle does not have it."""
        reference = record.parity.reference if record.parity else ""
        if reference not in self.torch:
            return {}
        if not record.outputs:  # of an older bundle
            return {"": self.torch[reference]}
        primary, *others = record.outputs
        ports = {reference: primary, **{f"{reference}.{port.name}": port for port in others}}
        return {port.name: base.laid_out(self.torch[key], port.layout) for key, port in ports.items() if key in self.torch}


def _common(stored: Mapping[str, NDArray[Any]], *inputs: NDArray[Any]) -> int:
    """Return how many samples all inputs and all outputs of torch are there for."""
    return min(map(len, (*inputs, *(stored[name] for name in stored if name.startswith(TORCH)))))


def _variant(file: ModelFile, given: Given, own: _Samples | None) -> Variant:
    record, inputs, layout = file.record, dict(given.inputs), ""
    if file.bundle and own and not inputs:
        keys = {spec.name: spec.layout if spec.layout in own.feeds else _key(spec) for spec in record.inputs}
        inputs = {name: own.feeds[key] for name, key in keys.items() if key in own.feeds}
        layout = record.inputs[0].layout if len(record.inputs) == 1 and inputs and file.bundle.preprocessing else ""
    shapes = {name: shape for name, shape in given.shapes.items() if name not in inputs}
    return Variant(record.name, file.format, file.path, inputs, shapes, layout)


def _key(spec: FilePort) -> str:
    return f"{spec.name}.NHWC" if spec.layout == "NHWC" else spec.name


def spread(total: int, count: int) -> NDArray[np.int64]:
    """``count`` places from all over ``total``."""
    return np.unique(np.linspace(0, max(0, total - 1), min(count, total)).round().astype(np.int64))


def _array(path: Path) -> NDArray[np.generic]:
    hint = "write one with numpy.save(PATH, ARRAY), of numbers or ARRAY.astype(str)"
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # of a damaged file, of many classes
        raise UsageError(f"{path} is not an .npy file: {cause_of(error)}", hint) from error
    if not isinstance(array, np.ndarray):
        raise UsageError(f"{path} is not an .npy file but an archive of several arrays", hint)
    return array
