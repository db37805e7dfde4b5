"""A data source for edgekd: a table in a CSV file."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgekd import reads
from edgekd.data.sources.base import Raw
from edgekd.errors import DataError


class Csv:
    """Table of numbers under a line of titles: each line is a sample, its last number is the target."""

    form = "csv:FILE"
    summary = "a table of numbers; the last column is the target, the last fifth of the lines the test split"
    labelled, pictures, is_path, opens_libraries = True, False, True, False

    def read(self, place, data, progress):
        """Return the samples: a vector called x (float32, N×columns), and targets (float32, N×1)."""
        self.files(place)
        try:
            with reads.in_key(place):  # the file's bytes are in the cache key: files() names it
                table = np.loadtxt(place, np.float32, delimiter=",", skiprows=1, ndmin=2)
        except ValueError as error:
            raise DataError(f"{place} is not a table of numbers: {error}", "separate the numbers by commas") from error
        tests = len(table) // 5
        if not tests or table.shape[1] < 2:
            raise DataError(f"{place} is a table of {table.shape} numbers", "it needs 5 lines and 2 columns, or more")
        x, y = table[:, :-1], table[:, -1:]
        return Raw({"x": x[:-tests]}, y[:-tests], {"x": x[-tests:]}, y[-tests:], classes=())

    def files(self, place):
        """Return the table, under a name that is the same on every machine."""
        if not Path(place).is_file():
            raise DataError(f"{place} does not exist", "correct the path")
        return [("table", Path(place))]
