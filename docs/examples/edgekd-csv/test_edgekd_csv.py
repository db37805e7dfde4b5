"""Hold the source against edgekd's conformance suite: ``pytest`` in this folder."""

import numpy as np

from edgekd.testing import SourceSuite


class TestCsv(SourceSuite):
    """All checks that edgekd's own sources pass."""

    name = "csv"

    def make(self, folder):
        """Write a table of 20 lines."""
        table = np.random.default_rng(0).normal(size=(20, 4))
        np.savetxt(folder / "table.csv", table, delimiter=",", header="a,b,c,target")
        return str(folder / "table.csv")
