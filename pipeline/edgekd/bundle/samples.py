"""samples.npz: test samples with what each artifact and each network in torch gives for them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from edgekd.task.image_classification import IMAGE

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edgekd.data.dataset import DataSet

WHOLE_BYTES = 50 * 2**20
"""The whole test split travels in the bundle while it is smaller than this."""
SAMPLES_OF_LARGE = 256
TORCH = "torch_"
"""Begins the name of the outputs of a network in torch, before the name of the network."""


INPUT = "input_"
"""Begins the name of an input that is no image."""


def output(model: str, *, classes: bool, port: str = "") -> str:
    """Return the name of an output of an artifact: of the primary one, or of the one called ``port``."""
    return f"output_{model}.{port}" if port else f"{'logits' if classes else 'output'}_{model}"


def grey(images: DataSet) -> bool:
    """Return whether the stored samples are images of one channel."""
    test = images.test
    return {*test.inputs} == {IMAGE} and len(test) > 0 and test.stacked(range(1))[IMAGE].shape[1] == 1


def write(folder: Path, images: DataSet, outputs: Mapping[str, NDArray[np.float32]]) -> bool:
    """Write samples, their targets and outputs into ``samples.npz``.

    uint8 images are ``images``; other inputs are ``input_NAME``, as the network takes them. Classes are ``labels``; other
    targets are ``targets``.

    Args:
        folder: The bundle.
        images: Of which the first of the test split are taken.
        outputs: On the whole test split, or on the first samples of it, N×…, by their names in the file.

    Returns:
        Whether it is the whole test split.
    """
    import numpy as np

    test = images.test
    one = test.stacked([0])
    whole = len(test) * sum(value.nbytes for value in one.values()) <= WHOLE_BYTES
    count = len(test) if whole else min(SAMPLES_OF_LARGE, len(test))
    np.savez_compressed(
        folder / "samples.npz",
        allow_pickle=False,
        **{"images" if {*one} == {IMAGE} else f"{INPUT}{name}": rows for name, rows in test.stacked(range(count)).items()},
        **({"labels" if images.classes else "targets": test.targets[:count]} if images.labelled else {}),
        **{name: values[:count] for name, values in outputs.items()},
    )
    return whole
