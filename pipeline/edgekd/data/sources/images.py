"""A folder of images without labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgekd.data import decoding
from edgekd.data.image_folders import IMAGE_SUFFIXES, existing, held_out, image_files
from edgekd.data.sources import summary
from edgekd.data.sources.base import UNLABELLED_TEST, Raw, unlabelled
from edgekd.errors import DataError
from edgekd.progress import Progress
from edgekd.recipe.data import Data
from edgekd.registry import sources


@sources.register("images")
class ImagesAlone:
    """All images of a folder; a fixed fifth of them, ``UNLABELLED_TEST`` at most, is the test split."""

    form = "images:DIR"
    summary = "images without labels"
    labelled = False
    pictures = True
    is_path = True
    opens_libraries = False

    def read(self, place: str, data: Data, progress: Progress) -> Raw:
        """Open the images.

        Raises:
            DataError: There are fewer than three, or some cannot be read.
        """
        paths = image_files(existing(Path(place)))
        if len(paths) < 3:
            least = f"give 3 at least; {', '.join(sorted(IMAGE_SUFFIXES))} are read"
            raise DataError(f"{place} has {len(paths)} images", least)
        test, train = held_out(paths, UNLABELLED_TEST)
        return unlabelled(
            decoding.opened(train, data, "train", progress), decoding.opened(test, data, "test", progress), data
        )

    def files(self, place: str) -> Sequence[tuple[str, Path]]:
        """Return all images."""
        return sorted((path.relative_to(place).as_posix(), path) for path in image_files(existing(Path(place))))

    def described(self, place: str, data: Data, progress: Progress) -> list[str]:
        """Return how many there are, and what of the folder is not read."""
        paths = image_files(existing(Path(place)))
        summary.check_undecoded(data, {"": paths}, progress)
        head = f"data: {data.source}: {len(paths):,} images without labels"
        return [head, *summary.not_read(Path(place), paths), *decoding.dark(paths)]
