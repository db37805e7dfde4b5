"""Records of how close a compressed model is to the float model, each figure with its sample size and interval."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


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
class WorstValue:
    """The value of a file's outputs that compression has harmed most.

    Attributes:
        output: Name of the output.
        index: Of the value in it, where the output is N×K: a vector of values with a meaning each; None where the whole
            output counts as one.
        sqnr_db: As in :class:`Fidelity`, of this value alone.
        outputs: The least such ratio among the values of each output, in dB.
    """

    output: str
    index: int | None
    sqnr_db: Figure
    outputs: Mapping[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.output if self.index is None else f"{self.output}[{self.index}]"


@dataclass(frozen=True)
class WorstAgreement:
    """The whole-number or truth value of a file's outputs that is least often the float model's.

    Attributes:
        output: Name of the output.
        index: As in :class:`WorstValue`.
        agreement: Share of samples, 0 to 1, on which this value is the float model's, averaged over the values that the
            float model gives.
        outputs: The least such share among the values of each output.
    """

    output: str
    index: int | None
    agreement: Figure
    outputs: Mapping[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.output if self.index is None else f"{self.output}[{self.index}]"


@dataclass(frozen=True)
class LostClasses:
    """Classes that the float model gives and compression never gives again, on the test samples.

    Attributes:
        looked_for: Number of classes that the float model gives often enough to be missed.
        lost: Numbers of those that the compressed model gives on none of these samples.
    """

    looked_for: int
    lost: tuple[int, ...] = ()


@dataclass(frozen=True)
class Fidelity:
    """Closeness of a model to the float model that it was made from, on the test images.

    Attributes:
        reference: Name of the float model: ``student`` (as the user gave it) or ``distilled``.
        sqnr_db: Variance of the float model's primary output over the samples to the mean square of the difference, in dB;
            more is better.
        agreement: Share of samples with the same class, 0 to 1 (Wilson interval); None where the task has no classes.
        expected_drop: What accuracy it is expected to lose, by the float model's own confidence: a share, without labels.
            None where the task has no classes.
        drops: What each metric of the task has lost, paired by sample, by the metric's name: more is worse, a share where
            the metric is one. Empty where nothing is known of the targets. Where a teacher stands in for labels they are
            drops of agreement with the teacher.
        worst: What is harmed most among the float outputs that have no classes; None where there is no such output.
        worst_agreement: What is harmed most among the outputs of integers and truth values; None where there is none.
        lost_classes: What classes it never gives again; None where the task has none, or none has samples enough.
    """

    reference: str
    sqnr_db: Figure
    agreement: Figure | None = None
    expected_drop: Figure | None = None
    drops: Mapping[str, Figure] = field(default_factory=dict)
    worst: WorstValue | None = None
    worst_agreement: WorstAgreement | None = None
    lost_classes: LostClasses | None = None
