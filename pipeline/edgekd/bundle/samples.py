"""samples.npz: test images with what each artifact and each network in torch gives for them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edgekd.data.dataset import DataSet

WHOLE_BYTES = 50 * 2**20
"""The whole test split travels in the bundle while it is smaller than this."""
SAMPLES_OF_LARGE = 256
TORCH = "torch_"
"""Begins the name of the outputs of a network in torch, before the name of the network."""


def write(folder: Path, images: DataSet, logits: Mapping[str, NDArray[np.float32]]) -> bool:
    """Write uint8 images, their labels and logits into ``samples.npz``.

    Args:
        folder: The bundle.
        images: Of which the first of the test split are taken.
        logits: On the whole test split, N×classes, by their names in the file.

    Returns:
        Whether it is the whole test split.
    """
    import numpy as np

    test = images.test
    whole = len(test) * test.images[0].nbytes <= WHOLE_BYTES
    count = len(test) if whole else min(SAMPLES_OF_LARGE, len(test))
    np.savez_compressed(
        folder / "samples.npz",
        allow_pickle=False,
        images=np.stack([test.images[i] for i in range(count)]),
        **({"labels": test.labels[:count]} if images.labelled else {}),
        **{name: values[:count] for name, values in logits.items()},
    )
    return whole
