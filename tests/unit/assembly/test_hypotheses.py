"""What a network knows of its task, by its answers alone."""

from __future__ import annotations

import numpy as np

from edgekd.assembly import hypotheses


def test_a_detector_of_rare_defects_knows_something() -> None:
    """13 of 256 images have one; 4 of them are found. Who says that none has is right on 4 less."""
    labels, found = (np.where(np.arange(256) < count, 1, 0) for count in (13, 4))
    assert hypotheses.knows(found, labels)
    assert not hypotheses.knows(np.zeros(256, np.int64), labels)
    random = np.random.default_rng(0)
    assert not any(hypotheses.knows(random.integers(0, 2, 256), labels) for _ in range(20))
