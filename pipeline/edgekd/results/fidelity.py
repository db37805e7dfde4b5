"""Records of how close a compressed model is to the float model, each figure with its sample size and interval."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """A measured value.

    Attributes:
        value: The estimate.
        n: Number of test images.
        low: Lower end of its 95 % interval over the images; None where so few images give none.
        high: Upper end.
    """

    value: float
    n: int
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Fidelity:
    """Closeness of a model to the float model that it was made from, on the test images.

    Attributes:
        reference: Name of the float model: ``student`` (as the user gave it) or ``distilled``.
        agreement: Share of images with the same top-1, 0 to 1 (Wilson interval).
        sqnr_db: Variance of the float logits over the images to the mean square of the difference, in dB; more is better.
        expected_drop: What accuracy it is expected to lose, by the float model's own confidence: a share, without labels.
        drop: Top-1 of the float model minus that of this one, paired by image, as a share; None without labels. Where a
            teacher stands in for labels it is a drop of agreement with the teacher.
    """

    reference: str
    agreement: Figure
    sqnr_db: Figure
    expected_drop: Figure
    drop: Figure | None = None
