from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgekd.data import dataset, fingerprint, splits
from edgekd.data.preprocessing import Preprocessing
from edgekd.errors import DataError
from edgekd.recipe.data import Data

Npz = Callable[..., str]


def test_mini_is_what_the_readme_says() -> None:
    images = dataset.load(Data(source="fashion-mnist-mini", image_size=28))
    assert (len(images.train), len(images.val), len(images.test)) == (9000, 1000, 2000)
    assert np.bincount(images.train.labels).tolist() == [900] * 10
    assert np.bincount(images.val.labels).tolist() == [100] * 10
    assert np.bincount(images.test.labels).tolist() == [200] * 10
    assert images.classes[0] == "T-shirt/top"
    assert images.classes[9] == "Ankle boot"
    assert images.license == "MIT, © 2017 Zalando SE"
    assert images.train.images[0].shape == (1, 28, 28)


def test_mini_has_the_published_bytes() -> None:
    """Results of published recipes hold for these bytes; whoever changes them changes this line knowingly."""
    import hashlib

    from edgekd.resources import find

    digest = hashlib.sha256(find("assets", "fashion-mnist-mini/images.npz").read_bytes()).hexdigest()
    assert digest == "29687ebc82c20285477e0b8a8afd4170ffe64ded820397132b96062a9cd8e7e9"


def test_val_is_stratified_and_disjoint(npz: Npz) -> None:
    source = npz(train=90, classes=3, size=12)
    images = dataset.load(Data(source=source, image_size=12, val_fraction=0.2))
    assert np.bincount(images.val.labels).tolist() == [6, 6, 6]
    assert np.bincount(images.train.labels).tolist() == [24, 24, 24]
    seen = [{split.images[i].tobytes() for i in range(len(split))} for split in (images.train, images.val, images.test)]
    assert [len(part) for part in seen] == [72, 18, 16]
    assert not seen[0] & seen[1]
    assert not (seen[0] | seen[1]) & seen[2]


def test_val_keeps_images_with_their_labels(npz: Npz) -> None:
    x = np.arange(40, dtype=np.uint8)[:, None, None].repeat(8, 1).repeat(8, 2)
    source = npz(changes={"x_train": x, "y_train": np.arange(40) % 4}, classes=4)
    images = dataset.load(Data(source=source, image_size=8, val_fraction=0.3))
    for split in (images.train, images.val):
        assert [int(split.images[i][0, 0, 0]) % 4 for i in range(len(split))] == split.labels.tolist()


def test_val_is_the_same_every_time(npz: Npz) -> None:
    section = Data(source=npz(), image_size=16)
    first, second = dataset.load(section), dataset.load(section)
    assert [first.val.images[i].tobytes() for i in range(len(first.val))] == [
        second.val.images[i].tobytes() for i in range(len(second.val))
    ]


def test_val_never_takes_a_whole_class() -> None:
    labels = np.array([0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1])
    kept, held_out = splits.stratified(labels, 0.89)
    assert set(labels[kept]) == {0, 1}
    assert sorted([*kept, *held_out]) == list(range(11))
    assert np.bincount(labels[held_out], minlength=2).tolist() == [0, 9]


def test_val_of_nothing(npz: Npz) -> None:
    source = npz(train=12, classes=4)
    with pytest.raises(DataError) as caught:
        dataset.load(Data(source=source, image_size=16, val_fraction=0.1))
    assert str(caught.value) == (
        f"{source}: val_fraction 0.1 of 12 training images is below one a class\n"
        "  → raise data.val_fraction or give more images"
    )


def test_statistics_are_of_the_training_images_alone(npz: Npz) -> None:
    random = np.random.default_rng(1)
    x = random.integers(0, 256, (40, 8, 8, 3), np.uint8)
    changes = {"x_train": x, "y_train": np.arange(40) % 2, "x_test": np.full((4, 8, 8, 3), 255, np.uint8),
               "y_test": np.arange(4) % 2}  # fmt: skip
    images = dataset.load(Data(source=npz(changes=changes), image_size=8, val_fraction=0.2))
    kept = np.stack([images.train.images[i] for i in range(len(images.train))]).reshape(32, 3, 64) / 255
    assert images.preprocessing.mean == pytest.approx(kept.mean(axis=(0, 2)), abs=5e-5)
    assert images.preprocessing.std == pytest.approx(kept.std(axis=(0, 2)), abs=5e-5)


