"""Archives of several inputs, of values, and of arrays that are not read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.unit.task.test_named import Pair

from edgekd import registry
from edgekd.data import dataset, reading
from edgekd.errors import DataError
from edgekd.progress import Silent
from edgekd.recipe.data import Data


@pytest.fixture(autouse=True)
def _task(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.tasks._entries, Pair.kind, Pair)


def section(folder: Path, **arrays: Any) -> Data:
    np.savez(folder / "d.npz", **arrays)
    return Data(source=f"npz:{folder}/d.npz")


def pairs(split: str, count: int) -> dict[str, np.ndarray]:
    left, right = np.random.default_rng(count).normal(size=(2, count, 6)).astype(np.float32)
    return {f"x_{split}.left": left, f"x_{split}.right": right, f"y_{split}": left[:, :2]}


def test_without_a_test_split_the_validation_split_is_it(tmp_path: Path) -> None:
    data = section(tmp_path, **pairs("train", 40), **pairs("val", 10))
    found = dataset.load(data, task="pair")
    assert len(found.test) == 10
    assert {*found.test.inputs} == {"left", "right"}
    (note,) = reading.read(data, Silent()).notes
    assert note == (
        "  no x_test: x_val.left, x_val.right are the test split, and data.val_fraction of x_train.left, x_train.right is "
        "for validation"
    )


def test_a_validation_split_of_several_inputs_is_read(tmp_path: Path) -> None:
    data = section(tmp_path, **pairs("train", 40), **pairs("val", 10), **pairs("test", 20))
    found = dataset.load(data, task="pair")
    assert (len(found.train), len(found.val), len(found.test)) == (40, 10, 20)


def test_samples_for_validation_without_targets_are_refused(tmp_path: Path) -> None:
    arrays = {**pairs("train", 40), **pairs("val", 10), **pairs("test", 20)}
    del arrays["y_val"]
    with pytest.raises(DataError, match=r"but no y_val\n"):
        dataset.load(section(tmp_path, **arrays), task="pair")


def test_what_is_missing_has_the_names_of_the_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"but no x_test\.left, x_test\.right, y_test\n"):
        dataset.load(section(tmp_path, **pairs("train", 40)), task="pair")


def test_a_split_without_one_of_the_inputs_is_refused(tmp_path: Path) -> None:
    arrays = {**pairs("train", 40), **pairs("test", 20)}
    del arrays["x_test.right"]
    with pytest.raises(DataError, match=r"test has x_test\.left \(20, 6\) and targets"):
        dataset.load(section(tmp_path, **arrays), task="pair")


def test_an_array_of_another_name_is_named(tmp_path: Path) -> None:
    data = section(tmp_path, **pairs("train", 40), **pairs("test", 20), vector_train=np.zeros(3), y_other=np.zeros(3))
    (note,) = reading.read(data, Silent()).notes
    assert note == "  not read: vector_train, y_other; several inputs are named x_train.NAME and x_test.NAME"


def test_pixels_beside_a_vector_are_not_read_alone(tmp_path: Path) -> None:
    arrays = {**pairs("train", 40), **pairs("test", 20)}
    arrays = {name: rows for name, rows in arrays.items() if not name.endswith(".left")}
    arrays |= {"x_train": np.zeros((40, 4, 4), np.uint8), "x_test": np.zeros((20, 4, 4), np.uint8)}
    assert {*reading.read(section(tmp_path, **arrays), Silent()).train} == {"x", "right"}


def test_one_named_input_called_image_is_refused(tmp_path: Path) -> None:
    x, y = np.zeros((40, 3, 4, 4), np.float32), np.zeros(40, np.int64)
    with pytest.raises(DataError, match=r"x_train\.image is the only input"):
        reading.read(section(tmp_path, **{"x_train.image": x, "x_test.image": x}, y_train=y, y_test=y), Silent())


def test_whole_numbers_are_values_of_a_task_without_classes(tmp_path: Path) -> None:
    arrays = {**pairs("train", 40), **pairs("test", 20)}
    for split in ("train", "test"):
        arrays[f"y_{split}"] = (2000 + 10 * arrays[f"y_{split}"]).astype(np.int64)
    found = dataset.load(section(tmp_path, **arrays), task="pair")
    assert found.train.targets.dtype == np.float32
    assert found.train.targets.min() > 1900
    assert found.classes == ()


def test_values_are_no_labels_in_clear_words(tmp_path: Path) -> None:
    x, y = np.zeros((40, 4, 4), np.uint8), np.zeros((40, 2), np.float32)
    with pytest.raises(DataError, match=r"values as targets \(40×2 float32\), and the task needs a class"):
        dataset.load(section(tmp_path, x_train=x, x_test=x, y_train=y, y_test=y))


def test_a_step_that_reads_pixels_says_so(tmp_path: Path) -> None:
    found = dataset.load(section(tmp_path, **pairs("train", 40), **pairs("test", 20)), task="pair")
    with pytest.raises(DataError, match="read the pixels of one image, and a sample here has left, right"):
        _ = found.preprocessing
    assert found.noun == "sample"
