"""The tensors inside of a file, made its outputs, so that two machines can be compared layer by layer.

A runtime then does not fuse across them, but runs the kernels that the file as it is used runs. A file that edgekd did not
make is looked into, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgekd.errors import ExportError, cause_of
from edgekd.evaluation.device_outputs import FLOAT_ERROR, error_share
from edgekd.profiling.inspection import Given
from edgekd.runtimes import base
from edgekd.runtimes.inside import Probe

LAYER_STEPS = 1.0
"""Steps that a layer may be off from the same input: a value half-way between two, which either may round to either side."""


def instrument(path: Path, format: str, folder: Path) -> tuple[Path, tuple[Probe, ...]]:
    """Write a file whose outputs are those of the given one, and after them its inner tensors.

    Args:
        path: The file to load.
        format: Name of its runtime.
        folder: Where the new file goes.

    Returns:
        The file, and its outputs in order.

    Raises:
        ExportError: It cannot be read.
    """
    try:
        return base.looking(format).instrument(path, folder / f"probed{path.suffix}")
    except Exception as error:  # each library raises its own kinds
        raise ExportError(f"{path.name} cannot be looked into: {cause_of(error)}") from error


def steps(path: Path, format: str) -> tuple[float | None, ...]:
    """One int8 step of each output of a file, in order, whatever type it leaves it in; None where it is float inside."""
    try:
        return tuple(base.looking(format).steps(path))
    except Exception:  # a file that no library but its runtime reads is compared in absolute figures
        return ()


def first_difference(probes: Sequence[Probe], expected: Given, found: Given) -> str:
    """Name the first layer that two machines compute differently; empty where none is more than a rounding apart.

    Args:
        probes: Of the file.
        expected: Its outputs on one machine.
        found: On the other.
    """
    for probe in probes:
        if probe.name not in expected.arrays or probe.name not in found.arrays:
            continue
        wanted, got = (given.arrays[probe.name].astype(np.float64) for given in (expected, found))
        if wanted.shape != got.shape or not np.isfinite(wanted).all() or not np.isfinite(got).all():
            return probe.layer
        if probe.step is None:
            if error_share(wanted, got) > FLOAT_ERROR:
                return probe.layer
        elif float(np.percentile(np.abs(wanted - got), 99)) > (LAYER_STEPS + 0.01) * probe.step:
            return probe.layer
    return ""