def test_constant_images_do_not_divide_by_zero(npz: Npz) -> None:
    images = dataset.load(Data(source=npz(changes={"x_train": np.full((80, 16, 16), 7, np.uint8)}), image_size=16))
    x = images.preprocessing.arrays(np.stack([images.train.images[0]]))
    assert images.preprocessing.std == (0.001,)
    assert np.isfinite(x).all()


def test_preprocess_by_hand() -> None:
    x = Preprocessing((0.2,), (0.5,), 3).arrays(np.array([[[[0, 255], [51, 102]]]], np.uint8))
    assert x.dtype == np.float32
    assert x.shape == (1, 3, 2, 2)
    for channel in range(3):
        assert x[0, channel].ravel() == pytest.approx([-0.4, 1.6, 0.0, 0.4], abs=1e-6)


def test_preprocess_takes_each_channel_its_own() -> None:
    x = Preprocessing((0.0, 0.5, 1.0), (1.0, 0.5, 0.25), 3).arrays(np.full((2, 3, 1, 1), 255, np.uint8))
    assert x[1].ravel().tolist() == [1.0, 1.0, 0.0]


def test_batches_cover_all_in_order(npz: Npz) -> None:
    test = dataset.load(Data(source=npz(test=10, classes=2), image_size=16)).test
    parts = list(test.batches(4))
    assert [len(part["image"]) for part in parts] == [4, 4, 2]
    stacked = np.stack([test.images[i] for i in range(10)])
    assert np.array_equal(np.concatenate([part["image"] for part in parts]), stacked)


# --- labels that are wrong --------------------------------------------------------------------------------------------

