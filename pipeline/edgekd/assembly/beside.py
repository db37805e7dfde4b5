"""Outputs beside the primary one on the test split: of files and of their references, as many samples as a bundle holds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekd.assembly.samples import FED, spread

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Arrays = Mapping[str, NDArray[Any]]

MOST_BYTES = 16 * 2**20
"""The first samples are kept, up to this size of all outputs together; the primary output is kept of the whole split."""
_FOLDER, _FIRST, _FED = "beside", "first.", "fed."


def write(folder: Path, name: str, outputs: Arrays, primary: str) -> None:
    """Write the outputs of one network or file, N×… each, where it has others than the primary one.

    Args:
        folder: Of the stage.
        name: Of the network or file.
        outputs: By name.
        primary: Which one is not written.
    """
    import numpy as np

    others = {output: values for output, values in outputs.items() if output != primary}
    if not others:
        return
    total = min(map(len, others.values()))
    count = min(total, max(FED, MOST_BYTES // max(1, sum(values[0].nbytes for values in others.values()))))
    places = spread(total, FED)
    path = _path(folder, name)
    path.parent.mkdir(exist_ok=True)
    first = {f"{_FIRST}{output}": values[:count] for output, values in others.items()}
    np.savez(path, allow_pickle=False, **first, **{f"{_FED}{output}": values[places] for output, values in others.items()})


def first(folder: Path, name: str) -> dict[str, NDArray[Any]]:
    """Return the outputs on the first samples of the test split; empty where there is only the primary one."""
    return _read(folder, name, _FIRST)


def fed(folder: Path, name: str) -> dict[str, NDArray[Any]]:
    """Return the outputs on the samples that devices are fed."""
    return _read(folder, name, _FED)


def _read(folder: Path, name: str, begin: str) -> dict[str, NDArray[Any]]:
    import numpy as np

    path = _path(folder, name)
    if not path.is_file():
        return {}
    with np.load(path, allow_pickle=False) as stored:
        return {key.removeprefix(begin): stored[key] for key in stored if key.startswith(begin)}


def _path(folder: Path, name: str) -> Path:
    return folder / _FOLDER / f"{name}.npz"
