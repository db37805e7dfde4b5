"""The schema of a recipe's data section."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, PositiveFloat

from edgekd.recipe.base import Strict
from edgekd.recipe.source import DataSource, declared
from edgekd.recipe.synthetic import Synthetic

NORMALIZATIONS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "half": ((0.5,), (0.5,)),
    "none": ((0.0,), (1.0,)),
}
"""Usual means and standard deviations of pixels between 0 and 1, by the names that ``--normalize`` takes."""
Side = Annotated[int, Field(ge=8, le=1024)]
ImageSize = Annotated[
    Side | tuple[Side, Side],
    AfterValidator(lambda size: size[0] if isinstance(size, tuple) and size[0] == size[1] else size),
]
"""Height and width of square images, or ``(height, width)``; two equal ones are one."""
Augmentation = Literal["crop", "flip", "rotate", "color", "erase", "trivial"]


class Data(Strict):
    """Images and their labels. The validation split is a part of train; the test split is used once a run."""

    source: Annotated[DataSource, Field(examples=["fashion-mnist-mini"])]
    """fashion-mnist-mini (ships with edgekd), fashion-mnist (Debian package dataset-fashion-mnist), torchvision:NAME
    (such as torchvision:CIFAR100), imagefolder:DIR (train/CLASS/*.png and test/CLASS/*.png, or only CLASS/*.png), npz:FILE
    (x_train, y_train, x_test, y_test); without labels images:DIR (any images), synthetic (none:
    all are made from the teacher), random (noise, to compare files with)."""
    image_size: ImageSize = 32
    """Height and width in pixels that every image is resized to: one number, or [HEIGHT, WIDTH]."""
    channels: Annotated[int, Field(ge=1, le=16)] = 3
    """Channels the models see; grey images are repeated to 3. Others than 1 and 3 need a source of arrays (npz) that has as
    many."""
    classes: Annotated[int, Field(ge=2)] | None = None
    """Number of classes, where the images have no labels that tell it."""
    class_order: Annotated[tuple[str | int, ...], Field(min_length=2)] | None = None
    """Names of the classes in the order in which they are numbered: that of a trained network's outputs. Left out: the
    source's own, which for folders is that of their names."""
    labels: Literal["all", "test", "none"] = "all"
    """Labels that are used. none: the images count as unlabelled, and top-1 is agreement with the teacher. test:
    only those of the test split, so that the report has accuracy beside agreement."""
    synthetic: Annotated[Synthetic | None, BeforeValidator(lambda v: {} if v is True else v)] = None
    """Make the training and validation images from the teacher (DeepInversion): true, or a mapping with its options. The
    source is then used only for the test split; with source: synthetic there is none."""
    mean: tuple[Annotated[float, Field(ge=0.0, le=1.0)], ...] | None = None
    """Subtracted from pixels between 0 and 1, a number a channel or one for all; with `std`, what the given weights were
    trained with. Left out: the mean of the training images (0 for random ones)."""
    std: tuple[PositiveFloat, ...] | None = None
    """Then divided by. Left out: the standard deviation of the training images (1 for random ones)."""
    augment: tuple[Augmentation, ...] = ()
    """Random transforms of the training images: crop (pad 1/8 and crop), flip (left-right), rotate (±10°), color
    (jitter), erase (random erasing), trivial (TrivialAugmentWide)."""
    val_fraction: Annotated[float, Field(gt=0.0, lt=0.9)] = 0.1
    """Share of the training images kept for validation, the same number from each class."""
    root: str | None = None
    """Folder where torchvision keeps its downloads; the user's cache folder when left out."""
    download: bool = True
    """Whether a torchvision data set that is not in `root` may be downloaded."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the images."""
        return self.image_size if isinstance(self.image_size, tuple) else (self.image_size, self.image_size)

    @property
    def made(self) -> Synthetic | None:
        """Settings of synthesized training images; None: there are none."""
        return self.synthetic or (Synthetic() if self.source == "synthetic" else None)

    @property
    def teaches(self) -> bool:
        """True if the training images have labels."""
        return self.has_labels and self.labels == "all" and self.made is None

    @property
    def has_labels(self) -> bool:
        """True if the source has labels, whatever is done with them."""
        return declared(self.source).labelled
