"""Parity: the error of a runtime against the reference, on the same inputs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgekd.errors import ExportError
from edgekd.metrics import fidelity


@dataclass(frozen=True)
class Parity:
    """Agreement of two sets of logits.

    Attributes:
        top1_agreement: Share of inputs for which both have the same greatest logit, 0 to 1; ties of the reference count as
            the same.
        ties: Number of inputs that count as the same for that reason.
        max_abs_error: Greatest difference of two logits.
        error: Root mean square of the differences over the deviation of the reference's logits.
        max_lsb: Greatest difference in whole steps of the int8 logits; None for float logits, like the next two.
        p99_lsb: 99th percentile of the differences, in steps.
        mean_lsb: Mean of the differences, in steps.
        n: Number of inputs.
    """

    top1_agreement: float
    ties: int
    max_abs_error: float
    error: float
    max_lsb: float | None
    p99_lsb: float | None
    mean_lsb: float | None
    n: int


TIE_STEPS = 2
"""Int8 steps within which the reference's two best logits are a tie: a rounding to the other side, which two correct
programs may disagree on, moves each of them by one."""
_TIE_ERROR = 1e-4  # of float logits, as a share of their deviation: what float32 sums in another order differ by


def compare(reference: NDArray[np.float32], output: NDArray[np.float32], scale: float | None) -> Parity:
    """Compare the logits of a runtime with those of the reference.

    Int8 logits differ by whole steps: 2.0000026 steps, as float32 gives them, are 2. What is no whole number stays as it is.

    Args:
        reference: (N, classes), such as the logits of the int8 graph run by torch.
        output: (N, classes) from the runtime, for the same inputs.
        scale: One int8 step of the logits; None where they are float.

    Raises:
        ExportError: Shapes differ, there is nothing to compare, or a value is not finite.

    Example:
        >>> compare(np.array([[0.0, 1.0]], np.float32), np.array([[0.0, 0.5]], np.float32), 0.25).max_lsb
        2.0
    """
    if reference.shape != output.shape or reference.ndim != 2 or reference.size == 0:
        raise ExportError(
            f"logits of shape {output.shape} cannot be compared with a reference of shape {reference.shape}",
            "both must be (inputs, classes), with at least one input",
        )
    for name, values in (("reference", reference), ("runtime", output)):
        if not np.isfinite(values).all():
            bad = int((~np.isfinite(values)).any(axis=1).sum())
            raise ExportError(
                f"the {name} gave NaN or infinity for {bad} of {len(values)} inputs",
                "look for a mask of -inf (write -24.0 in front of a softmax), a division by what int8 rounds to 0, or an "
                "overflow; quantize: {keep_float: [MODULE]} leaves the module that has it in float",
            )
    if scale is not None and not (np.isfinite(scale) and scale > 0):
        raise ExportError(f"one step of the logits cannot be {scale}", "pass the scale of the int8 logits")
    error = np.abs(reference.astype(np.float64) - output.astype(np.float64))
    steps = None if scale is None else whole(error / scale)
    best, other = reference.argmax(axis=1), output.argmax(axis=1)
    rows = np.arange(len(reference))
    gap = reference[rows, best].astype(np.float64) - reference[rows, other]
    if scale is None:
        ties = gap <= _TIE_ERROR * float(reference.astype(np.float64).std(axis=0).mean())
    else:
        ties = whole(gap / scale) <= TIE_STEPS
    changed = best != other
    return Parity(
        top1_agreement=float(np.mean(~changed | ties)),
        ties=int(np.sum(changed & ties)),
        max_abs_error=float(error.max()),
        error=fidelity.relative_error(reference, output),
        max_lsb=None if steps is None else float(steps.max()),
        p99_lsb=None if steps is None else float(np.percentile(steps, 99)),
        mean_lsb=None if steps is None else float(steps.mean()),
        n=len(reference),
    )


def whole(steps: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the whole numbers where float32 has left them by a thousandth at most."""
    whole = np.rint(steps)
    return np.where(np.abs(steps - whole) < 1e-3, whole, steps)
