"""The schema of images that are synthesized from a network."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from edgekd.recipe.base import Strict


class Synthetic(Strict):
    """Images made from what the teacher's batch norms remember of its training images: DeepInversion (Yin et al. 2020).

    Noise is optimized until the teacher finds the wanted class in it, and the inputs of its batch norms have the mean and
    variance that they had in training. The defaults are those of the authors' code for CIFAR-10, but for ``steps`` (2,000
    there) and ``bn`` (100 there, which with few steps leaves nothing for the classes).
    """

    images: Annotated[int, Field(ge=16)] = 2048
    """Images to make, the same number of each class; the validation split is taken from them."""
    steps: PositiveInt = 500
    """Steps of optimization of each batch: the cost is images × steps passes through the teacher, forth and back."""
    batch_size: Annotated[int, Field(ge=8)] = 256
    """Images optimized together, whose statistics are compared with the batch norms': many are better."""
    lr: PositiveFloat = 0.1
    """Learning rate of Adam, on normalized pixels."""
    bn: NonNegativeFloat = 0.1
    """α_f, weight of the batch norms' statistics. The progress shows both losses: where the classes' does not fall,
    this is too large."""
    tv: NonNegativeFloat = 2.5e-5
    """α_tv, weight of the total variation: more is smoother."""
    l2: NonNegativeFloat = 0.0
    """α_l2, weight of the images' norm."""
    label: NonNegativeFloat = 1.0
    """Weight of the cross-entropy with the wanted classes."""
    jitter: NonNegativeInt = 2
    """Pixels that the images are shifted by at random in each step, at most."""
    flip: bool = False
    """Whether all images are mirrored at random in each step: for a teacher that was trained with flips."""
    grey: bool = False
    """One channel, repeated to `data.channels`: for a teacher of grey images."""
