"""Folders of images, one a class, of train and test or unsplit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from edgekd.data import decoding, image_folders
from edgekd.data.image_folders import listed
from edgekd.data.sources import summary
from edgekd.data.sources.base import Raw, Targets, numbers
from edgekd.data.splits import stratified
from edgekd.errors import printable
from edgekd.progress import Progress
from edgekd.recipe.data import Data
from edgekd.registry import sources
from edgekd.task.image_classification import IMAGE


@sources.register("imagefolder")
class ImageFolder:
    """A folder with a folder for each class."""

    form = "imagefolder:DIR"
    summary = "train/CLASS/*.png and test/CLASS/*.png, or only CLASS/*.png"
    labelled = True
    pictures = True
    is_path = True
    opens_libraries = False

    def read(self, place: str, data: Data, progress: Progress) -> Raw:
        """Open the images.

        Raises:
            DataError: The folder is not there, has no classes, or images cannot be read.
        """
        found = listed(Path(place))
        own = found.splits.get("val", [])
        (train, y_train), (test, y_test) = (
            (decoding.opened([path for path, _ in files], data, split, progress), numbers(label for _, label in files))
            for split, files in (("train", [*found.splits["train"], *own]), ("test", found.splits["test"]))
        )
        return Raw({IMAGE: train}, y_train, {IMAGE: test}, y_test, found.classes, own_val=len(own))

    def files(self, place: str) -> Sequence[tuple[str, Path]]:
        """Return all images that are read."""
        found = listed(Path(place))
        return sorted((found.name(path), path) for path in found.paths)

    def targets(self, place: str) -> Mapping[str, Targets]:
        """Return labels and names of the files."""
        folder = listed(Path(place))
        both = [*folder.splits["train"], *folder.splits.get("val", [])]
        return {"train": _named(folder, both), "test": _named(folder, folder.splits["test"])}

    def described(self, place: str, data: Data, progress: Progress) -> list[str]:
        """Return what will be read and what not, and which images are in both train and test."""
        found = listed(Path(place))
        files = {split: [path for path, _ in entries] for split, entries in found.splits.items()}
        own = files.pop("val", [])
        train = [*files["train"], *own]
        summary.check_undecoded(data, {"train": train, "test": files["test"]}, progress)
        labels = numbers(label for _, label in found.splits["train"])
        held = len(own) or len(stratified(labels, data.val_fraction)[1])
        same = [f"{one} is {other}" for one, other in image_folders.twins(train, files["test"])]
        return [
            summary.counted(data, found.classes, (len(train) - held, held, len(files["test"]))),
            *found.notes,
            *summary.not_read(Path(place), found.paths),
            *_nested(found),
            *decoding.dark(found.paths),
            *summary.both(same, len(files["test"])),
        ]


def _named(folder: image_folders.Listing, files: list[tuple[Path, int]]) -> Targets:
    names = tuple(PurePosixPath(folder.name(path)).with_suffix("").as_posix() for path, _ in files)
    return Targets(numbers(label for _, label in files), names)


def _nested(found: image_folders.Listing) -> list[str]:
    images = [item for entries in found.splits.values() for item in entries]
    deep = [(path, found.classes[label]) for path, label in images if printable(path.parent.name) != found.classes[label]]
    if not deep:
        return []
    path, name = deep[0]
    return [f"  {len(deep)} images are in folders below a class, and of that class: {path.parent} is {name}"]
