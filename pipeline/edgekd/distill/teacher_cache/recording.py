"""A teacher that is asked once: its outputs for (image, draw) are recorded while training goes on, and read back afterwards.

An augmented image is a function of (seed, draw, index) alone, so what the teacher says about it is too, and the student
still learns from the very view that the teacher saw, as it must (Beyer et al. 2022). Keeping the outputs of every view is
FKD's idea (Shen & Xing 2022). Whether a row is read or has just been computed, the student gets the bytes that are kept: a
cold run and a warm one are the same.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgekd.cache import storage_error
from edgekd.distill.looks import Look, ask
from edgekd.distill.teacher_cache.rows import SUM_BYTES, Rows, amount, note, refused, written
from edgekd.errors import StorageError
from edgekd.recipe.distill import TeacherCache

Bytes = NDArray[np.uint8]
FLOAT16_MAX = 65504.0
RESERVE = 64 * 10**6  # bytes left beside weights: curves, logs, what the file system takes; or training ends in a full disk


class Codec(Protocol):
    """Encodes one output of the teacher as a row of ``size`` bytes for each image, and decodes it."""

    @property
    def size(self) -> int:
        """Bytes for an image."""

    def encode(self, output: Tensor) -> Bytes:
        """Return uint8 N×size."""

    def decode(self, rows: Bytes) -> Tensor:
        """Return the output, in the type and the memory layout in which the teacher gives it."""


@dataclass(frozen=True)
class Dense:
    """Every number, as float16 or float32. What float16 cannot hold becomes ±65504.

    Attributes:
        shape: Of the output for one image.
        order: Its dimensions from the slowest to the fastest in memory: a sum over another layout has other last bits.
        kept: Type on disk.
        given: Type that the teacher gives.
    """

    shape: tuple[int, ...]
    order: tuple[int, ...]
    kept: torch.dtype
    given: torch.dtype

    @property
    def size(self) -> int:
        """Bytes for an image."""
        return math.prod(self.shape) * self.kept.itemsize

    def encode(self, output: Tensor) -> Bytes:
        """Return uint8 N×size."""
        moved = output.detach().permute(0, *(1 + dim for dim in self.order)).flatten(1)
        return _rows(_narrow(moved, self.kept))

    def decode(self, rows: Bytes) -> Tensor:
        """Return N×shape."""
        flat = torch.from_numpy(rows).view(self.kept).to(self.given)
        stored = flat.reshape(len(rows), *(self.shape[dim] for dim in self.order))
        return stored.permute(0, *(1 + self.order.index(dim) for dim in range(len(self.order))))


@dataclass(frozen=True)
class TopK:
    """The ``k`` largest logits, and one number for all others: the logarithm of their mean exponential.

    At temperature 1 the probabilities of the k classes are exact, and the rest share what is left in equal parts. At
    temperature T the weight of the n others in the softmax is too large by a factor between 1 and n^(1 - 1/T), for the mean
    of T-th roots is at most the T-th root of the mean (Jensen).
    """

    k: int
    classes: int
    kept: torch.dtype
    given: torch.dtype

    @property
    def size(self) -> int:
        """Bytes for an image: the values, the rest, the classes as int32."""
        return (self.k + 1) * self.kept.itemsize + self.k * 4

    def encode(self, output: Tensor) -> Bytes:
        """Return uint8 N×size."""
        logits = output.detach().float()
        values, chosen = logits.topk(self.k, dim=1)
        others = logits.scatter(1, chosen, -torch.inf)
        rest = others.logsumexp(1, keepdim=True) - math.log(self.classes - self.k)
        numbers = _rows(_narrow(torch.cat([values, rest], 1), self.kept))
        return np.concatenate([numbers, _rows(chosen.to(torch.int32))], 1)

    def decode(self, rows: Bytes) -> Tensor:
        """Return N×classes."""
        split = (self.k + 1) * self.kept.itemsize
        numbers = torch.from_numpy(np.ascontiguousarray(rows[:, :split])).view(self.kept).to(self.given)
        chosen = torch.from_numpy(np.ascontiguousarray(rows[:, split:])).view(torch.int32).long()
        return numbers[:, -1:].repeat(1, self.classes).scatter(1, chosen, numbers[:, :-1])


@dataclass(frozen=True)
class Recording:
    """A training's access to its teacher's recorded outputs; ``say`` reports."""

    folder: Path
    settings: TeacherCache
    teacher: str
    say: Callable[[str], None]

    def draws(self, epochs: int) -> int:
        """Return the number of draws of augmentation: epoch e takes draw e modulo this number."""
        return min(self.settings.draws or epochs, epochs)


@dataclass(frozen=True)
class TrainingFacts:
    """Facts of a training that decide how much of the teacher is recorded.

    Attributes:
        images: Number of training images.
        epochs: Epochs.
        precision: Such as bf16-mixed.
        trained: Bytes of the trained weights, for which room on the disk is left.
    """

    images: int
    epochs: int
    precision: str
    trained: int


class Recorded:
    """The teacher, asked only about what is not recorded; features that are not kept are always asked for.

    Args:
        recording: Where, and how.
        network: Returns ``(logits, *features)``.
        layers: Names of the features.
        probe: What the network returns for two images.
        training: The training that reads them.

    Raises:
        StorageError: The disk lacks the room that the whole of it will take beside the weights, or cannot be written.
    """

    def __init__(
        self,
        recording: Recording,
        network: nn.Module,
        layers: Sequence[str],
        probe: Sequence[Tensor],
        training: TrainingFacts,
    ) -> None:
        self._network = network
        self._images = images = training.images
        self._say = recording.say
        self._keep, self._damage_told = True, False
        self.read, self.computed = 0, 0
        settings, draws = recording.settings, recording.draws(training.epochs)
        names = ["logits", *(f"layer.{layer}" for layer in layers)]
        self._whole = settings.features or not layers
        if not self._whole:  # the logits are kept all the same, so that the student learns from what is kept of them
            names, probe = names[:1], probe[:1]
        self._codecs = tuple(codec_of(output, settings, first=index == 0) for index, output in enumerate(probe))
        try:
            note(recording.folder, recording.teacher, images, probe[0].shape[-1])
            paths = [
                recording.folder / file_name(name, training.precision, output, codec)
                for name, output, codec in zip(names, probe, self._codecs, strict=True)
            ]
            self._rows = tuple(Rows(path, codec.size) for path, codec in zip(paths, self._codecs, strict=True))
        except OSError as error:
            raise storage_error(error, recording.folder) from error
        total = draws * images
        there = [written(path.with_name(f"{path.name}.sums"), total) for path in paths]
        parts = [_words(output, codec, name) for name, output, codec in zip(names, probe, self._codecs, strict=True)]
        whole = sum(total * (codec.size + SUM_BYTES) for codec in self._codecs)
        missing = sum((total - n) * (codec.size + SUM_BYTES) for n, codec in zip(there, self._codecs, strict=True))
        what = f"teacher cache: {draws:,} draw{'s' * (draws > 1)} × {images:,} images × {' + '.join(parts)}"
        why = "" if any(there) else refused(recording.folder, recording.teacher)
        share = f"{100 * min(there) // total} % there{f' ({why})' if why else ''}"
        self._say(f"  {what} in {settings.dtype}: {amount(whole)}, {share}")
        free = shutil.disk_usage(recording.folder).free
        reserve = 2 * training.trained + RESERVE  # the best weights and the last ones
        if missing and missing + reserve > free:
            raise StorageError(
                f"{what} in {settings.dtype} needs {amount(missing)} more beside {amount(reserve)} for what "
                f"is trained, and {recording.folder} has {amount(free)} free",
                "free some space, lower distill.teacher_cache.draws, set its dtype: float16 or features: false, "
                "or choose another disk with EDGEKD_CACHE",
            )

    def __call__(self, look: Look, draw: int, indices: Tensor) -> tuple[Tensor, ...]:
        """Return the teacher's outputs for a batch: what it takes, the number of its draw, which images (int64, N)."""
        numbers = draw * self._images + indices.cpu().numpy()
        found = [rows.read(numbers) for rows in self._rows]
        live: tuple[Tensor, ...] = ()
        if not self._whole or not all(hits.all() for _, hits in found):
            self._tell_damage()
            self.computed += len(numbers)
            # The whole batch, though some may be there: a smaller batch has other last bits.
            outputs = ask(self._network, look)
            kept, live = outputs[: len(found)], outputs[len(found) :]
            for rows, codec, output, (content, hits) in zip(self._rows, self._codecs, kept, found, strict=True):
                encoded = codec.encode(output)[~hits]
                content[~hits] = encoded
                self._write(rows, numbers[~hits], encoded)
        else:
            self.read += len(numbers)
        decoded = [codec.decode(content).to(indices.device) for codec, (content, _) in zip(self._codecs, found, strict=True)]
        return (*decoded, *live)

    def close(self) -> None:
        """Close the files and say how much was read."""
        for rows in self._rows:
            rows.close()
        damaged = sum(rows.damaged for rows in self._rows)
        self._say(
            f"  teacher cache: {self.read:,} images read, {self.computed:,} computed"
            + (f", {damaged:,} damaged and made again" if damaged else "")
        )

    def _tell_damage(self) -> None:
        if self._damage_told or not any(rows.damaged for rows in self._rows):
            return
        self._damage_told = True
        self._say("  teacher cache: damaged, or cut short; the teacher is asked again where it does not match its checksum")

    def _write(self, rows: Rows, numbers: NDArray[np.int64], encoded: Bytes) -> None:
        if not self._keep:
            return
        try:
            rows.write(numbers, encoded)
        except OSError as error:  # training is worth more than its records
            self._keep = False
            self._say(f"  teacher cache: {error.strerror}; it is not extended, and the teacher computes missing rows")


