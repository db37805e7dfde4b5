"""Parity: the error of a runtime against the reference, on the same inputs."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.errors import ExportError
from edgekd.metrics import fidelity
from edgekd.results.models import OutputParity

TIE_STEPS = 2
"""Int8 steps within which the reference's two best logits are a tie: a rounding to the other side, which two correct
programs may disagree on, moves each of them by one."""
_TIE_ERROR = 1e-4  # of float logits, as a share of their deviation: what float32 sums in another order differ by


def compare(reference: NDArray[Any], output: NDArray[Any], scale: float | None, *, classes: bool = True) -> OutputParity:
    """Compare an output of a runtime with that of the reference.

    Int8 outputs differ by whole steps: 2.0000026 steps, as float32 gives them, are 2. What is no whole number stays as it
    is. Integers and truth values, such as classes and flags, are the same or not: how far two class numbers lie apart says
    nothing.

    Args:
        reference: (N, ...), such as the logits of the int8 graph run by torch.
        output: (N, ...) from the runtime, for the same inputs.
        scale: One int8 step of the output; None where it is float.
        classes: Whether these are logits, (N, classes), of which the greatest is the answer.

    Raises:
        ExportError: Shapes differ, there is nothing to compare, or a value is not finite.

    Example:
        >>> compare(np.array([[0.0, 1.0]], np.float32), np.array([[0.0, 0.5]], np.float32), 0.25).max_lsb
        2.0
    """
    if reference.shape != output.shape or reference.size == 0 or (classes and reference.ndim != 2):
        raise ExportError(
            f"an output of shape {output.shape} cannot be compared with a reference of shape {reference.shape}",
            f"both must be (inputs, {'classes' if classes else '...'}), with at least one input",
        )
    for name, values in (("reference", reference), ("runtime", output)):
        if not np.isfinite(values).all():
            bad = int((~np.isfinite(values)).reshape(len(values), -1).any(axis=1).sum())
            raise ExportError(
                f"the {name} gave NaN or infinity for {bad} of {len(values)} inputs",
                "look for a mask of -inf (write -24.0 in front of a softmax), a division by what int8 rounds to 0, or an "
                "overflow; quantize: {keep_float: [MODULE]} leaves the module that has it in float",
            )
    if scale is not None and not (np.isfinite(scale) and scale > 0):
        raise ExportError(f"one step of the logits cannot be {scale}", "pass the scale of the int8 logits")
    error = np.abs(reference.astype(np.float64) - output.astype(np.float64))
    if not np.issubdtype(reference.dtype, np.floating):
        return OutputParity(float(error.max()), agreement=float(np.mean(reference == output)))
    steps = None if scale is None else whole(error / scale)
    agreement, ties = _agreement(reference, output, scale) if classes else (None, 0)
    return OutputParity(
        max_abs_error=float(error.max()),
        error=fidelity.relative_error(reference, output, classes=classes),
        agreement=agreement,
        ties=ties,
        mean_lsb=None if steps is None else float(steps.mean()),
        p99_lsb=None if steps is None else float(np.percentile(steps, 99)),
        max_lsb=None if steps is None else float(steps.max()),
    )


def _agreement(reference: NDArray[np.float32], output: NDArray[np.float32], scale: float | None) -> tuple[float, int]:
    """Return the share of inputs with the same greatest logit, ties of the reference included, and the number of ties."""
    best, other = reference.argmax(axis=1), output.argmax(axis=1)
    rows = np.arange(len(reference))
    gap = reference[rows, best].astype(np.float64) - reference[rows, other]
    if scale is None:
        ties = gap <= _TIE_ERROR * float(reference.astype(np.float64).std(axis=0).mean())
    else:
        ties = whole(gap / scale) <= TIE_STEPS
    changed = best != other
    return float(np.mean(~changed | ties)), int(np.sum(changed & ties))


def whole(steps: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the whole numbers where float32 has left them by a thousandth at most."""
    whole = np.rint(steps)
    return np.where(np.abs(steps - whole) < 1e-3, whole, steps)
