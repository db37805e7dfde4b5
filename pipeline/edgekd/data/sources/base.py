"""The protocol of a source, and what sources have in common.

Every source gives its samples as named arrays, images as uint8 at the recipe's size, and says in words what is wrong with
what it reads.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from edgekd.data import decoding
from edgekd.data.decoding import Images
from edgekd.errors import DataError
from edgekd.progress import Progress
from edgekd.recipe.data import Data
from edgekd.recipe.source import Declared, parts
from edgekd.registry import sources
from edgekd.task.image_classification import IMAGE

UNLABELLED_TEST = 256  # images that files are compared on where there are no labels


Inputs = Mapping[str, Images]
"""Samples of one split by the name of the input; each is indexed by the place of the sample."""


@dataclass(frozen=True)
class Raw:
    """A source before it is split.

    Attributes:
        train: The training samples by the name of the input: images (uint8, C×H×W each) or arrays of any shape.
        y_train: Their targets: labels (N,), -1 where they are not known, or values (float, N×…).
        test: The test samples.
        y_test: Their targets.
        classes: Names of the classes; empty where the targets are values.
        license: Of the data, for the model card.
        labelled: Whether the labels are known.
        own_val: How many images at the end of ``train`` are the source's own validation split.
        notes: What a user has to know of how it is read, in lines.
    """

    train: Inputs
    y_train: NDArray[Any]
    test: Inputs
    y_test: NDArray[Any]
    classes: tuple[str, ...]
    license: str = ""
    labelled: bool = True
    own_val: int = 0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Targets:
    """The targets of one split (N), and the names of the files without their endings, where each sample is one."""

    values: NDArray[Any]
    names: tuple[str, ...] = ()


class Source(Declared, Protocol):
    """A source of samples. Registered under its name, such as ``npz``; see docs/extending.md.

    It may be :class:`Versioned`, :class:`Indexed` or :class:`Described` as well.
    ``place`` is what follows the name in a recipe; empty for a source that is only a name.
    """

    def read(self, place: str, data: Data, progress: Progress) -> Raw:
        """Open it as a recipe's data section says.

        Raises:
            DataError: It is missing, empty, truncated or of another form.
        """
        ...

    def files(self, place: str) -> Sequence[tuple[str, Path]]:
        """Return the files whose bytes decide the samples, each with a name that holds on every machine.

        Raises:
            DataError: They are not there.
        """
        ...


@runtime_checkable
class Versioned(Protocol):
    """A source that more than its files decides."""

    def version(self, place: str) -> str:
        """Return what decides the samples besides files."""
        ...


@runtime_checkable
class Indexed(Protocol):
    """A source whose targets are known without looking at the samples."""

    def targets(self, place: str) -> Mapping[str, Targets]:
        """Return the targets of ``train`` and ``test``.

        Raises:
            DataError: As ``read``.
        """
        ...


@runtime_checkable
class Described(Protocol):
    """A source that says by itself what will be read; of others the samples are read and counted."""

    def described(self, place: str, data: Data, progress: Progress) -> list[str]:
        """Return in lines what will be read, and what of it will not.

        Raises:
            DataError: As ``read``.
        """
        ...


def source_of(data: Data | str) -> tuple[Source, str]:
    """Return the source that a data section names, and its place."""
    kind, place = parts(data if isinstance(data, str) else data.source)
    found: Source = sources.get(kind)()
    return found, place


def from_arrays(
    arrays: Mapping[str, NDArray[Any]], data: Data, classes: tuple[str, ...], license: str = "", place: str = ""
) -> Raw:
    """Return a source that is in memory: ``x_train``, ``y_train``, ``x_test`` and ``y_test``, perhaps ``x_val``, ``y_val``.

    Raises:
        DataError: The images are not uint8, N×H×W or N×H×W×3, or those for validation are of another form.
    """

    def images(name: str) -> NDArray[np.uint8]:
        x = arrays[name]
        stored = x.shape[-1] if x.ndim == 4 else 1
        fits = stored in (1, data.channels) or (stored, data.channels) == (3, 1)
        if x.dtype != np.uint8 or x.ndim not in (3, 4) or not fits:
            colour = data.channels if data.channels > 1 else 3
            raise DataError(
                f"{place or data.source}: {name} is {x.dtype} of shape {x.shape}",
                f"images must be uint8, N×H×W (grey) or N×H×W×{colour}",
            )
        x = x[:, None] if x.ndim == 3 else np.moveaxis(x, -1, 1)
        x = decoding.grey(x) if data.channels == 1 and x.shape[1] == 3 else x
        return decoding.resized(x, data.size) if len(x) else x

    train, y_train = images("x_train"), arrays["y_train"]
    if "x_val" not in arrays:
        return Raw({IMAGE: train}, y_train, {IMAGE: images("x_test")}, arrays["y_test"], classes, license)
    val = images("x_val")
    if val.shape[1:] != train.shape[1:] or arrays["y_val"].shape != (len(val),) or y_train.shape != (len(train),):
        raise DataError(
            f"{place or data.source}: x_val is {val.shape} with labels of shape {arrays['y_val'].shape}; x_train is "
            f"{train.shape}",
            "give x_val and y_val the form of x_train and y_train, or take them out",
        )
    both, targets = np.concatenate([train, val]), np.concatenate([y_train, arrays["y_val"]])
    return Raw({IMAGE: both}, targets, {IMAGE: images("x_test")}, arrays["y_test"], classes, license, own_val=len(val))


def unlabelled(train: Images, test: Images, data: Data) -> Raw:
    """Return images without labels; ``data.classes`` says how many classes there are."""
    if data.classes is None:
        raise DataError(f"{data.source} has no labels that tell the number of classes", "add data.classes: NUMBER")
    none = [np.full(len(images), -1, np.int64) for images in (train, test)]
    names = tuple(str(number) for number in range(data.classes))
    return Raw({IMAGE: train}, none[0], {IMAGE: test}, none[1], names, labelled=False)


def numbers(labels: Iterable[int]) -> NDArray[np.int64]:
    """Return labels as an array."""
    return np.array(list(labels), np.int64)
