"""Open a recipe's source, with the images that are synthesized instead of its own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from edgekd.data.sources.base import Raw, source_of
from edgekd.data.sources.synthetic import synthesized, whole
from edgekd.models.user_file import note_plugin
from edgekd.progress import Progress
from edgekd.recipe.data import Data
from edgekd.task.image_classification import IMAGE


def read(data: Data, progress: Progress, made: Path | None = None) -> Raw:
    """Open a recipe's source.

    Args:
        data: The recipe's section.
        progress: Where to report.
        made: Folder of the synthesized images; blank ones stand for them before they are made.

    Raises:
        DataError: It is missing, empty, truncated or of another form.
    """
    if data.source == "synthetic":
        return whole(data, made)
    source, place = source_of(data)
    note_plugin(type(source))
    raw = source.read(place, data, progress)
    if data.made is not None:
        images = synthesized(data, made)
        raw = replace(raw, train={IMAGE: images}, y_train=np.full(len(images), -1, np.int64))
    return raw
