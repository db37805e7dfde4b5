"""Advice on the choice of the teacher, from sizes and accuracies. Never an error."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgekd.results.findings import Finding
from edgekd.results.models import MetricFacts

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LEAST_SHARE = 0.25
"""Share of the teacher's parameters below which an assistant is worth a try."""

FLAT, SHARP = 0.95, 0.05
"""Shares of the largest entropy, log(classes), from which on a teacher's softened probabilities say too little.

FLAT: to second order the share is ``1 - Var(z / T) / (2 · log(classes))``, so that beyond it the exponentials are all but
linear, and what is compared are the logits themselves (Hinton et al. 2015, §2.1). Measured with the teacher that ships with
edgekd: at 0.94 the gradient of `kd` has a cosine of 0.94 with that of `mse_logits`, at 0.56 (T = 4) one of 0.75. SHARP: the
entropy is what a target says beyond the name of its class. With ten classes that is 0.17 bits here, and 96 % of the
probability are on one class.
"""


def gap(student: int, teacher: int | None, key: str = "teacher") -> tuple[Finding, ...]:
    """Advise an assistant where the student is much smaller than its teacher.

    Mirzadeh et al. 2020 (Improved Knowledge Distillation via Teacher Assistant): a larger teacher can teach a small
    student worse, and a network of a size in between, taught first, better.

    Args:
        student: Number of the student's parameters.
        teacher: Number of its teacher's parameters, where it is known.
        key: Where the teacher is in the recipe.
    """
    if teacher is None or student >= LEAST_SHARE * teacher:
        return ()
    return (Finding("small_student", "advice", key, {"share": student / teacher, "least": LEAST_SHARE}),)


def weak(teacher: float, alone: float, metric: MetricFacts) -> tuple[Finding, ...]:
    """Return that a teacher is worse than the network that it teaches is without it.

    Args:
        teacher: The metric of the teacher on validation.
        alone: The same of the student with hard labels alone.
        metric: The task's first.
    """
    if metric.gain(teacher, alone) >= 0:
        return ()
    return (Finding("weak_teacher", "advice", "teacher", {"metric": metric.name, "teacher": teacher, "alone": alone}),)


def entropy(logits: NDArray[np.float32], temperature: float, standardize: bool = False) -> float:
    """Mean entropy of softmax(logits / T), as a share of the largest, log(classes): 0 is one-hot, 1 is uniform.

    Args:
        logits: N×classes.
        temperature: T.
        standardize: Whether the logits become Z-scores first (Sun et al. 2024).
    """
    import numpy as np

    z = logits.astype(np.float64)
    if standardize:
        deviation = z.std(axis=1, keepdims=True)
        z = (z - z.mean(axis=1, keepdims=True)) / np.where(deviation > 0, deviation, 1)
    z = z / temperature
    z = z - z.max(axis=1, keepdims=True)
    log_p = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
    return float(-(np.exp(log_p) * log_p).sum(axis=1).mean() / np.log(z.shape[1]))


@dataclass(frozen=True)
class Softness:
    """Mean entropy of a teacher's probabilities at a loss's temperature, as :func:`entropy` has it; ``term`` is its name."""

    term: str
    temperature: float
    entropy: float


def softness(terms: Iterable[Softness]) -> tuple[Finding, ...]:
    """Return the temperatures at which the teacher's probabilities are nearly uniform, or next to one-hot.

    Args:
        terms: Of each loss with a temperature.
    """
    found = []
    for term in terms:
        code = "flat_temperature" if term.entropy >= FLAT else "sharp_temperature" if term.entropy <= SHARP else ""
        if code:
            figures = {"temperature": term.temperature, "entropy": term.entropy}
            found.append(Finding(code, "advice", term.term, figures))
    return tuple(found)
