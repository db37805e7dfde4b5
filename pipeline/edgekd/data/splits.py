"""Split samples; the validation samples are the same for every seed of a recipe."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SPLIT_SEED = 0  # the validation split is the same for every seed of a recipe, so that seeds can be compared


def stratified(labels: NDArray[np.int64], fraction: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Split indices into (kept, held out): ``fraction`` of each class is held out, never a whole class."""
    random = np.random.default_rng(SPLIT_SEED)
    held = []
    for label in np.unique(labels):
        members = random.permutation(np.flatnonzero(labels == label))
        held.append(members[: min(round(fraction * len(members)), len(members) - 1)])
    held_out = np.sort(np.concatenate(held))
    return np.setdiff1d(np.arange(len(labels)), held_out), held_out
