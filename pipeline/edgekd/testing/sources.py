"""The conformance suite of data sources."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray

from edgekd import reads
from edgekd.data import fingerprint
from edgekd.data.sources.base import Indexed, Raw, Source, Versioned
from edgekd.errors import DataError
from edgekd.progress import Silent
from edgekd.reads import watch
from edgekd.recipe.data import Data
from edgekd.registry import sources
from edgekd.testing.suite import Suite
from edgekd.testing.words import refused

_ELSEWHERE = """
import sys
from edgekd.progress import Silent
from edgekd.recipe.data import Data
from edgekd.registry import sources
from edgekd.testing.sources import _hashes
name, place, section = sys.argv[1:]
print(_hashes(sources.get(name)().read(place, Data.model_validate_json(section), Silent())))
"""
"""Read a source and print the hashes of its samples."""


class SourceSuite(Suite):
    """Checks of a data source.

    A source that has a place, such as ``npz:FILE``, overrides :meth:`make`.

    Attributes:
        data: Other keys of the recipe's data section that it is read with.
    """

    registry = sources
    data: ClassVar[Mapping[str, Any]] = {}

    def make(self, folder: Path) -> str:
        """Write a small data set into a folder and return its place, which follows the name in a recipe."""
        del folder
        return ""

    def change(self, path: Path) -> None:
        """Change a sample in one of the source's files; by default its last byte."""
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)

    def entry(self) -> Source:
        """Return the source."""
        found: Source = sources.get(self.name)()
        return found

    @pytest.fixture
    def place(self, tmp_path: Path) -> str:
        """Return the place of a small data set."""
        return self.make(tmp_path)

    def section(self, place: str) -> Data:
        """Return the data section of a recipe."""
        return Data.model_validate({"source": f"{self.name}:{place}" if place else self.name, **self.data})

    def read(self, place: str) -> Raw:
        """Open the source."""
        return self.entry().read(place, self.section(place), Silent())

    def opened(self, place: str) -> set[str]:
        """Return the files that reading all samples opens, without modules; of a source with a version, none."""
        keyed: set[str] = set()
        with watch.recording(keyed=keyed) as recorder:
            if not isinstance(self.entry(), Versioned):
                _hashes(self.read(place))
        modules = {reads.named(file) for module in [*sys.modules.values()] if (file := getattr(module, "__file__", None))}
        return {name for name in keyed | recorder.opened.keys() if Path(name).is_file()} - modules

    def test_facts(self, place: str) -> None:
        """The source says what it is, and how it is written in a recipe."""
        source = self.entry()
        assert source.form.partition(":")[0] == self.name, f"form is {source.form!r}: begin it with {self.name}"
        assert (":" in source.form) == bool(place), f"form is {source.form!r}, the place {place!r}: a place follows a colon"
        assert source.summary, "give a summary, the line of `edgekd list data`"
        assert type(source).__doc__, "write a docstring"

    def test_samples(self, place: str) -> None:
        """All samples of a split have one shape and type, and one target each."""
        raw = self.read(place)
        for split, inputs, targets in (("train", raw.train, raw.y_train), ("test", raw.test, raw.y_test)):
            for name, rows in inputs.items():
                assert len(rows) == len(targets), f"{split}: {len(rows)} samples {name}, {len(targets)} targets"
                kinds = {(rows[at].shape, rows[at].dtype) for at in {0, len(rows) // 2, len(rows) - 1}} if len(rows) else ()
                assert len(kinds) == 1, f"{split}: samples {name} are of {kinds or 'none'}: give one shape and type"
        assert len(raw.y_train), "there are no training samples"
        assert 0 <= raw.own_val < len(raw.y_train), f"own_val is {raw.own_val} of {len(raw.y_train)} training samples"

    def test_targets(self, place: str) -> None:
        """Labels are numbers of classes, -1 where they are not known, and are known before samples are read."""
        source, raw = self.entry(), self.read(place)
        assert raw.labelled == source.labelled, f"labelled is {source.labelled}, and {raw.labelled} of what is read"
        if raw.classes:
            assert len({*raw.classes}) == len(raw.classes), f"two classes have one name: {raw.classes}"
            least = 0 if raw.labelled else -1
            for targets in (raw.y_train, raw.y_test):
                assert targets.dtype.kind in "iu", f"labels are {targets.dtype}: give whole numbers"
                assert least <= targets.min(), f"a label is {targets.min()}"
                assert targets.max() < len(raw.classes), f"a label is {targets.max()} of {len(raw.classes)} classes"
        if isinstance(source, Indexed):
            told = source.targets(place)
            for split, targets in (("train", raw.y_train), ("test", raw.y_test)):
                same = np.array_equal(told[split].values, targets)
                assert same, f"targets() of {split} are not those of read(): plans and checks would be of other data"

    def test_same(self, place: str) -> None:
        """Reading twice gives the same samples, whatever numpy's generator is at."""
        np.random.seed(1)  # the global one, which a source must not use
        first = _hashes(self.read(place))
        np.random.seed(2)
        assert _hashes(self.read(place)) == first, "two readings differ: sort folders, and draw from a generator with a seed"

    def test_hash_seed(self, place: str) -> None:
        """Another process reads the same samples in the same order, whatever its seed of hashes."""
        command = [sys.executable, "-c", _ELSEWHERE, self.name, place, self.section(place).model_dump_json()]
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        env["PYTHONHASHSEED"] = "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"
        told = subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout
        same = told.strip() == str(_hashes(self.read(place)))
        assert same, "two processes read different samples: sort what is in a set or a folder; do not use hash()"

    def test_disjoint(self, place: str) -> None:
        """No test sample is a training sample."""
        train, test = _hashes(self.read(place))
        both = {*train} & {*test}
        assert not both or len({*train}) == 1, f"{len(both)} test samples are training samples: accuracy would be memory"

    def test_fingerprint(self, place: str) -> None:
        """The fingerprint is the same each time, and another when a file has changed: else an old result is used."""
        section = self.section(place)
        before = fingerprint.of(section)
        assert fingerprint.of(section) == before, "the fingerprint differs from call to call"
        names = [name for name, _ in self.entry().files(place)]
        assert len({*names}) == len(names), f"two files have one name: {names}"
        written = [path for _, path in self.entry().files(place) if place and path.is_relative_to(Path(place).parent)]
        if place:
            assert written, "files() names no file of the place: name all files whose bytes decide the samples"
        for opened in sorted(self.opened(place)):
            others = f"read() opens {opened}, which files() does not name: another one would be taken for it"
            assert opened in {reads.named(path) for _, path in self.entry().files(place)}, others
        for path in written:
            content = path.read_bytes()
            self.change(path)
            assert fingerprint.of(section) != before, f"{path.name} has changed, and the fingerprint has not"
            path.write_bytes(content)

    def test_missing(self, place: str, tmp_path: Path) -> None:
        """A missing place, and a file that is no data set, are refused in words."""
        if not self.entry().is_path:
            pytest.skip("it has no path")
        nowhere = str(tmp_path / "no" / "such")
        with refused("a place that does not exist", DataError):
            self.read(nowhere)
        with refused("files() of a place that does not exist", DataError):
            self.entry().files(nowhere)
        for _, path in self.entry().files(place):
            path.write_bytes(b"damaged")
        with refused("a damaged data set", DataError):
            _hashes(self.read(place))


def _hashes(raw: Raw) -> tuple[list[str], list[str]]:
    """Return a hash of each training and of each test sample."""

    def of(inputs: Mapping[str, Any], targets: NDArray[Any]) -> list[str]:
        names = sorted(inputs)
        return [
            hashlib.sha256(b"".join(np.ascontiguousarray(inputs[name][at]).tobytes() for name in names)).hexdigest()
            for at in range(len(targets))
        ]

    return of(raw.train, raw.y_train), of(raw.test, raw.y_test)
