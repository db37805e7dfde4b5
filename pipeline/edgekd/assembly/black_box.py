"""A teacher of which only the outputs are known: a file that is run, or outputs that are stored."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekd import reads
from edgekd.assembly import wiring
from edgekd.errors import ModelError
from edgekd.recipe.base import need
from edgekd.recipe.data import Data
from edgekd.recipe.teacher import Teacher
from edgekd.runtimes import base, tensorflow
from edgekd.task import primary
from edgekd.task.finite import not_finite
from edgekd.task.image_classification import IMAGE

if TYPE_CHECKING:
    from edgekd.data.dataset import DataSet
    from edgekd.distill.teachers import BlackBox, Stored

FOLDERS = ("savedmodel",)  # what is a folder, and not a file
ABOUT = "black_box.json"  # what its stage writes


def config(section: Teacher) -> dict[str, Any]:
    """Return the configuration that decides its outputs: the file's bytes, its runtime, its images and outputs.

    Raises:
        ModelError: There is no such file.
    """
    kind, path = need(section.black_box, "black box among its teachers")
    runtime = {}
    if kind in base.runtimes:
        runtime = {"runtime": version(base.of(kind).packages[0]), "output": "logits"}  # of several
    if kind in tensorflow.FORMATS:
        runtime = {"runtime": tensorflow.runtime()}
    signature: dict[str, Any] = {"signature": section.signature} if section.signature else {}
    if section.classes is not None:
        signature["classes"] = section.classes
    return {
        "model": [kind, *_hashes(kind, files(kind, path))],
        "outputs": section.outputs, "mean": section.mean, "std": section.std, **runtime, **signature,
    }  # fmt: skip


def describe(section: Teacher, folder: Path) -> None:
    """Write what decides its outputs into its stage's folder; its hash names the teacher's records."""
    (folder / ABOUT).write_text(json.dumps(config(section), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def load(section: Teacher, data: Data, images: DataSet, threads: int) -> BlackBox | Stored:
    """Open the file, and see that it fits images and classes.

    Raises:
        ModelError: It does not fit.
    """
    import torch

    from edgekd.data import dataset
    from edgekd.distill.teachers import BlackBox
    from edgekd.exporting import foreign
    from edgekd.models import build

    kind, path = need(section.black_box, "black box among its teachers")
    if kind == "outputs":
        order = wiring.order_of(section, images.classes, "teacher")
        return _stored(Path(path), section.outputs == "probabilities", images, order)
    if {*images.rules} != {IMAGE}:
        raise ModelError(
            f"{Path(path).name}: a file teaches on images alone, and a sample here has {', '.join(images.train.inputs)}",
            "compute its outputs once, and give teacher.model: outputs:FILE, or give a network with its weights",
        )
    rule = images.preprocessing
    shape = (rule.channels, *data.size)
    with reads.in_key(*files(kind, path)):
        call = foreign.opened(Path(path), kind, shape, threads, section.signature, len(images.classes))
    own = replace(rule, mean=section.mean, std=section.std) if section.mean and section.std else rule
    network = BlackBox(call, rule, own, probabilities=section.outputs == "probabilities")
    with torch.no_grad():
        found = network(build.one_input(dataset.viewed(images.purpose, data).signature))
    _check(Path(path), found.shape[1], len(images.classes))
    primary.rearrange(network, wiring.order_of(section, images.classes, "teacher"), probabilities=False)
    return network


def _stored(path: Path, probabilities: bool, images: DataSet, order: tuple[int, ...] | None) -> Stored:
    import numpy as np
    import torch

    from edgekd.data import dataset
    from edgekd.distill.teachers import Stored, logits_of

    try:
        with reads.in_key(path), path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except Exception as error:  # numpy, zipfile and zlib raise many kinds for what is no archive or a damaged one
        raise ModelError(f"{path} cannot be read: {error}", "write it with numpy.savez(FILE, train=outputs)") from error
    if "train" not in arrays:
        found = ", ".join(sorted(arrays)) or "nothing"
        raise ModelError(f"{path} holds {found}, but no train", "write it with numpy.savez(FILE, train=outputs)")
    sizes = {"train": len(images.train) + len(images.val), "test": len(images.test)}
    for name in ("train", "test"):
        array = arrays.get(name)
        if array is None:
            continue
        port = images.purpose.signature.output
        if array.ndim != len(port.dims) or len(array) != sizes[name] or array.dtype.kind != "f":
            sample = "image" if {*images.rules} == {IMAGE} else "sample"
            raise ModelError(
                f"{path}: {name} is {array.dtype} of shape {array.shape}; the data has {sizes[name]} {name} {sample}s",
                f"give a row of outputs (float) for each {sample}, in the data's order; those for validation are in train",
            )
        if images.classes:
            _check(path, array.shape[1], len(images.classes))
        elif not primary.fits(array.shape, port):
            raise ModelError(f"{path}: {name} has shape {array.shape}, and {port} is needed", "store the primary output")
        if damaged := not_finite(array):
            raise ModelError(f"{path}: {name} has {damaged}", "compute the outputs again")
    rows = {name: logits_of(torch.from_numpy(arrays[name].astype(np.float32)), probabilities)
            for name in sizes if name in arrays}  # fmt: skip
    if order is not None:
        rows = {name: values[:, list(order)] for name, values in rows.items()}
    numbers = [torch.from_numpy(dataset.numbers(split)) for split in (images.train, images.val)]
    return Stored(rows["train"][numbers[0]], rows["train"][numbers[1]], rows.get("test"))


def _check(path: Path, outputs: int, classes: int) -> None:
    if outputs != classes:
        raise ModelError(
            f"{path.name} has {outputs} classes, and the data has {classes}",
            "distillation on logits needs the same classes in the same order; correct teacher.model or data.source",
        )


def _hashes(kind: str, found: list[Path]) -> Iterator[str]:
    for file in found:
        if kind in FOLDERS:
            yield file.relative_to(found[0].parent).as_posix()
        yield reads.file_sha256(file)


def files(kind: str, path: str) -> list[Path]:
    """The files of a model, all that its runtime reads; of a folder its graph first.

    Raises:
        ModelError: One is missing.
    """
    if kind in FOLDERS:
        graph = Path(path) / "saved_model.pb"
        if reads.unreadable(graph) == "does not exist":
            raise ModelError(f"{path} is no SavedModel: it has no saved_model.pb", "correct teacher.model; give the folder")
        walk = os.walk(path, followlinks=True)  # as TensorFlow does
        found = (Path(folder) / name for folder, _, names in walk for name in names)
        return [graph, *sorted(file for file in found if file.is_file() and file != graph)]
    file = Path(path)
    if reason := reads.unreadable(file):
        raise ModelError(f"{file} {reason}", "correct teacher.model; a relative path starts at the recipe's folder")
    beside = base.of(kind).files(file)[1:] if kind in base.runtimes else ()
    for missing in (each for each in beside if not each.is_file()):
        raise ModelError(f"{missing} does not exist", f"put it there: {file.name} has its weights in it")
    return [file, *beside]
