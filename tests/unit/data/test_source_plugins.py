"""A source of another package: one class and an entry point, and everything that names sources knows it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from edgekd import loading, registry
from edgekd.cli import cli
from edgekd.data import dataset, described, fingerprint, same_samples
from edgekd.engine import compose, preflight
from edgekd.errors import RecipeError
from edgekd.recipe.data import Data

PLUGIN = """\
from pathlib import Path
import numpy as np
from edgekd.data.sources.base import from_arrays

class Pixels:
    form, summary, labelled = "pixels:FILE", "images in a text file, a line each", True
    pictures, is_path, opens_libraries = False, True, False

    def read(self, place, data, progress):
        rows = np.loadtxt(place, dtype=np.uint8, ndmin=2)
        x, y = rows[:, 1:].reshape(-1, 8, 8), rows[:, 0].astype(np.int64)
        half = len(x) // 2
        arrays = {"x_train": x[:half], "y_train": y[:half], "x_test": x[half:], "y_test": y[half:]}
        return from_arrays(arrays, data, ("a", "b"), "", place)

    def files(self, place):
        return [("pixels", Path(place))]
"""


@pytest.fixture
def pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    info = tmp_path / "lib" / "edgekd_pixels-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: edgekd-pixels\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[edgekd.sources]\npixels = edgekd_pixels:Pixels\n")
    (tmp_path / "lib" / "edgekd_pixels.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(str(tmp_path / "lib"))
    random = np.random.default_rng(0)
    rows = np.concatenate([np.arange(40)[:, None] % 2, random.integers(0, 256, (40, 64))], axis=1)
    np.savetxt(tmp_path / "p.txt", rows, fmt="%d")
    yield tmp_path / "p.txt"
    registry.sources._entries.pop("pixels", None)


def test_a_source_of_another_package(pixels: Path, tmp_path: Path) -> None:
    section = Data(source=f"pixels:{pixels}", image_size=8, val_fraction=0.2)
    images = dataset.load(section)
    assert (len(images.train), len(images.val), len(images.test), images.classes) == (16, 4, 20, ("a", "b"))
    assert described.described(section)[0].endswith("16 images for training, 4 for validation, 20 for the test")
    same_samples.same(section, section.model_copy(update={"source": f"pixels:{tmp_path / 'p.txt'}"}))
    before = fingerprint.of(section)
    pixels.write_text(pixels.read_text().replace("\n", " \n", 1))
    assert fingerprint.of(section) != before
    assert compose.data_source("pixels:a.txt") == "pixels:a.txt"
    listed = CliRunner().invoke(cli, ["list", "data", "--json"], catch_exceptions=False, standalone_mode=False)
    assert json.loads(listed.stdout)["pixels:FILE"] == "images in a text file, a line each"


def test_its_path_is_a_path(pixels: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text("edgekd: 1\ndata: {source: 'pixels:q.txt'}\nstudent: {model: 'edgekd:resnet10', weights: w.pt}\n")
    loaded = loading.load(recipe)
    assert loaded.recipe.data.source == f"pixels:{os.path.normpath(tmp_path / 'q.txt')}"
    found = [problem for problem in preflight.problems(loaded) if problem.key == "data.source"]
    assert [problem.hint for problem in found] == ["did you mean p.txt?"]
    recipe.write_text(recipe.read_text().replace("pixels:q.txt", "pixels"))
    with pytest.raises(RecipeError, match="'pixels' is not a data source"):
        loading.load(recipe)
