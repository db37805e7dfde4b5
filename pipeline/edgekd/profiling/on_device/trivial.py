"""A trivial model in each format, which is run to see that a runtime works: one layer of four neurons.

``profiling/make_trivial.py`` has written the files.
"""

from __future__ import annotations

import pkgutil
from pathlib import Path

from .runtimes import of

WEIGHT = [[1.0, 0.5, -0.25, 0.0], [-1.0, 2.0, 0.125, 0.5], [0.0, 0.0, 3.0, -1.5], [0.25, -0.5, 1.0, 1.0]]
BIAS = [0.5, -1.0, 0.0, 2.0]
INPUT = [[1.0, -2.0, 3.0, 0.5]]
OUTPUT = [[-0.25, -5.375, 8.25, 6.75]]
"""The layer's output for the input: exact in float32, and in float16 too."""


def write(form: str, folder: Path) -> str:
    """Write the model of a format into a folder and return the path of the file to load.

    Args:
        form: Name of a module of ``runtimes``.
        folder: Where; this program may be one file, in which no runtime can read.
    """
    names = of(form).TRIVIAL
    for name in names:
        data = pkgutil.get_data(__name__.rpartition(".")[0], "models/" + name)
        assert data is not None
        (folder / name).write_bytes(data)
    return str(folder / names[0])
