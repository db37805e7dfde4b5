"""How far a runtime is from the reference: the same inputs, the two sets of logits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgekd.errors import ExportError


@dataclass(frozen=True)
class Parity:
    """Agreement of two sets of logits.

    Attributes:
        top1_agreement: Share of inputs for which both have the same greatest logit, 0 to 1.
        max_abs_error: Greatest difference of two logits.
        max_lsb: The same in steps of the int8 logits.
        p99_lsb: 99th percentile of the differences, in steps.
        mean_lsb: Mean of the differences, in steps.
        n: Number of inputs.
    """

    top1_agreement: float
    max_abs_error: float
    max_lsb: float
    p99_lsb: float
    mean_lsb: float
    n: int


def compare(reference: NDArray[np.float32], output: NDArray[np.float32], scale: float) -> Parity:
    """Compare the logits of a runtime with those of the reference.

    Args:
        reference: (N, classes), such as the logits of the int8 graph run by torch.
        output: (N, classes) from the runtime, for the same inputs.
        scale: One int8 step of the logits.

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
            rows = int((~np.isfinite(values)).any(axis=1).sum())
            raise ExportError(
                f"the {name} gave NaN or infinity for {rows} of {len(values)} inputs",
                "look for a mask of -inf (write -24.0 in front of a softmax), a division by what int8 rounds to 0, or an "
                "overflow; quantize: {keep_float: [MODULE]} leaves the module that has it in float",
            )
    if not (np.isfinite(scale) and scale > 0):
        raise ExportError(f"one step of the logits cannot be {scale}", "pass the scale of the int8 logits")
    error = np.abs(reference.astype(np.float64) - output.astype(np.float64))
    steps = error / scale
    return Parity(
        top1_agreement=float(np.mean(reference.argmax(axis=1) == output.argmax(axis=1))),
        max_abs_error=float(error.max()),
        max_lsb=float(steps.max()),
        p99_lsb=float(np.percentile(steps, 99)),
        mean_lsb=float(steps.mean()),
        n=len(reference),
    )
