"""Compare a file's outputs on a device with a reference: the same file on the host, and torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgekd.errors import ExportError
from edgekd.exporting import parity
from edgekd.profiling.inspection import Given
from edgekd.results.findings import Finding
from edgekd.results.models import OutputParity
from edgekd.results.profile import Outputs

P99_STEPS = 2.0
"""Steps of an int8 output that its 99th percentile may be off: two correct programs round to either side."""
FLOAT_ERROR = 1e-3
"""Error of float outputs that is allowed, as a share of their deviation: other kernels sum in another order."""


def compare(
    reference: Literal["host", "torch"],
    expected: Given,
    found: Given,
    steps: Sequence[float | None] = (),
    *,
    classes: bool = True,
) -> Outputs:
    """Compare the outputs of a file with a reference's, for the same inputs.

    Args:
        reference: What ``expected`` is from.
        expected: Outputs, by name; those that the file has not, and the other way round, are not compared.
        found: Of the file on the device.
        steps: One int8 step of each of its outputs, in order; None where it is float.
        classes: Whether a first output of N×k floats is scores of k classes.

    Returns:
        The record, with what of it is more than two correct programs differ by.

    Raises:
        ExportError: They have other shapes, or one has NaN or infinity where the other has a number.

    Example:
        >>> one = Given({"y": np.array([[[0.0, 1.0]]], np.float32)}, {"y": "float32"})
        >>> compare("host", one, one).max_error
        0.0
    """
    names = [name for name in found.arrays if name in expected.arrays]
    if not names:
        raise ExportError(f"the reference has no output that is called {' or '.join(found.arrays)}")
    step_of = dict(zip(found.arrays, steps, strict=False))
    errors, cosines, off = [], [], []
    far: list[Finding] = []
    aligned: dict[str, tuple[NDArray[np.float64], ...]] = {}
    for name in names:
        wanted, got = aligned[name] = _aligned(name, expected.arrays[name], found.arrays[name])
        error = np.abs(wanted - got)
        errors.append(float(error.max(initial=0.0)))
        cosines += [_cosine(*rows) for rows in zip(wanted, got, strict=True)]
        if step := step_of.get(name):
            off.append(parity.whole(error / step).ravel())
        elif (share := error_share(wanted, got)) > FLOAT_ERROR:
            far.append(_far("float_error", output=name, share=share, limit=FLOAT_ERROR))
    lsb = np.concatenate(off) if off else np.zeros(0)
    p99 = float(np.percentile(lsb, 99)) if lsb.size else None
    if p99 is not None and p99 > P99_STEPS:
        far.insert(0, _far("lsb", p99=p99, limit=P99_STEPS))
    scores = None if not classes else _scores(found.arrays[names[0]].dtype, *aligned[names[0]], step=step_of.get(names[0]))
    n = len(found.arrays[names[0]])
    flips = None if scores is None else round((1 - (scores.agreement or 0.0)) * n)
    if flips:
        far.append(_far("flips", flips=flips, of=n))
    return Outputs(
        reference=reference,
        n=n,
        max_error=max(errors),
        cosine=min(cosines),
        agreement=None if scores is None or flips is None else 1 - (flips + scores.ties) / n,
        p99_lsb=p99,
        max_lsb=float(lsb.max()) if lsb.size else None,
        flips=flips,
        differs=tuple(far),
    )


def _far(code: str, **figures: object) -> Finding:
    return Finding(code, "warning", figures=figures)


def varying(first: Given, again: Given) -> tuple[str, ...]:
    """Name the outputs of a model that differ between two runs with the same inputs on the same machine."""
    return tuple(name for name in first.arrays if _differs(*(Given({name: run.arrays[name]}, {}) for run in (first, again))))


def _differs(first: Given, again: Given) -> bool:
    try:
        return bool(compare("host", first, again).differs)
    except ExportError:  # another size, or NaN in one of them
        return True


def fed(outputs: Mapping[str, NDArray[Any]], names: Sequence[str]) -> Given:
    """Return expected outputs as those of a file, which has a batch of one for each feed.

    Args:
        outputs: By name, (N, ...), the primary one first.
        names: Of the file on the device. Its first output is the primary one, also where the runtime there renames it.
    """
    arrays = {name: values[:, None] for name, values in outputs.items()}
    primary = next(iter(arrays))
    if primary not in names:
        arrays = {names[0]: arrays.pop(primary), **arrays}
    return Given(arrays, dict.fromkeys(arrays, "float32"))


def error_share(wanted: NDArray[np.float64], got: NDArray[np.float64]) -> float:
    """Root mean square of the difference over the deviation of the reference's values; 0 where there are none."""
    if not wanted.size:
        return 0.0
    least = 1e-3 * float(np.sqrt(np.square(wanted).mean()))  # of values that are all the same
    size = max(float(wanted.std()), least, float(np.finfo(np.float32).tiny))
    return float(np.sqrt(np.square(wanted - got).mean())) / size


def _scores(
    kind: np.dtype[Any], wanted: NDArray[np.float64], got: NDArray[np.float64], *, step: float | None
) -> OutputParity | None:
    """Agreement of class scores; None where the first output has no classes."""
    if got.ndim != 3 or got.shape[1] != 1 or got.shape[2] < 2 or kind.kind != "f":
        return None
    return parity.compare(wanted[:, 0].astype(np.float32), got[:, 0].astype(np.float32), step)


def _aligned(name: str, wanted: NDArray[np.generic], got: NDArray[np.generic]) -> tuple[NDArray[np.float64], ...]:
    """Both as float64, NaN and infinity, where both have the same, as 0."""
    if wanted.shape != got.shape:
        raise ExportError(f"the output {name} has shape {got.shape[1:]}; in the reference it is {wanted.shape[1:]}")
    a, b = wanted.astype(np.float64), got.astype(np.float64)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    wrong = ~same & ~(np.isfinite(a) & np.isfinite(b))
    if wrong.any():
        rows = int(wrong.reshape(len(wrong), -1).any(axis=1).sum())
        raise ExportError(
            f"the output {name} has NaN or infinity for {rows} of {len(a)} samples where the reference has another value"
        )
    keep = np.isfinite(a)
    return np.where(keep, a, 0.0), np.where(keep, b, 0.0)


def _cosine(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    size = float(np.linalg.norm(a) * np.linalg.norm(b))
    if size == 0:
        return 1.0 if not np.any(a) and not np.any(b) else 0.0
    return min(1.0, float(np.vdot(a, b)) / size)
