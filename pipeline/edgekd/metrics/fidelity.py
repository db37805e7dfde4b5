"""Closeness of a compressed model's logits to the float model's: agreement, signal to noise, accuracy drop.

Parity (:mod:`~edgekd.exporting.parity`) asks whether a file computes what the int8 graph computes. It is blind to a graph
with a bad scale; this module compares with the float model instead.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd import statistics
from edgekd.results.fidelity import Fidelity, Figure, LostClasses, WorstAgreement, WorstValue
from edgekd.results.layers import EXACT_DB

Array = NDArray[np.float32]
Values = NDArray[Any]
"""Of an output of any type."""

_ROUNDING = 2e-6
"""What float32 makes of a value by rounding, as a share of it: some 16 times the spacing of its numbers. An output that
deviates by less over the samples is the same for all, and says nothing about any."""
_CONSTANT = 1e-3
"""The error of such an output is held against this share of its root mean square. So is the error of any output in
:func:`relative_error`: a hundredth of it, which two programs may differ by, is what sums in another order differ by."""
_RARE = 10
"""Samples below which a value of an output of integers counts less in :func:`same`: one sample is no class."""
_FEW = 5
"""Samples of a class from which on :func:`lost_classes` looks for it."""
_SURE = 0.5
"""The mean probability that has to be lost on the samples of a class in :func:`lost_classes`: float was sure of them."""


def compare(
    name: str, reference: Array, output: Array, drops: Mapping[str, Figure] | None = None, *, classes: bool = True
) -> Fidelity:
    """Compare the primary output with that of the float model.

    Args:
        name: Of the float model.
        reference: Its output, (N, ...); logits (N, classes) where the task has classes.
        output: That of the compressed model for the same samples.
        drops: What each metric of the task has lost; None where nothing is known of the targets.
        classes: Whether the task has classes.
    """
    known = drops or {}
    if not classes:
        return Fidelity(name, sqnr(reference, output, classes=False), drops=known)
    n = len(reference)
    share = float((output.argmax(axis=1) == reference.argmax(axis=1)).mean())
    agreement = Figure(share, n, *statistics.wilson(share, n))
    return Fidelity(
        name, sqnr(reference, output), agreement, expected_drop(reference, output), known,
        lost_classes=lost_classes(reference, output),
    )  # fmt: skip


def sqnr(reference: Array, output: Array, *, classes: bool = True) -> Figure:
    """Return the signal-to-noise ratio of an output in dB, at most ``EXACT_DB``, with its 95 % interval over the samples.

    Signal is the variance of the reference over the samples, noise the mean square of the difference. Both are of centred
    logits, less their mean over the classes: a class is chosen by differences of logits, and what all logits of a sample
    share, or one has in all samples, says nothing about it.

    Args:
        reference: (N, ...).
        output: (N, ...), of the same samples.
        classes: Whether these are logits of classes; other outputs are not centred.
    """
    n = len(reference)
    signal, noise = powers(reference, output, classes=classes)
    total, error = float(signal.sum()), float(noise.sum())
    if not math.isfinite(total + error):  # NaN or infinity in either says nothing, and is no pass
        return Figure(-EXACT_DB, n, *((-EXACT_DB, -EXACT_DB) if n > 1 else ()))
    if error == 0:
        return Figure(EXACT_DB, n, *((EXACT_DB, EXACT_DB) if n > 1 else ()))
    value = 10 * math.log10(total / error) if total else -EXACT_DB
    interval = statistics.decibel_interval(signal.tolist(), noise.tolist()) or (None, None)
    low, high = (None if end is None else capped(end) for end in interval)
    return Figure(capped(value), n, low, high)


def worst(reference: Mapping[str, Array], output: Mapping[str, Array]) -> WorstValue | None:
    """Return the value of all float outputs with the least signal-to-noise ratio.

    An output N×K is K values with a meaning each, such as the sides of a box: int8 has one step for all of them, and a value
    that is smaller than the step is lost while the ratio of the whole output stays high; so is one with further dimensions
    of 1. Other outputs, such as maps, count as one value; integers are the matter of :func:`worst_agreement`.

    Args:
        reference: Outputs of the float model, each (N, ...), without those that are logits of classes.
        output: Those of the compressed model for the same samples.
    """
    reference, output = _vectors(reference), _vectors(output)
    found: list[tuple[float, str, int | None]] = []
    for name, exact in reference.items():
        if not np.issubdtype(exact.dtype, np.floating):
            continue
        if exact.ndim == 2 and exact.shape[1] > 1:
            found += [(_ratio(exact[:, k], output[name][:, k]), name, k) for k in range(exact.shape[1])]
        else:
            found.append((_ratio(exact, output[name]), name, None))
    if not found:
        return None
    _, name, index = min(found, key=lambda item: item[0])
    parts = (values[name] if index is None else values[name][:, index : index + 1] for values in (reference, output))
    least = {name: min(ratio for ratio, of, _ in found if of == name) for _, name, _ in found}
    decibels = {name: capped(10 * math.log10(ratio) if ratio > 0 else -math.inf) for name, ratio in least.items()}
    return WorstValue(name, index, sqnr(*parts, classes=False), decibels)


def worst_agreement(reference: Mapping[str, Values], output: Mapping[str, Values]) -> WorstAgreement | None:
    """Return the value of all outputs of integers and truth values that is least often the float model's.

    Such outputs are classes, flags, or indices that the network takes from its own float values. An output N×K is K values,
    as in :func:`worst`.

    Args:
        reference: Outputs of the float model, each (N, ...).
        output: Those of the compressed model for the same samples.
    """
    reference, output = _vectors(reference), _vectors(output)
    found: list[WorstAgreement] = []
    for name, exact in reference.items():
        if np.issubdtype(exact.dtype, np.floating):
            continue
        found += (
            [WorstAgreement(name, index, same(exact[:, part], output[name][:, part])) for index, part in _parts(exact)]
            if exact.ndim > 1
            else [WorstAgreement(name, None, same(exact, output[name]))]
        )
    if not found:
        return None
    least = {item.output: min(one.agreement.value for one in found if one.output == item.output) for item in found}
    return replace(min(found, key=lambda item: item.agreement.value), outputs=least)


def _vectors(outputs: Mapping[str, Values]) -> dict[str, Values]:
    """Return outputs (N, ...), those with one dimension of several values as (N, K)."""
    long = {
        name: values.ndim > 2 and max(values.shape[1:]) == math.prod(values.shape[1:]) for name, values in outputs.items()
    }
    return {
        name: values.reshape(len(values), max(values.shape[1:])) if long[name] else values
        for name, values in outputs.items()
    }


def _parts(exact: Values) -> Iterator[tuple[int | None, slice]]:
    """Yield the parts of an output (N, ...) that count as a value each."""
    if exact.ndim == 2 and exact.shape[1] > 1:
        yield from ((index, slice(index, index + 1)) for index in range(exact.shape[1]))
    else:
        yield None, slice(None)


def same(reference: Values, output: Values) -> Figure:
    """Return the share of samples on which a whole number or a truth value is the float model's, with its 95 % interval.

    The share is averaged over the values that the float model gives (the balanced accuracy of the output, with the float
    model's for the truth): a flag that is rarely true, and that int8 never sets, is the same on most samples by chance. So
    is a mask of small objects, on most of its positions. A value that fewer than ``_RARE`` samples have has less weight.

    Args:
        reference: (N, ...); all positions of a sample count.
        output: (N, ...), of the same samples.
    """
    n = len(reference)
    if not reference.size:
        return Figure(1.0, n)
    _, which, counts = np.unique(reference.reshape(-1), return_inverse=True, return_counts=True)
    samples = np.zeros(len(counts))
    for one in which.reshape(n, -1):
        samples[np.unique(one)] += 1
    weights = (np.minimum(1.0, samples / _RARE) / counts)[which]
    weights /= weights.sum()
    share = min(1.0, float(weights[output.reshape(-1) == reference.reshape(-1)].sum()))
    share = 1.0 if 1 - share < 1e-9 else share
    # Kish's effective sample size; positions of one sample are not independent.
    effective = min(n, max(1, round(1 / float(np.square(weights).sum()))))
    return Figure(share, n, *statistics.wilson(share, effective))


def _ratio(reference: Array, output: Array) -> float:
    signal, noise = (float(part.sum()) for part in powers(reference, output, classes=False))
    if not math.isfinite(signal + noise):
        return -math.inf
    return signal / noise if noise else math.inf


def powers(reference: Array, output: Array, *, classes: bool = True) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the power of the signal and that of the noise in each sample, (N,) each; both as in :func:`sqnr`."""
    n = len(reference)
    noise = (output.astype(np.float64) - reference).reshape(n, -1)
    exact = reference.reshape(n, -1).astype(np.float64)
    signal, size = _signal(exact, classes=classes), float(np.square(exact).mean())
    if signal.mean() < _ROUNDING**2 * size:
        signal = np.full(n, _CONSTANT**2 * size)
    return signal, _power(_centred(noise) if classes else noise)


def expected_drop(reference: Array, output: Array) -> Figure:
    """Return the accuracy that the compressed model is expected to lose, without labels, with its 95 % t-interval.

    The float model's softmax p is taken for the probability of each class: an image counts p(the float model's class) -
    p(the other model's class). That is almost 0 where the float model wavers between both, and almost 1 where it was sure.
    Logits that were not trained with a softmax (cosines, say) give nearly equal probabilities, which would hide a loss, so p
    is sharpened by a temperature until the mean confidence is at least ``CONFIDENCE``.

    Args:
        reference: Logits of the float model, (N, classes).
        output: Logits of the compressed model, (N, classes), of the same images.
    """
    lost = expected_losses(reference, output)
    values = lost.tolist()
    interval = statistics.mean_interval(values)
    if interval is not None and not lost.any():  # none of n images: the rule of three
        interval = (0.0, min(1.0, 3 / len(values)))
    return Figure(float(lost.mean()), len(values), *(interval or ()))


def expected_losses(reference: Array, output: Array) -> NDArray[np.float64]:
    """Return what each sample adds to :func:`expected_drop`, (N,)."""
    p = _probabilities(reference.astype(np.float64))
    rows = np.arange(len(p))
    lost: NDArray[np.float64] = p[rows, reference.argmax(axis=1)] - p[rows, output.argmax(axis=1)]
    return lost


CONFIDENCE = 0.75
"""The least mean confidence of the float model that :func:`expected_drop` reckons with."""


def _probabilities(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Softmax, (N, classes), at temperature 1, or at the lower one at which the mean of the greatest is ``CONFIDENCE``."""
    shifted = logits - logits.max(axis=1, keepdims=True)

    def softmax(sharpness: float) -> NDArray[np.float64]:
        powers = np.exp(shifted * sharpness)
        found: NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
        return found

    low, high = 1.0, 1.0
    while softmax(high).max(axis=1).mean() < CONFIDENCE and high < 2**40:  # all logits of an image may be equal
        low, high = high, 2 * high
    for _ in range(50 if high > low else 0):
        middle = (low + high) / 2
        low, high = (middle, high) if softmax(middle).max(axis=1).mean() < CONFIDENCE else (low, middle)
    return softmax(high)


def lost_classes(reference: Array, output: Array) -> LostClasses | None:
    """Return the classes that the float model gives and the compressed model never gives on the same samples.

    Such a class hides behind a top-1 that hardly falls: of 1,000 parts 5 are defect. Only classes of ``_FEW`` samples or
    more are looked for, and a class is not lost where the float model itself wavered (see :func:`expected_losses`).

    Args:
        reference: Logits of the float model, (N, classes).
        output: Logits of the compressed model, (N, classes), of the same samples.

    Returns:
        The classes; None where none has samples enough.
    """
    given, other, classes = reference.argmax(axis=1), output.argmax(axis=1), reference.shape[1]
    counts = np.bincount(given, minlength=classes)
    looked_for = np.flatnonzero(counts >= _FEW)
    if not len(looked_for):
        return None
    found = np.bincount(given[given == other], minlength=classes)
    losses = np.bincount(given, weights=expected_losses(reference, output), minlength=classes) / np.maximum(1, counts)
    lost = [int(index) for index in looked_for if not found[index] and losses[index] >= _SURE]
    return LostClasses(len(looked_for), tuple(lost))


def relative_error(reference: Array, output: Array, *, classes: bool = True) -> float:
    """Return the root mean square of the difference over the deviation of the reference (of its centred logits).

    Args:
        reference: (N, ...).
        output: (N, ...), of the same samples.
        classes: Whether these are logits of classes; other outputs are not centred.
    """
    n = len(reference)
    exact = reference.reshape(n, -1).astype(np.float64)
    signal = max(float(_signal(exact, classes=classes).mean()), _CONSTANT**2 * float(np.square(exact).mean()))
    noise = float(_power((output.astype(np.float64) - reference).reshape(n, -1)).mean())
    return math.sqrt(noise / signal) if signal else (0.0 if noise == 0 else math.inf)


def _signal(exact: NDArray[np.float64], *, classes: bool) -> NDArray[np.float64]:
    """Power of what the output, (N, K), says about each sample, (N,)."""
    n = len(exact)
    exact = _centred(exact) if classes else exact
    # One image has no deviation over images; over its classes it has.
    return _power(exact) if n == 1 else n / (n - 1) * _power(exact - exact.mean(axis=0, keepdims=True))


def _centred(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    centred: NDArray[np.float64] = logits - logits.mean(axis=1, keepdims=True)
    return centred


def _power(values: NDArray[np.float64]) -> NDArray[np.float64]:
    power: NDArray[np.float64] = np.square(values).mean(axis=1)
    return power


def capped(decibels: float) -> float:
    """Bring a ratio in dB to within ± ``EXACT_DB``."""
    return max(-EXACT_DB, min(EXACT_DB, decibels))