WRONG = {
    "float": ({"y_train": np.arange(80) % 4 * 1.0},
              "the train split has 80 images and labels of shape (80,) and type float64",
              "give one integer label for each image"),
    "text": ({"y_test": np.array(list("abcd") * 4)},
             "the test split has 16 images and labels of shape (16,) and type <U1",
             "give one integer label for each image"),
    "one-hot": ({"y_train": np.eye(4, dtype=np.int64)[np.arange(80) % 4]},
                "the train split has 80 images and labels of shape (80, 4) and type int64",
                "give one integer label for each image"),
    "too few": ({"y_train": np.arange(79) % 4},
                "the train split has 80 images and labels of shape (79,) and type int64",
                "give one integer label for each image"),
    "negative": ({"y_train": np.arange(80) % 4 - 1},
                 "the label of train image 0 is -1; there are 4 classes (0 to 3); labels outside of them: 20",
                 "correct the labels"),
    "more than classes": ({"classes": np.array(["a", "b", "c"])},
                          "the label of train image 3 is 3; there are 3 classes (0 to 2); labels outside of them: 20",
                          "correct the labels"),
    "only in test": ({"y_test": np.arange(16) % 4 + 1},
                     "no training image of class 4 (4)",
                     "add images of it, or number the labels from 0 without gaps"),
    "from 1": ({"y_train": np.arange(80) % 4 + 1, "y_test": np.arange(16) % 4 + 1},
               "no training image of class 0 (0)",
               "add images of it, or number the labels from 0 without gaps"),
    "one class": ({"y_train": np.zeros(80, int), "y_test": np.zeros(16, int)},
                  "there is only one class",
                  "a classifier needs two at least; images:DIR takes images without labels"),
    "no train": ({"x_train": np.zeros((0, 16, 16), np.uint8), "y_train": np.zeros(0, int)},
                 "the train split has no images",
                 "give images, or correct data.source"),
    "no test": ({"x_test": np.zeros((0, 16, 16), np.uint8), "y_test": np.zeros(0, int)},
                "the test split has no images",
                "give images, or correct data.source"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_wrong_labels(case: str, npz: Npz) -> None:
    changes, message, hint = WRONG[case]
    source = npz(changes=changes)
    with pytest.raises(DataError) as caught:
        dataset.load(Data(source=source, image_size=16))
    assert str(caught.value) == f"{source}: {message}\n  → {hint}"


def test_a_wild_label_does_not_eat_the_memory(npz: Npz) -> None:
    labels = np.arange(80) % 4
    labels[5] = 2**40  # a class for each number up to it would be terabytes
    source = npz(changes={"y_train": labels})
    with pytest.raises(DataError) as caught:
        dataset.load(Data(source=source, image_size=16))
    assert str(caught.value) == (
        f"{source}: the highest label is 1099511627776, and there are 80 training images\n"
        "  → number the labels from 0 without gaps"
    )


def test_colour_images_for_a_grey_model(npz: Npz) -> None:
    """They are turned into grey as Pillow does it, which an image folder is read with."""
    colour = dataset.load(Data(source=npz(channels=3), image_size=16))
    grey = dataset.load(Data(source=npz(channels=3), image_size=16, channels=1))
    assert len(grey.preprocessing.mean) == 1
    for index in range(len(grey.test)):
        expected = Image.fromarray(colour.test.images[index].transpose(1, 2, 0)).convert("L")
        np.testing.assert_array_equal(grey.test.images[index], np.asarray(expected)[None])


def test_train_grey_and_test_colour(npz: Npz, arrays: Callable[..., dict[str, np.ndarray]]) -> None:
    source = npz(changes={"x_test": arrays(channels=3)["x_test"]})
    with pytest.raises(DataError) as caught:
        dataset.load(Data(source=source, image_size=16))
    assert str(caught.value) == (
        f"{source}: the train images have 1 channel and the test images 3\n  → give both the same channels"
    )


# --- fingerprint ------------------------------------------------------------------------------------------------------


def folder(root: Path) -> Path:
    random = np.random.default_rng(2)
    for split in ("train", "test"):
        for name in ("ant", "bee"):
            (root / split / name).mkdir(parents=True)
            for index in range(4):
                pixels = random.integers(0, 256, (9, 9, 3), np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{index}.png")
    return root


def told(place: Path, **settings: object) -> str:
    return fingerprint.of(Data.model_validate({"source": f"imagefolder:{place}", **settings}))


def test_fingerprint_does_not_know_where_the_folder_is(tmp_path: Path) -> None:
    before = told(folder(tmp_path / "here"))
    shutil.move(tmp_path / "here", tmp_path / "there")
    assert told(tmp_path / "there") == before
    (tmp_path / "there" / "notes.txt").write_text("no image")
    assert told(tmp_path / "there") == before
    assert told(tmp_path / "there", root="/elsewhere", download=False) == before


def test_fingerprint_sees_a_byte_a_name_and_a_setting(tmp_path: Path) -> None:
    root = folder(tmp_path / "data")
    found = [told(root), told(root, image_size=64), told(root, augment=["flip"]), told(root, val_fraction=0.2)]
    path = root / "train" / "ant" / "0.png"
    content = path.read_bytes()
    path.write_bytes(content + b"\0")
    found.append(told(root))
    path.write_bytes(content)
    assert told(root) == found[0]
    path.rename(path.with_name("00.png"))
    found.append(told(root))
    path.with_name("00.png").rename(root / "train" / "bee" / "00.png")
    found.append(told(root))
    assert len(set(found)) == len(found)


def test_fingerprint_of_an_archive(npz: Npz) -> None:
    here, there = npz("here/a.npz"), npz("there/b.npz")
    assert fingerprint.of(Data(source=here)) == fingerprint.of(Data(source=there))
    assert fingerprint.of(Data(source=here)) != fingerprint.of(Data(source=npz("c.npz", train=84)))


def test_fingerprint_of_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        told(tmp_path / "no")
    assert str(caught.value) == (
        f"{tmp_path}/no does not exist\n  → correct data.source; a relative path starts at the recipe's folder"
    )


def test_fingerprint_of_any_file_name(tmp_path: Path) -> None:
    """Names that are not UTF-8 come from old archives; Python gives them as surrogates."""
    import os

    root = folder(tmp_path / "data")
    before = told(root)
    path = root / "train" / "ant" / "0.png"
    path.rename(path.with_name(os.fsdecode(b"caf\xe9.png")))
    assert told(root) != before


def test_fingerprint_of_a_folder_instead_of_a_file(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        fingerprint.of(Data(source=f"npz:{tmp_path}"))
    assert str(caught.value) == f"{tmp_path} is a folder\n  → correct data.source"


def test_the_normalization_of_given_weights(npz: Callable[..., str]) -> None:
    given = Data(source=npz(), image_size=16, mean=(0.5,), std=(0.25,))
    images = dataset.load(given)
    assert (images.preprocessing.mean, images.preprocessing.std) == ((0.5,), (0.25,))
    assert fingerprint.of(given) != fingerprint.of(Data(source=given.source, image_size=16))
