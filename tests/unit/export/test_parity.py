from __future__ import annotations

import numpy as np
import pytest

from edgekd.errors import ExportError
from edgekd.export.parity import compare


def test_counts_steps_and_agreement() -> None:
    reference = np.array([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]], np.float32)
    output = reference.copy()
    output[1] = [0.0, 0.5]
    found = compare(reference, output, scale=0.25)
    assert (found.top1_agreement, found.n) == (0.75, 4)
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
