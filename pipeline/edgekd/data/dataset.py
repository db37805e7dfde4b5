"""Data: where images come from, how they are split, and the one preprocessing that every runtime shares.

Images stay uint8 until :func:`preprocess` normalizes a whole batch. Training images are augmented one by one with
torchvision's v2 transforms, each from a random state of its own (seed, epoch, index), so that a draw does not depend on
the order, the number of workers or where a run was resumed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from edgekd.data import reading
from edgekd.data.decoding import Images
from edgekd.data.preprocessing import Preprocessing, as_array
from edgekd.data.sources.base import Inputs, Raw
from edgekd.data.splits import stratified
from edgekd.errors import DataError
from edgekd.models.user_file import note_plugin
from edgekd.progress import Progress, Silent
from edgekd.recipe.data import Data
from edgekd.results.models import Of
from edgekd.task.base import Dtype, Purpose, Samples, Task, task_of
from edgekd.task.finite import not_finite
from edgekd.task.image_classification import IMAGE, KIND, samples_of


@dataclass(frozen=True)
class Split:
    """Samples, by the name of the input, and their targets: labels (int64, N), -1 where not known, or values (N×…)."""

    inputs: Inputs
    targets: NDArray[Any]

    @property
    def images(self) -> Images:
        """The images of samples that are images alone.

        Raises:
            DataError: They are not.
        """
        if {*self.inputs} != {IMAGE}:
            raise _no_pixels(self.inputs)
        return self.inputs[IMAGE]

    @property
    def labels(self) -> NDArray[np.int64]:
        """The targets of a task with classes."""
        return self.targets

    @property
    def labelled(self) -> bool:
        """True if the targets are known."""
        return self.targets.dtype.kind == "f" or bool((self.targets >= 0).all())

    def __len__(self) -> int:
        return len(self.targets)

    def stacked(self, places: Iterable[int]) -> dict[str, NDArray[Any]]:
        """Return the samples at these places as they are stored, by the name of the input."""
        wanted = [int(place) for place in places]
        return {name: np.stack([rows[place] for place in wanted]) for name, rows in self.inputs.items()}

    def batches(self, size: int = 256) -> Iterator[dict[str, NDArray[Any]]]:
        """Yield all samples in order, as they are stored."""
        for start in range(0, len(self), size):
            yield self.stacked(range(start, min(start + size, len(self))))


@dataclass(frozen=True)
class DataSet:
    """The three splits and what a model has to know of them.

    ``purpose`` is the task, with what is known of the samples: it decides how a network of them is built.
    ``mean`` and ``std`` are the recipe's, or of the training images, in [0, 1]. ``of`` says what the labels of the
    validation images are: their own, or what the teacher says of them.
    """

    train: Split
    val: Split
    test: Split
    purpose: Purpose
    rules: Mapping[str, Preprocessing]
    license: str = ""
    of: Of = "labels"

    @property
    def preprocessing(self) -> Preprocessing:
        """The preprocessing of samples that are images alone.

        Raises:
            DataError: They are not.
        """
        if {*self.rules} != {IMAGE}:
            raise _no_pixels(self.train.inputs)
        return self.rules[IMAGE]

    @property
    def noun(self) -> str:
        """A sample as a reader calls it: ``image`` or ``sample``."""
        return "image" if {*self.train.inputs} == {IMAGE} else "sample"

    def taken(self, stored: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Return the inputs of a network, in the order of its arguments, from stored samples."""
        ports = self.purpose.signature.inputs
        return {port.name: as_array(stored[port.name], self.rules.get(port.name)) for port in ports}

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.purpose.samples.classes

    @property
    def labelled(self) -> bool:
        """True if the test images have labels."""
        return self.test.labelled


def _no_pixels(inputs: Iterable[str]) -> DataError:
    return DataError(
        "a teacher that is a model file, synthesized images and the search for another normalization of given weights read "
        f"the pixels of one image, and a sample here has {', '.join(inputs)}",
        "give a teacher in torch or its stored outputs, or samples that are one image",
    )


