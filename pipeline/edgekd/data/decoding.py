"""From files to pixels: images decoded to uint8 at the recipe's size, and what of them cannot be read."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgekd import reads
from edgekd.errors import DataError
from edgekd.models.torchvision import import_torchvision
from edgekd.progress import Progress, Task, unless_brief
from edgekd.recipe.data import Data

if TYPE_CHECKING:
    from PIL import Image

IN_MEMORY_BYTES = 2**30
BRIEF_S, AGAIN_S = 2.0, 20.0
"""Seconds of decoding from which on a line tells of it: the first time in a process, and after that."""
_DECODED: set[tuple[str, str]] = set()
"""What this process has decoded before: the source and the name of the task."""
_FLOATS = "its pixels are floats, of no known range; save it with 8 or 16 bits"
_WIDE = "its pixels are numbers of 32 bits or with a sign, of no known range; save it with 8 or 16 bits"
_SIXTEEN_BITS = ("PNG", "PPM")
"""Formats of which Pillow gives 16 bits as the mode I; they have no wider pixels."""
_SHOWN = 10  # damaged images that are named
_LOOKED_AT = 64  # images whose brightest pixel is looked at


class Images(Protocol):
    """Samples by number. Images: uint8, C×H×W at the recipe's image size, C as stored."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: Any, /) -> NDArray[np.uint8]: ...


@dataclass(frozen=True)
class Decoded:
    """Images decoded when they are asked for: too many to keep in memory."""

    count: int
    decode: Callable[[int], NDArray[np.uint8]]

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        return self.decode(index)


def opened(paths: Sequence[Path], data: Data, split: str, progress: Progress) -> Images:
    """The images of files.

    Raises:
        DataError: Some cannot be read; now, or, where they are too many to keep, when one is asked for.
    """
    from PIL import Image

    def open_image(index: int) -> Image.Image:
        path = paths[index]
        try:
            with reads.in_key(path), Image.open(path) as image:
                image.load()
                _check_range(image.mode, image.format)
                return image
        except Exception as error:  # PIL raises many kinds for a damaged file
            raise _unreadable(path, error) from error

    return kept_in_memory(len(paths), open_image, data, split, progress)


def kept_in_memory(
    count: int, open_image: Callable[[int], Image.Image], data: Data, split: str, progress: Progress
) -> Images:
    """Decode once if the whole split fits in IN_MEMORY_BYTES, else when asked.

    Raises:
        DataError: With all images that cannot be read.
    """
    decode = _decoder(data, open_image)
    if not count or on_demand(count, data):
        return Decoded(count, decode)
    images = np.empty((count, data.channels, *data.size), np.uint8)
    failures: list[DataError] = []
    with _told(f"decoding {split} images", count, data, progress) as task:
        for index in range(count):
            try:
                images[index] = decode(index)
            except DataError as error:
                failures.append(error)
            task.advance()
    _refuse(failures, split)
    return images


def _told(name: str, count: int, data: Data, progress: Progress) -> AbstractContextManager[Task]:
    """Open a task. Every stage decodes the same images again: what was told once is told again only where it is long."""
    key = (data.source, name)
    again = key in _DECODED
    _DECODED.add(key)
    return unless_brief(progress, name, count, AGAIN_S if again else BRIEF_S)


def on_demand(count: int, data: Data) -> bool:
    """Return whether a split of so many images is decoded image by image when they are used: it is too large to keep."""
    return count * data.channels * math.prod(data.size) > IN_MEMORY_BYTES


def check_undecoded(paths: Sequence[Path], split: str, progress: Progress) -> None:
    """Look at the head and the end of images that are decoded later, so that damaged ones do not end a training.

    Raises:
        DataError: With all of them.
    """
    failures = []
    with unless_brief(progress, f"looking through {split} images", len(paths), BRIEF_S) as task:
        for path in paths:
            try:
                _look_at(path)
            except Exception as error:  # PIL raises many kinds for a damaged file
                failures.append(_unreadable(path, error))
            task.advance()
    _refuse(failures, split)


