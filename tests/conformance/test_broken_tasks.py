"""The suites of tasks and sources find what is broken."""

from __future__ import annotations

from pathlib import Path

from tests.conformance.broken import failures

TASKS = '''
from edgekd.registry import metrics, tasks
from edgekd.task.base import Port, Samples, Signature
from edgekd.errors import DataError
from edgekd.testing import TaskSuite


@metrics.register("mae_of_test")
class Error:
    """Mean absolute error."""

    name, label, unit, better = "mae_of_test", "MAE", "", "lower"

    def per_sample(self, outputs, targets, primary):
        expected = targets[primary] if isinstance(targets, dict) else targets
        return abs(outputs[primary] - expected).reshape(len(expected), -1).mean(1, keepdims=True)

    def reduce(self, rows, weights=None):
        return float(rows.mean())


class Values:
    """Two values from six."""

    gives, metrics, agreement = (), (Error(),), Error()

    def signature(self, samples):
        if [*samples.inputs] != ["x"]:
            raise DataError("it needs x", "give x")
        return Signature((Port("x", ("N", 6), kind="features"),), (Port("y", ("N", 2)),), primary="y")

    def builder_args(self, samples):
        return {}

    def stratum(self, targets):
        return None

    def criterion(self, primary, target, smoothing):
        return (primary - target).pow(2).mean()


def suite(name, criterion=None, **fields):
    more = {"criterion": criterion} if criterion else {}
    tasks.register(name)(type(name, (Values,), {"__doc__": Values.__doc__, "kind": name, **fields, **more}))
    space = {"name": name, "samples": Samples({"x": ((6,), "float32")}, target=(2,))}
    globals()[f"Test_{name}"] = type(f"Test_{name}", (TaskSuite,), space)


suite("good")
suite("sums", lambda self, p, t, smoothing: (p - t).pow(2).sum())
suite("first", lambda self, p, t, smoothing: (p[:1] - t[:1]).pow(2).mean())
suite("crossed", lambda self, p, t, smoothing: (p[:, None] - t[None]).pow(2).mean())
suite("unknown_word", gives=("klasses",))
'''

SOURCES = '''
from pathlib import Path

import numpy as np
from edgekd import reads
from edgekd.data.sources.base import Raw
from edgekd.errors import DataError
from edgekd.testing import SourceSuite


class Numbers:
    """Two files of numbers."""

    summary, labelled, pictures, is_path, opens_libraries = "numbers", True, False, True, False

    def order(self, count):
        return np.arange(count)

    def read(self, place, data, progress):
        self.files(place)
        try:
            parts = [np.loadtxt(Path(place) / name, np.float32, ndmin=2) for name in ("a", "b")]
        except ValueError as error:
            raise DataError(f"{place} has no numbers: {error}", "write numbers") from error
        x = np.concatenate(parts)
        x = x[self.order(len(x))]
        return Raw({"x": x[:16]}, x[:16, :1], {"x": x[16:]}, x[16:, :1], classes=())

    def files(self, place):
        if not (Path(place) / "a").is_file():
            raise DataError(f"{place} does not exist", "correct it")
        return [(name, Path(place) / name) for name in ("a", "b")]


def suite(name, **fields):
    globals()[name] = type(name, (Numbers,), {"__doc__": "Numbers.", "form": f"{name}:FOLDER", **fields})

    def make(self, folder):
        inside = folder / "data"
        inside.mkdir()
        for index, file in enumerate("ab"):
            np.savetxt(inside / file, np.random.default_rng(index).normal(size=(10, 3)))
        return str(inside)

    def change(self, path):
        path.write_text("9" + path.read_text()[1:])

    globals()[f"Test_{name}"] = type(f"Test_{name}", (SourceSuite,), {"name": name, "make": make, "change": change})


def in_its_key(self, place, data, progress):
    with reads.in_key(*(Path(place) / name for name in "ab")):
        return Numbers.read(self, place, data, progress)


suite("good")
suite("forgets", files=lambda self, place: Numbers.files(self, place)[:1])
suite("forgets_keyed", files=lambda self, place: Numbers.files(self, place)[:1], read=in_its_key)
suite("hashed", order=lambda self, count: [int(at) for at in {str(at) for at in range(count)}])

'''


def test_broken_tasks_are_found(tmp_path: Path) -> None:
    found = failures(tmp_path, TASKS, "edgekd.tasks")
    assert "Test_good" not in found
    assert {name for name, checks in found.items() if "mean" in checks} == {"Test_sums", "Test_first", "Test_crossed"}
    assert "facts" in found["Test_unknown_word"]


def test_broken_sources_are_found(tmp_path: Path) -> None:
    found = failures(tmp_path, SOURCES, "edgekd.sources")
    assert "Test_good" not in found, found
    assert found["Test_hashed"] == {"hash_seed"}
    assert found["Test_forgets"] == found["Test_forgets_keyed"] == {"fingerprint"}