@dataclass(frozen=True)
class _Subset:
    images: Images
    indices: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        return self.images[int(self.indices[index])]


def load(data: Data, progress: Progress | None = None, made: Path | None = None, *, task: str = KIND) -> DataSet:
    """Open a recipe's data.

    Args:
        data: The recipe's section.
        progress: Where to report.
        made: Folder of the images that are synthesized, if they are.
        task: The recipe's task.

    Raises:
        DataError: It is missing, empty, truncated or mislabelled; the message says what to do.
    """
    found = split(data, progress, made, task=task)
    raw = found.raw

    def part(places: NDArray[np.int64]) -> Split:
        return Split({name: _Subset(rows, places) for name, rows in raw.train.items()}, raw.y_train[places])

    train = part(found.kept)
    rules = {}
    if {*train.inputs} == {IMAGE}:
        mean, std = _normalization(data, train)
        rules[IMAGE] = Preprocessing(mean, std, data.channels, data.size)
    return DataSet(train, part(found.held_out), Split(raw.test, raw.y_test), found.purpose, rules, raw.license)


@dataclass(frozen=True)
class Divided:
    """A source with checked targets, which of its training samples are kept and held out, and what networks are for."""

    raw: Raw
    kept: NDArray[np.int64]
    held_out: NDArray[np.int64]
    purpose: Purpose


def split(data: Data, progress: Progress | None, made: Path | None, *, task: str = KIND) -> Divided:
    """Read a source, check its targets, and choose which of its training samples are held out for validation.

    Raises:
        DataError: As ``load``.
    """
    chosen = task_of(task)
    note_plugin(type(chosen))
    raw = reading.read(data, progress or Silent(), made)
    if "classes" not in chosen.gives:
        raw = _valued(raw, data)
        purpose = _purpose(chosen, raw, data)
        return Divided(raw, *_held_out(raw, data, chosen.stratum(raw.y_train)), purpose)
    raw = _classified(raw, data)
    purpose = _purpose(chosen, raw, data)
    if {*raw.train} == {IMAGE}:
        _check_channels(raw, data)
    kept, held_out = _held_out(raw, data, chosen.stratum(raw.y_train))
    if raw.labelled and not len(held_out):
        raise DataError(
            f"{data.source}: val_fraction {data.val_fraction} of {len(raw.y_train)} training images is below one a class",
            "raise data.val_fraction or give more images",
        )
    return Divided(raw, kept, held_out, purpose)


def _purpose(task: Task, raw: Raw, data: Data) -> Purpose:
    """Return what a network of the samples is for.

    Raises:
        DataError: They are not of the task.
    """
    if {*raw.train} == {IMAGE}:
        samples = replace(samples_of(data, raw.classes), target=raw.y_train.shape[1:])
    else:
        first = {name: np.asarray(rows[0]) for name, rows in raw.train.items()}
        inputs = {name: (value.shape, cast(Dtype, value.dtype.name)) for name, value in first.items()}
        samples = Samples(inputs, raw.classes, raw.y_train.shape[1:])
    try:
        task.signature(samples)
    except DataError as error:
        raise DataError(f"{data.source}: {error.message}", error.hint) from error
    return Purpose(task, samples)


def _held_out(raw: Raw, data: Data, stratum: NDArray[np.int64] | None) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return which training samples are kept and held out: the source's own choice, or a share of each stratum."""
    count = len(raw.y_train)
    if raw.own_val and data.made is None:
        kept, held_out = np.split(np.arange(count), [count - raw.own_val])
        return kept, held_out
    return stratified(np.zeros(count, np.int64) if stratum is None else stratum, data.val_fraction)


