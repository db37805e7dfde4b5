"""The schema of what a teacher sees of the samples that its student sees in another way."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, PositiveFloat

from edgekd.recipe.base import Strict
from edgekd.recipe.data import Data, ImageSize
from edgekd.recipe.source import DataSource


class View(Strict):
    """A teacher's view of the same samples, in the same order; keys that are left out are those of its student."""

    source: Annotated[DataSource, Field(examples=["npz:rgb.npz"])] | None = None
    """Other images of the same samples, with the same labels in the same order (imagefolder: with the same names)."""
    image_size: ImageSize | None = None
    """Height and width in pixels that every image is resized to: one number, or [HEIGHT, WIDTH]."""
    channels: Annotated[int, Field(ge=1, le=16)] | None = None
    """Channels the teacher sees."""
    mean: tuple[Annotated[float, Field(ge=0.0, le=1.0)], ...] | None = None
    """Subtracted from pixels between 0 and 1, with `std`. Left out: the student's, or, with another source or other
    channels, the mean of these training images."""
    std: tuple[PositiveFloat, ...] | None = None
    """Then divided by."""

    def of(self, data: Data) -> Data:
        """Return the data section of who sees this where its student sees ``data``."""
        given = {key: value for key in View.model_fields if (value := getattr(self, key)) is not None}
        if any(key in given and given[key] != getattr(data, key) for key in ("source", "channels")):
            given = {"mean": None, "std": None} | given
        return data.model_copy(update=given)
