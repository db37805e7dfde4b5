"""Write the trivial model: one linear layer, which is run on a device to see that the interpreter works."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgekd.profiling.on_device import trivial
from edgekd_npnet.exporter import write

STEP = {"name": "y", "operation": "linear", "inputs": ["x", "weight", "bias"], "options": []}
GRAPH = {
    "inputs": [{"name": "x", "shape": [1, 4]}],
    "outputs": [{"name": "y", "shape": [1, 4], "value": "y"}],
    "steps": [STEP],
}


def main():
    """Write it beside this file."""
    arrays = {"weight": np.array(trivial.WEIGHT, np.float32), "bias": np.array(trivial.BIAS, np.float32)}
    write(Path(__file__).with_name("trivial.npnet"), GRAPH, arrays)


if __name__ == "__main__":
    main()