def _valued(raw: Raw, data: Data) -> Raw:
    """Return a source whose targets are values, as float32.

    Raises:
        DataError: They are not numbers, or not finite; a split is empty.
    """
    found = []
    for split, y, inputs in (("train", raw.y_train, raw.train), ("test", raw.y_test, raw.test)):
        counts = {len(rows) for rows in inputs.values()}
        if not len(y) or counts != {len(y)}:
            raise DataError(f"{data.source}: the {split} split has {len(y)} targets for its samples", "give one for each")
        if y.dtype.kind not in "fiu":
            raise DataError(f"{data.source}: the targets of {split} are {y.dtype}", "give numbers")
        if damaged := not_finite(y):
            raise DataError(f"{data.source}: the targets of {split} have {damaged}", "correct these, or leave them out")
        found.append(y.astype(np.float32))
    return replace(raw, y_train=found[0], y_test=found[1], classes=())


def _classified(raw: Raw, data: Data) -> Raw:
    """Return a source with checked labels, numbered as the recipe says, hidden where it says so.

    Raises:
        DataError: They are not labels.
    """
    if not raw.classes and len(raw.y_train) and {raw.y_train.dtype.kind, raw.y_test.dtype.kind} <= {*"iu"}:
        highest = max(int(y.max()) for y in (raw.y_train, raw.y_test) if y.size)
        raise DataError(
            f"{data.source}: the highest label is {highest}, and there are {len(raw.y_train)} training images",
            "number the labels from 0 without gaps",
        )
    if data.class_order is not None:
        raw = _renumbered(raw, [str(name) for name in data.class_order], data.source)
    if raw.labelled:
        y_train = raw.y_train
        if data.made is None:
            y_train = _labels(y_train, _count(raw.train), raw.classes, "train", data.source)
            _check_taught(y_train[: len(y_train) - raw.own_val], raw, data.source)
        y_test = _labels(raw.y_test, _count(raw.test), raw.classes, "test", data.source)
        hidden = {"train": data.labels != "all", "test": data.labels == "none"}
        y_train, y_test = (np.full_like(y, -1) if hidden[name] else y for name, y in (("train", y_train), ("test", y_test)))
        raw = replace(raw, y_train=y_train, y_test=y_test)
    return raw


def _check_channels(raw: Raw, data: Data) -> None:
    channels = len(raw.train[IMAGE][0]), len(raw.test[IMAGE][0])
    if channels[0] != channels[1]:
        raise DataError(
            f"{data.source}: the train images have {channels[0]} channel{'s' * (channels[0] > 1)} and the test images "
            f"{channels[1]}",
            "give both the same channels" if data.made is None else "add grey: true to data.synthetic, or remove it",
        )


def _renumbered(raw: Raw, order: Sequence[str], source: str) -> Raw:
    """The source with its classes numbered in another order.

    Raises:
        DataError: The names are not those of its classes.
    """
    if sorted(order) != sorted(raw.classes):
        odd = sorted({*order} ^ {*raw.classes})
        what = f"{', '.join(odd[:3])} is in only one of them" if odd else "a name is there twice"
        raise DataError(f"data.class_order are not the classes of {source}: {what}", f"list these: {', '.join(raw.classes)}")
    number = np.array([order.index(name) for name in raw.classes])

    def labels(given: NDArray[Any]) -> NDArray[Any]:
        known = (
            given.dtype.kind in "iu" and given.ndim == 1 and len(given) and given.min() >= 0 and given.max() < len(number)
        )
        return number[given] if known else given  # what is wrong with them is said where they are checked

    return replace(raw, classes=tuple(order), y_train=labels(raw.y_train), y_test=labels(raw.y_test))


def viewed(purpose: Purpose, data: Data) -> Purpose:
    """Return the purpose of a network that sees the same samples as a data section says."""
    samples = purpose.samples
    if {*samples.inputs} != {IMAGE}:  # arrays are what they are
        return purpose
    return replace(purpose, samples=replace(samples_of(data, samples.classes), target=samples.target))