def dark(paths: Sequence[Path]) -> list[str]:
    """Warn of 16-bit images that use less than an eighth of their range, such as those of a 12-bit camera: nearly black.

    Looks at a few of them. What cannot be read is told when it is decoded.
    """
    highest = list(_brightest(paths[:: max(1, len(paths) // _LOOKED_AT)]))
    if not highest or max(highest) >= 2**13:
        return []
    return [
        f"  warning: no pixel of the {len(highest)} 16-bit images that were looked at is above {max(highest):,} of 65,535, "
        f"which is read as {max(highest) >> 8} of 255: they are nearly black\n"
        "    → scale them to the whole range of 16 bits, or save them with 8"
    ]


def grey(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The luma (ITU-R BT.601) of uint8 N×3×H×W, N×1×H×W: what Pillow makes of colour images."""
    weights = np.array([19595, 38470, 7471], np.uint32)
    parts = [
        np.tensordot(weights, part.astype(np.uint32), (0, 1)) for part in np.array_split(images, len(images) // 4096 + 1)
    ]
    return ((np.concatenate(parts) + 0x8000) >> 16).astype(np.uint8)[:, None]


def resized(images: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Return N×C×H×W at another height and width."""
    if images.shape[2:] == size:
        return np.ascontiguousarray(images)
    import torch

    resize = import_torchvision().transforms.v2.functional.resize
    parts = [resize(torch.from_numpy(part.copy()), list(size)) for part in np.array_split(images, len(images) // 4096 + 1)]
    return np.ascontiguousarray(torch.cat(parts).numpy())


def _decoder(data: Data, open_image: Callable[[int], Image.Image]) -> Callable[[int], NDArray[np.uint8]]:
    def decode(index: int) -> NDArray[np.uint8]:
        pixels = np.asarray(_eight_bit(open_image(index)).convert("L" if data.channels == 1 else "RGB"))
        image: NDArray[np.uint8] = resized(np.atleast_3d(pixels).transpose(2, 0, 1)[None], data.size)[0]
        return image

    return decode


def _eight_bit(image: Image.Image) -> Image.Image:
    """Prepare an image for ``convert``, which clips 16-bit pixels to white and warns of a palette with transparency."""
    if _is_wide(image.mode):
        from PIL import Image

        return Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))
    return image.convert("RGBA") if image.mode == "P" and "transparency" in image.info else image


def _is_wide(mode: str) -> bool:
    """Return whether the pixels of a mode of Pillow have more than 8 bits."""
    return mode == "I" or mode.startswith("I;16")


def _check_range(mode: str, kind: str | None) -> None:
    """See that it is known which number is white: what is guessed would make images black.

    Raises:
        ValueError: It is not.
    """
    if mode == "F":
        raise ValueError(_FLOATS)
    if mode == "I" and kind not in _SIXTEEN_BITS:
        raise ValueError(_WIDE)


def _brightest(paths: Sequence[Path]) -> Iterator[int]:
    """The highest pixel of each 16-bit image."""
    from PIL import Image

    for path in paths:
        try:
            with reads.in_key(path), Image.open(path) as image:
                if _is_wide(image.mode):
                    yield int(np.asarray(image).max())
        except Exception:  # PIL raises many kinds for a damaged file
            continue


def _look_at(path: Path) -> None:
    from PIL import Image

    with reads.in_key(path):
        with Image.open(path) as image:
            kind, mode = image.format, image.mode
            image.verify()
        _check_range(mode, kind)
        if kind == "JPEG":  # of which verify reads the head alone
            with path.open("rb") as file:
                file.seek(max(0, path.stat().st_size - 2**16))
                if b"\xff\xd9" not in file.read():
                    raise ValueError("its end is missing")
        elif kind not in ("PNG", "WEBP"):
            with Image.open(path) as image:
                image.load()


def _unreadable(path: Path, error: Exception) -> DataError:
    return DataError(f"{path} is not a readable image: {error}", "replace it or remove it")


def _refuse(failures: Sequence[DataError], split: str) -> None:
    """Raise what was found, all at once."""
    if len(failures) == 1:
        raise failures[0]
    if failures:
        lines = [error.message for error in failures[:_SHOWN]]
        lines += [f"and {len(failures) - _SHOWN} more"] if len(failures) > _SHOWN else []
        raise DataError("\n  ".join([f"{len(failures)} {split} images cannot be read:", *lines]), failures[0].hint)
