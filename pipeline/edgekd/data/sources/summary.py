"""Lines that say what is read of a source, and what is not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from edgekd.data import decoding, image_folders
from edgekd.progress import Progress
from edgekd.recipe.data import Data


def counted(data: Data, classes: Sequence[str], counts: tuple[int, int, int], word: str = "image") -> str:
    """Return the line with the classes and the number of samples of the three splits; ``word`` is what one is."""
    classes = [str(name) for name in data.class_order or classes]
    names = f"{', '.join(classes[:6])}{', …' if len(classes) > 6 else ''}"
    train, val, test = (f"{count:,}" for count in counts)
    images = f"{train} {word}s for training, {val} for validation, {test} for the test"
    if not classes:
        return f"data: {data.source}: {images}"
    return f"data: {data.source}: {len(classes)} classes ({names}); {images}"


def not_read(root: Path, read: Sequence[Path]) -> list[str]:
    """Return what of a folder is not read, if anything."""
    found = image_folders.not_read(root, {*read})
    return [f"  not read: {', '.join(found)}"] if found else []


def both(same: Sequence[str], count: int, word: str = "image") -> list[str]:
    """Return a warning of test samples that are training samples too."""
    if not same:
        return []
    return [
        f"  warning: {len(same)} of {count} test {word}s are training {word}s too ({same[0]}): "
        "right on them proves nothing\n"
        "    → take them out of one of the two"
    ]


def check_undecoded(data: Data, files: Mapping[str, Sequence[Path]], progress: Progress) -> None:
    """Look through the splits that are decoded while they are used; of the others, decoding finds what is damaged."""
    for split, paths in files.items():
        if decoding.on_demand(len(paths), data):
            decoding.check_undecoded(paths, split or data.source, progress)