def judged(images: DataSet, predictions: NDArray[np.int64]) -> DataSet:
    """The same data with what the teacher says of the validation images (int64, N) instead of their labels.

    Top-1 on them is then agreement with the teacher.

    Raises:
        DataError: There is no validation image.
    """
    if not len(images.val):
        raise DataError(
            f"none of {len(images.train)} training {images.noun}s is left for validation",
            f"raise data.val_fraction or give more {images.noun}s",
        )
    return replace(images, val=Split(images.val.inputs, predictions), of="teacher")


def numbers(split: Split) -> NDArray[np.int64]:
    """Return the places of a split's images in the order of the source (int64, N)."""
    rows = next(iter(split.inputs.values()))
    return rows.indices if isinstance(rows, _Subset) else np.arange(len(split))


def _count(inputs: Inputs) -> int:
    return len(next(iter(inputs.values())))


def _labels(y: NDArray[Any], count: int, classes: Sequence[str], split: str, source: str) -> NDArray[np.int64]:
    if not count:
        raise DataError(f"{source}: the {split} split has no images", "give images, or correct data.source")
    if y.ndim > 1 and y.dtype.kind == "f":
        given = f"{'×'.join(map(str, y.shape))} {y.dtype}"
        raise DataError(
            f"{source}: the {split} split has values as targets ({given}), and the task needs a class for each sample",
            "name a task of values in a recipe, as docs/extending.md shows, or give labels; edgekd quantize and edgekd "
            "export take classifiers of images alone",
        )
    if y.ndim != 1 or len(y) != count or y.dtype.kind not in "iu":
        raise DataError(
            f"{source}: the {split} split has {count} images and labels of shape {y.shape} and type {y.dtype}",
            "give one integer label for each image",
        )
    wrong = np.flatnonzero((y < 0) | (y >= len(classes)))
    if len(wrong):
        raise DataError(
            f"{source}: the label of {split} image {wrong[0]} is {y[wrong[0]]}; there are {len(classes)} classes "
            f"(0 to {len(classes) - 1}); labels outside of them: {len(wrong)}",
            "correct the labels",
        )
    return y.astype(np.int64)


def _check_taught(trained: NDArray[np.int64], raw: Raw, source: str) -> None:
    """See that each class has an image that is trained on: those of the source's own validation split are not."""
    missing = sorted(set(range(len(raw.classes))) - set(np.unique(trained).tolist()))
    if missing:
        label = missing[0]
        alone = ", which only the validation split has" if label in raw.y_train else ""
        raise DataError(
            f"{source}: no training image of class {label} ({raw.classes[label]}){alone}",
            "add images of it, or number the labels from 0 without gaps",
        )
    if len(raw.classes) < 2:
        raise DataError(
            f"{source}: there is only one class",
            "a classifier needs two at least; images:DIR takes images without labels",
        )


def _normalization(data: Data, train: Split) -> tuple[tuple[float, ...], tuple[float, ...]]:
    if data.mean is not None and data.std is not None:
        return data.mean, data.std
    # Random images have statistics that mean nothing.
    return ((0.0,), (1.0,)) if data.source == "random" else _statistics(train)


def _statistics(train: Split) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each stored channel over (at most 4,096 of) the training images.

    From whole numbers, one image at a time: exact, and without all of them in memory.
    """
    step = max(1, len(train) // 4096)
    pixels = 0
    total = squares = np.zeros(len(train.images[0]), np.int64)
    for index in range(0, len(train), step):
        image = train.images[index].astype(np.int64)
        pixels += image[0].size
        total, squares = total + image.sum((1, 2)), squares + (image * image).sum((1, 2))
    mean = total / pixels / 255
    std = np.sqrt(np.maximum(squares / pixels / 255**2 - mean**2, 0))
    return tuple(np.round(mean, 4).tolist()), tuple(np.round(np.maximum(std, 1e-3), 4).tolist())
