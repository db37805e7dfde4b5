from __future__ import annotations

import numpy as np
import pytest

from edgekd.errors import ExportError
from edgekd.exporting.parity import compare


def test_counts_steps_and_agreement() -> None:
    reference = np.array([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]], np.float32)
    output = reference.copy()
    output[1] = [0.0, 0.5]
    found = compare(reference, output, scale=0.25)
    assert found.agreement == 0.75
    assert (found.max_abs_error, found.max_lsb, found.mean_lsb) == (1.0, 4.0, 0.75)
    assert 2.0 < found.p99_lsb <= 4.0


@pytest.mark.parametrize(
    ("output", "scale", "message"),
    [
        (np.zeros((2, 3), np.float32), 0.1, "cannot be compared"),
        (np.full((2, 2), np.nan, np.float32), 0.1, "runtime gave NaN"),
        (np.zeros((2, 2), np.float32), 0.0, "one step of the logits"),
    ],
)
def test_refuses_what_proves_nothing(output: np.ndarray, scale: float, message: str) -> None:
    with pytest.raises(ExportError, match=message):
        compare(np.zeros((2, 2), np.float32), output, scale)


def test_steps_are_whole_numbers() -> None:
    """What float32 leaves of two steps, 2.000002, is two; half a step is another scale, and stays half a step."""
    scale = 0.0371
    reference = (np.arange(-60, 60, dtype=np.float32) * np.float32(scale)).reshape(12, 10)
    found = compare(reference, reference + np.float32(2.0000026 * scale), scale)
    assert (found.max_lsb, found.p99_lsb, found.mean_lsb) == (2.0, 2.0, 2.0)
    half = compare(reference, reference + np.float32(0.5 * scale), scale)
    assert half.max_lsb == pytest.approx(0.5, abs=1e-4)


def test_a_tie_of_the_reference_is_no_other_class() -> None:
    """Two correct programs may round the two best logits to either side; three steps are no tie any more."""
    scale = 0.1
    for steps, ties, agreement in ((0, 1, 1.0), (2, 1, 1.0), (3, 0, 0.5)):
        reference = np.float32([[1.0, 1.0 - steps * scale, 0.0], [5.0, 0.0, 0.0]])
        output = np.float32([[1.0 - (steps + 1) * scale, 1.0, 0.0], [5.0, 0.0, 0.0]])
        found = compare(reference, output, scale)
        assert (found.ties, found.agreement) == (ties, agreement)


def test_the_reference_decides_what_a_tie_is() -> None:
    """A file that makes a tie of two classes that are far apart in torch is another network."""
    found = compare(np.float32([[5.0, 0.0]]), np.float32([[1.0, 1.1]]), 0.1)
    assert (found.ties, found.agreement) == (0, 0.0)


def test_float_logits_have_no_steps_but_an_error() -> None:
    x = np.random.default_rng(0).normal(size=(100, 10)).astype(np.float32)
    found = compare(x, x + np.float32(0.1) * x[:, ::-1], None)
    assert (found.max_lsb, found.p99_lsb, found.mean_lsb) == (None, None, None)
    assert found.error == pytest.approx(0.1 * np.sqrt(10 / 9), rel=0.02)  # centred logits have 9 of 10 degrees of freedom
    assert compare(x, x * np.float32(1 + 1e-6), None).error < 1e-5


def test_an_output_without_classes_has_no_agreement() -> None:
    x = np.random.default_rng(0).normal(size=(5, 3, 4)).astype(np.float32)
    found = compare(x, x + np.float32(0.5), 0.25, classes=False)
    assert (found.agreement, found.ties, found.p99_lsb) == (None, 0, 2.0)
    with pytest.raises(ExportError, match="cannot be compared"):
        compare(x, x, 0.25)


def test_integers_are_the_same_or_not() -> None:
    """How far two class numbers lie apart says nothing; one flag of 200 is no error of 14 %."""
    classes = np.arange(200) % 50
    other = classes.copy()
    other[0] = 49
    found = compare(classes, other, None, classes=False)
    assert (found.agreement, found.error, found.p99_lsb, found.max_abs_error) == (0.995, None, None, 49.0)
    flags = classes > 25
    found = compare(flags, ~flags, None, classes=False)
    assert (found.agreement, found.error) == (0.0, None)
