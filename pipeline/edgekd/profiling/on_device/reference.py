"""The reference workload: known arithmetic whose pace tells a slow machine from a slow model."""

from __future__ import annotations

import os
from typing import Any

SIDE = 192
"""Rows and columns of the matrix that is multiplied by itself, float32."""
COPIED = 4 << 20
"""Bytes that are copied; more than the caches near a core hold."""


class Reference:
    """A matrix product and a copy with numpy on one thread, behind the interface of a runtime.

    ``version`` is the workload's identity: paces are compared only where it is the same.
    """

    def __init__(self, threads: int) -> None:
        import numpy as np

        self.np = np
        work = f"{SIDE}x{SIDE} float32 product and {COPIED >> 20} MiB copy"
        self.version = f"{work}, numpy {np.__version__}, {os.uname().machine}"

    def load(self, path: str) -> None:
        """Make the memory that is worked on; there is no file."""
        self.product = self.np.zeros((SIDE, SIDE), "float32")
        self.source, self.target = (self.np.ones(COPIED, "uint8") for _ in range(2))

    def unload(self) -> None:
        """Let it go."""
        del self.product, self.source, self.target

    def inputs(self) -> dict[str, Any]:
        """Inputs by name, as of a runtime: the matrix."""
        return {"x": ([SIDE, SIDE], "float32", (0.0, 0))}

    def fit(self, feed: Any) -> None:
        """No size is free."""

    def run(self, feed: Any) -> None:
        """Do the work once."""
        self.np.dot(feed["x"], feed["x"], out=self.product)
        self.np.copyto(self.target, self.source)
