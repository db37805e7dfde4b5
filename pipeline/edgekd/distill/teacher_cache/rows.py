"""Recorded teacher outputs for each image of each draw: rows of bytes on disk, each with its checksum. Needs no torch.

Plain reads and writes at an offset, not a memory map: a file that was cut short is then a miss and a full disk an error,
where a map would end the process; and the pages are the system's, not this process's memory.
"""

from __future__ import annotations

import json
import os
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd import cache
from edgekd.recipe.distill import TeacherCache

VERSION = 1  # of the files, and of how augmentation follows from (seed, draw, index)
SUM_BYTES = 4
_ABOUT = "about.json"


def folder(teacher: str, seed: int, batch_size: int) -> Path:
    """Return the folder of a teacher's records.

    What decides a teacher's outputs: its weights, its stage's key (model and arguments, the data with its augmentation, size
    and normalization, package versions), the seed of the draws, and the batch size, which may decide the last bit of a sum.
    Neither the student nor the losses do, so all of them share the records.
    """
    material = {"version": VERSION, "teacher": teacher, "seed": seed, "batch_size": batch_size}
    return cache.root() / "teachers" / cache.key_of(material)


class Rows:
    """Rows of one size in ``NAME.rows`` with their checksums in ``NAME.sums``; several processes may use them at a time.

    A row that was never written, or whose bytes do not match its checksum, is absent. Its number is part of the checksum.

    Args:
        path: The files' path without their suffix.
        size: Bytes of a row.

    Raises:
        OSError: The files cannot be opened.
    """

    def __init__(self, path: Path, size: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.size = size
        self.damaged = 0
        self._rows, self._sums = (
            os.open(path.with_name(path.name + suffix), os.O_RDWR | os.O_CREAT, 0o666) for suffix in (".rows", ".sums")
        )

    def close(self) -> None:
        """Close the files."""
        os.close(self._rows)
        os.close(self._sums)

    def read(self, numbers: NDArray[np.int64]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Return (uint8 N×size, whether each row is there); ``damaged`` counts those that do not match their checksum."""
        content, found = np.zeros((len(numbers), self.size), np.uint8), np.zeros(len(numbers), np.bool_)
        for index, number in enumerate(numbers.tolist()):
            kept = int.from_bytes(os.pread(self._sums, SUM_BYTES, number * SUM_BYTES), "little")
            if kept:
                row = content[index].data
                found[index] = os.preadv(self._rows, [row], number * self.size) == self.size and _sum(row, number) == kept
                self.damaged += not found[index]
        return content, found

    def write(self, numbers: NDArray[np.int64], content: NDArray[np.uint8]) -> None:
        """Keep rows, uint8 N×size.

        Raises:
            OSError: The disk is full.
        """
        for number, row in zip(numbers.tolist(), content, strict=True):
            # The checksum last: a process that is ended in between leaves a row that is absent.
            _write(self._rows, row.data, number * self.size)
            _write(self._sums, _sum(row.data, number).to_bytes(SUM_BYTES, "little"), number * SUM_BYTES)


def _sum(row: Any, number: int) -> int:
    return zlib.crc32(row, number & 0xFFFFFFFF) or 1  # 0 is a row that was never written


def _write(file: int, content: Any, offset: int) -> None:
    view = memoryview(content)
    while view:
        done = os.pwrite(file, view, offset)
        view, offset = view[done:], offset + done


def written(path: Path, stop: int) -> int:
    """Count the rows below number ``stop`` that were written, by the ``.sums`` file alone; 0 where there is none."""
    count = 0
    try:
        with path.open("rb") as file:
            while stop > 0 and len(sums := np.fromfile(file, np.uint32, min(stop, 1 << 20))):
                count, stop = count + int(np.count_nonzero(sums)), stop - len(sums)
    except FileNotFoundError:
        pass
    return count


def note(place: Path, teacher: str, images: int, classes: int) -> None:
    """Write down whose records these are, for whoever looks into the folder, and for :func:`describe`."""
    place.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"teacher": teacher, "images": images, "classes": classes}) + "\n"
    made = place / f".{_ABOUT}.{os.getpid()}"
    made.write_text(text, encoding="utf-8")
    made.replace(place / _ABOUT)


def refused(place: Path, teacher: str) -> str:
    """Say that there are records of a teacher of this name beside ``place``, and why they are not read; empty if not."""
    count = 0
    for about in place.parent.glob(f"*/{_ABOUT}"):
        try:
            count += about.parent != place and json.loads(about.read_text(encoding="utf-8"))["teacher"] == teacher
        except (OSError, ValueError, KeyError, TypeError):
            continue
    if not count:
        return ""
    what = f"{count} other cache{'s' * (count > 1)} of {teacher}"
    return f"{what} not read: other weights, images, augmentation, seed or batch size"


def describe(place: Path, draws: int, settings: TeacherCache, precision: str, teacher: str) -> str:
    """Say how much of ``draws`` passes is recorded, layer by layer, and how much room it takes.

    Where the precision of the training is auto, that of all precisions; not float32 is said. Of an empty one, whether there
    are records of a teacher of that name that are not used.
    """
    try:
        about = json.loads((place / _ABOUT).read_text(encoding="utf-8"))
        images, largest = int(about["images"]), settings.largest(int(about["classes"]))
        parts, taken = [], 0
        for sums in sorted(place.glob(f"*.{settings.dtype}.*.sums")):
            layer, _, computed, _, _, kept = sums.stem.rsplit(".", 5)
            if precision not in ("auto", computed):
                continue
            if layer == "logits" and kept != (f"top{largest}" if largest else "all"):
                continue
            share = 100 * written(sums, draws * images) // (draws * images)
            among = "" if computed == "32-true" else f" in {computed}"
            parts.append(f"{layer.removeprefix('layer.')} {share} %{among}")
            taken += sum(file.stat().st_blocks * 512 for file in (sums, sums.with_suffix(".rows")))
    except (OSError, ValueError, KeyError, TypeError, ZeroDivisionError):
        parts = []
    if parts:
        return f"{', '.join(parts)} of {draws} draw{'s' * (draws > 1)}, {amount(taken)}"
    why = refused(place, teacher)
    return f"empty, filled while it trains{f' ({why})' if why else ''}"


def amount(size: float) -> str:
    """Bytes in words, such as 540 kB or 3.4 GB."""
    unit, scale = next(((unit, scale) for unit, scale in (("GB", 1e9), ("MB", 1e6)) if size >= scale), ("kB", 1e3))
    value = size / scale
    return f"{value:.1f} {unit}" if value < 10 else f"{value:,.0f} {unit}"