def codec_of(output: Tensor, settings: TeacherCache, *, first: bool) -> Codec:
    """Choose the codec of an output from the network's outputs for two images; ``first`` are the logits."""
    kept: torch.dtype = getattr(torch, settings.dtype)
    classes = output.shape[1]
    if first and (largest := settings.largest(classes)):
        return TopK(largest, classes, kept, output.dtype)
    shape, strides = tuple(output.shape[1:]), output.stride()[1:]
    order = sorted(range(len(shape)), key=lambda dim: (-strides[dim], shape[dim] == 1))
    return Dense(shape, tuple(order), kept, output.dtype)


def file_name(layer: str, precision: str, output: Tensor, codec: Codec) -> str:
    """Say what decides a row: the layer, the kind of device and the precision it was computed in, and how it is kept.

    The precision is the training's: under autocast an output may be float32 though it was computed from others.
    """
    kept = f"top{codec.k}" if isinstance(codec, TopK) else "all"
    given, stored = (str(dtype).removeprefix("torch.") for dtype in (output.dtype, codec.kept))  # type: ignore[attr-defined]
    return f"{layer}.{output.device.type}.{precision}.{given}.{stored}.{kept}"


def _words(output: Tensor, codec: Codec, name: str) -> str:
    if isinstance(codec, TopK):
        return f"{codec.k} of {codec.classes:,} classes"
    shape = "×".join(str(size) for size in output.shape[1:])
    return f"{shape} classes" if name == "logits" else f"{name.removeprefix('layer.')} {shape}"


def _narrow(values: Tensor, kept: torch.dtype) -> Tensor:
    return (values.clamp(-FLOAT16_MAX, FLOAT16_MAX) if kept == torch.float16 else values).to(kept)


def _rows(values: Tensor) -> Bytes:
    rows: Bytes = values.cpu().contiguous().numpy().view(np.uint8)
    return rows
