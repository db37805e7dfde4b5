"""Image classification: one image in, a logit for each class out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from edgekd.errors import DataError
from edgekd.metrics.agreement import Agreement
from edgekd.metrics.base import Metric
from edgekd.metrics.classification import CrossEntropy, Top1, Top5
from edgekd.recipe.data import Data
from edgekd.recipe.loss import Need
from edgekd.registry import tasks
from edgekd.task.base import BATCH, Port, Purpose, Samples, Signature
from edgekd.task.primary import LOGITS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

KIND = "image-classification"
IMAGE = "image"
"""Name of the input."""


@tasks.register(KIND)
class ImageClassification:
    """Classification of images; cross-entropy with the labels."""

    kind = KIND
    gives: tuple[Need, ...] = ("classes", "images")
    metrics: tuple[Metric, ...] = (Top1(), Top5(), CrossEntropy())
    agreement: Metric = Agreement()

    def signature(self, samples: Samples) -> Signature:
        """Return N×C×H×W → N×classes; the number of classes is open where the samples do not tell it.

        Raises:
            DataError: The samples are no images.
        """
        shape, dtype = samples.inputs.get(IMAGE, ((), ""))
        if len(samples.inputs) != 1 or len(shape) != 3 or dtype != "float32":
            found = ", ".join(f"{name} ({kind} {shape})" for name, (shape, kind) in samples.inputs.items())
            raise DataError(
                f"{KIND} takes images, and a sample here is {found}",
                "images must be uint8, N×H×W (grey) or N×H×W×3; for others write another task",
            )
        image = Port(IMAGE, (BATCH, *shape), kind="image")
        return Signature((image,), (logits_of(len(samples.classes) or None),), LOGITS.name)

    def builder_args(self, samples: Samples) -> Mapping[str, Any]:
        """Return ``num_classes``; nothing where the samples do not tell it."""
        return {"num_classes": len(samples.classes)} if samples.classes else {}

    def stratum(self, targets: NDArray[Any]) -> NDArray[np.int64] | None:
        """Return the labels."""
        return targets

    def criterion(self, primary: Tensor, target: Tensor, smoothing: float) -> Tensor:
        """Return the mean cross-entropy."""
        return cross_entropy(primary, target, smoothing)


def cross_entropy(logits: Tensor, labels: Tensor, smoothing: float, /) -> Tensor:
    """Return the mean cross-entropy of logits (N×classes) with labels (int64, N)."""
    from torch.nn import functional as F

    return F.cross_entropy(logits, labels, label_smoothing=smoothing)


def logits_of(classes: int | None) -> Port:
    """Return the output for so many classes; None: any number."""
    return LOGITS if classes is None else replace(LOGITS, dims=(BATCH, classes))


def samples_of(data: Data, classes: tuple[str, ...] = ()) -> Samples:
    """Return what is known of images as a data section resizes them."""
    return Samples({IMAGE: ((data.channels, *data.size), "float32")}, classes)


def purpose(data: Data, classes: int | None = None) -> Purpose:
    """Return what a classifier of a data section's images is for.

    Args:
        data: Channels and size of the images.
        classes: How many there are; None: not known, any number fits.
    """
    return Purpose(ImageClassification(), samples_of(data, tuple(map(str, range(classes or 0)))))
