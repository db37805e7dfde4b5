"""What of a source is read, and what is not; one list for reading and hashing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.conftest import make_arrays

from edgekd.data import dataset, decoding, described, fingerprint, same_samples
from edgekd.errors import DataError
from edgekd.recipe.data import Data


def error_of(source: str, **settings: Any) -> str:
    with pytest.raises(DataError) as caught:
        dataset.load(Data.model_validate({"source": source, "image_size": 16, **settings}))
    assert caught.value.hint
    return str(caught.value)


def test_an_own_validation_split_is_used(tree: Path, npz: Callable[..., str]) -> None:
    """Of a folder and of an archive: val_fraction does not count."""
    shutil.copytree(tree / "test", tree / "val")
    found = dataset.load(Data(source=f"imagefolder:{tree}", image_size=8))
    assert (len(found.train), len(found.val), len(found.test)) == (12, 4, 4)
    source = npz(changes={"x_val": np.full((8, 16, 16), 7, np.uint8), "y_val": np.arange(8) % 4})
    found = dataset.load(Data(source=source, image_size=16))
    assert (len(found.train), len(found.val)) == (80, 8)
    assert (found.val.images[0] == 7).all()
    assert found.val.labels.tolist() == [0, 1, 2, 3] * 2
    before = fingerprint.of(Data(source=f"imagefolder:{tree}"))
    next((tree / "val").rglob("*.png")).unlink()
    assert fingerprint.of(Data(source=f"imagefolder:{tree}")) != before


@pytest.mark.parametrize("split", [True, False])
def test_a_folder_without_an_image_that_is_read(tmp_path: Path, split: bool) -> None:
    for name in ("a", "b"):
        for folder in (tmp_path / "train" / name, tmp_path / "test" / name) if split else (tmp_path / name,):
            folder.mkdir(parents=True)
            Image.new("L", (8, 8)).save(folder / "1.gif")
    assert error_of(f"imagefolder:{tmp_path}") == (
        f"no file below {tmp_path} is an image that edgekd reads: {4 if split else 2} .gif files\n"
        "  → convert them; images are .bmp, .jpeg, .jpg, .png, .ppm, .tif, .tiff, .webp"
    )


def test_half_a_validation_split_is_refused(npz: Callable[..., str]) -> None:
    assert "but no y_val" in error_of(npz(changes={"x_val": np.zeros((8, 16, 16), np.uint8)}))
    wrong = {"x_val": np.zeros((8, 16, 16), np.uint8), "y_val": np.zeros(7, np.int64)}
    assert "x_val is (8, 1, 16, 16) with labels of shape (7,)" in error_of(npz(changes=wrong))


def test_linked_folders_are_read_and_hashed(tree: Path, tmp_path: Path) -> None:
    """Also a link to a folder above it, which would be read for ever."""
    section = Data(source=f"imagefolder:{tree}", image_size=8)
    plain = fingerprint.of(section)
    for place in ("train", "test/bee"):
        (tree / place).rename(tmp_path / place.replace("/", "-"))
        (tree / place).symlink_to(tmp_path / place.replace("/", "-"))
    (tree / "test" / "ant" / "loop").symlink_to(tree / "test")
    found = dataset.load(section)
    assert len(found.train) + len(found.val) == 12
    assert len(found.test) == 4 + 2  # bee below ant, once
    (tree / "test" / "ant" / "loop").unlink()
    assert fingerprint.of(section) == plain
    next((tmp_path / "train" / "ant").iterdir()).unlink()
    assert fingerprint.of(section) != plain
    heap = tmp_path / "heap"
    heap.mkdir()
    (heap / "more").symlink_to(tmp_path / "train")
    unlabelled = Data(source=f"images:{heap}", image_size=8, classes=2)
    assert len(dataset.load(unlabelled).train) + len(dataset.load(unlabelled).test) + len(dataset.load(unlabelled).val) == 11
    before = fingerprint.of(unlabelled)
    next((tmp_path / "train" / "bee").iterdir()).unlink()
    assert fingerprint.of(unlabelled) != before


def test_what_is_read_is_described(tree: Path) -> None:
    for name in (".ipynb_checkpoints", "train/.cache", "extra"):
        (tree / name).mkdir()
        shutil.copy(next((tree / "train").rglob("*.png")), tree / name / "x.png")
    (tree / "train" / "ant" / "notes.txt").write_text("")
    (tree / "train" / "ant" / "old.gif").write_bytes(b"")
    shutil.copy(tree / "train" / "bee" / "0.png", tree / "test" / "bee" / "same.png")
    lines = described.described(Data(source=f"imagefolder:{tree}", val_fraction=0.3))
    assert lines[0] == (
        f"data: imagefolder:{tree}: 2 classes (ant, bee); 8 images for training, 4 for validation, 5 for the test"
    )
    assert lines[1] == (
        "  not read: 1 image in extra, 1 .gif file, 1 .txt file, hidden folder .cache, hidden folder .ipynb_checkpoints"
    )
    assert lines[2].startswith(f"  warning: 5 of 5 test images are training images too ({tree}/test/ant/0.png is ")
    assert dataset.load(Data(source=f"imagefolder:{tree}", image_size=8, val_fraction=0.3)).classes == ("ant", "bee")


def test_folders_below_a_class_are_of_that_class(tree: Path) -> None:
    (tree / "train" / "bee" / "young").mkdir()
    (tree / "train" / "bee" / "0.png").rename(tree / "train" / "bee" / "young" / "0.png")
    section = Data(source=f"imagefolder:{tree}", image_size=8)
    told = f"  1 images are in folders below a class, and of that class: {tree}/train/bee/young is bee"
    assert told in described.described(section)
    assert dataset.load(section).classes == ("ant", "bee")


def test_images_of_an_archive_in_both_splits(npz: Callable[..., str]) -> None:
    arrays = make_arrays()
    arrays["x_test"][3] = arrays["x_train"][5]
    (line, warning) = described.described(Data(source=npz(changes=arrays), image_size=16))
    assert "4 classes (0, 1, 2, 3); 72 images for training, 8 for validation, 16 for the test" in line
    assert warning.startswith("  warning: 1 of 16 test images are training images too (image 3 of test is image 5 of train)")


def test_pixels_that_are_floats_are_refused(tree: Path) -> None:
    """They would be black."""
    Image.fromarray(np.random.default_rng(0).random((8, 8)).astype(np.float32)).save(tree / "train" / "ant" / "f.tiff")
    assert "f.tiff is not a readable image: its pixels are floats" in error_of(f"imagefolder:{tree}")


@pytest.mark.parametrize("most", [255, 65535])
def test_pixels_of_32_bits_are_refused(tree: Path, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing says which number is white: labels and counts have 32 bits too."""
    path = tree / "train" / "ant" / "f.tiff"
    Image.fromarray(np.linspace(0, most, 64).reshape(8, 8).astype(np.int32)).save(path)
    told = "f.tiff is not a readable image: its pixels are numbers of 32 bits or with a sign, of no known range"
    assert told in error_of(f"imagefolder:{tree}")
    monkeypatch.setattr(decoding, "IN_MEMORY_BYTES", 100)
    with pytest.raises(DataError, match="of no known range"):
        described.described(Data(source=f"imagefolder:{tree}", val_fraction=0.3))


def test_pixels_of_16_bits_are_read_in_whatever_mode_they_come(tree: Path) -> None:
    pixels = np.full((8, 8), 0x8000, np.uint16)
    for path in (tree / "test").rglob("*.png"):
        path.unlink()
    for label in ("ant", "bee"):
        folder = tree / "test" / label
        Image.fromarray(pixels).save(folder / "a.png")
        Image.fromarray(pixels).save(folder / "b.tif")
        Image.fromarray(pixels.astype(">u2")).save(folder / "c.tif")
        (folder / "d.ppm").write_bytes(b"P5 8 8 65535\n" + pixels.astype(">u2").tobytes())  # Pillow's mode I
    test = dataset.load(Data(source=f"imagefolder:{tree}", image_size=8)).test.images
    assert [np.unique(test[index]).tolist() for index in range(8)] == [[128]] * 8


def test_images_of_12_bits_in_16_are_warned_of(tree: Path) -> None:
    """They are nearly black; one that uses its range shows that the others may."""
    section = Data(source=f"imagefolder:{tree}", val_fraction=0.3)
    images = Data(source=f"images:{tree}", classes=2)
    for index in range(3):
        pixels = np.full((8, 8), 4095 - index, np.uint16)
        Image.fromarray(pixels).save(tree / "train" / "ant" / f"deep{index}.png")
    for lines in (described.described(section), described.described(images)):
        assert [line for line in lines if "16-bit" in line] == [
            "  warning: no pixel of the 3 16-bit images that were looked at is above 4,095 of 65,535, which is read as 15 "
            "of 255: they are nearly black\n    → scale them to the whole range of 16 bits, or save them with 8"
        ]
    Image.fromarray(np.full((8, 8), 2**13, np.uint16)).save(tree / "train" / "ant" / "bright.png")
    assert not any("16-bit" in line for line in described.described(section))


def test_a_folder_that_cannot_be_read_is_told(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not left out. (Whoever runs the tests may read everything.)"""
    scan = os.scandir

    def refuses(path: str) -> object:
        if str(path).endswith("deep"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    (tree / "train" / "ant" / "deep").mkdir()
    monkeypatch.setattr(os, "scandir", refuses)
    assert error_of(f"imagefolder:{tree}").startswith(f"{tree}/train/ant/deep cannot be read: Permission denied\n")


def test_statistics_are_exact_and_need_no_room(tree: Path) -> None:
    section = Data(source=f"imagefolder:{tree}", image_size=8)
    found = dataset.load(section)
    pixels = np.stack([found.train.images[i] for i in range(len(found.train))]).astype(np.float64) / 255
    assert found.preprocessing.mean == tuple(np.round(pixels.mean((0, 2, 3)), 4))
    assert found.preprocessing.std[:2] == tuple(np.round(pixels.std((0, 2, 3)), 4))[:2]


def test_a_folder_that_is_not_unpacked(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    assert "; it is empty" in error_of(f"imagefolder:{tmp_path}/d")
    (tmp_path / "d" / "notes.txt").write_text("")
    assert "; it holds notes.txt" in error_of(f"imagefolder:{tmp_path}/d")
    (tmp_path / "d" / "photos.tar").write_bytes(b"")
    assert "; unpack photos.tar" in error_of(f"imagefolder:{tmp_path}/d")


def renamed(tree: Path, **names: str) -> dataset.DataSet:
    for old, new in names.items():
        (tree / old).rename(tree / new)
    return dataset.load(Data(source=f"imagefolder:{tree}", image_size=8))


@pytest.mark.parametrize(
    ("names", "told"),
    [
        ({"train": "Train", "test": "TEST"}, ["  read as test: TEST", "  read as train: Train"]),
        ({"train": "Training", "test": "testing"}, ["  read as test: testing", "  read as train: Training"]),
    ],
)
def test_splits_by_other_names(tree: Path, names: dict[str, str], told: list[str]) -> None:
    """They are not two classes; and the same images are the same data."""
    section = Data(source=f"imagefolder:{tree}", image_size=8, val_fraction=0.3)
    before = fingerprint.of(section)
    found = renamed(tree, **names)
    assert (found.classes, len(found.test)) == (("ant", "bee"), 4)
    assert fingerprint.of(section) == before
    assert described.described(section)[1:3] == told


@pytest.mark.parametrize("name", ["val", "valid", "Validation"])
def test_validation_splits_by_other_names(tree: Path, name: str) -> None:
    shutil.copytree(tree / "test", tree / name)
    found = dataset.load(Data(source=f"imagefolder:{tree}", image_size=8))
    assert (len(found.train), len(found.val), len(found.test)) == (12, 4, 4)


def test_two_folders_of_one_split_are_refused(tree: Path) -> None:
    shutil.copytree(tree / "train", tree / "Training")
    assert error_of(f"imagefolder:{tree}") == (
        f"{tree}/Training and {tree}/train are both the train split\n  → join them, or rename one"
    )


@pytest.mark.parametrize("names", [("training_set", "test_set"), ("train2017", "val2017"), ("TrainImages", "TestImages")])
def test_classes_that_are_called_like_splits_are_refused(tree: Path, names: tuple[str, str]) -> None:
    for old, new in zip(("train", "test"), names, strict=True):
        (tree / old).rename(tree / new)
    first, second = sorted(names)
    assert error_of(f"imagefolder:{tree}") == (
        f"the folders in {tree} are called like splits and not like classes: {first}, {second}\n"
        f"  → call the folders of splits train, test and val: {tree}/train/CLASS/*.png"
    )


def flattened(folder: Path) -> None:
    """Leave the images of the first class, in the folder itself."""
    for path in (folder / "ant").iterdir():
        path.rename(folder / path.name)
    for name in ("ant", "bee"):
        shutil.rmtree(folder / name)


def test_splits_without_classes_are_refused(tree: Path) -> None:
    flattened(tree / "train")
    flattened(tree / "test")
    assert error_of(f"imagefolder:{tree}").endswith(f"/*.png; images:{tree} takes images without labels")


def test_a_class_that_is_called_like_a_split_is_told(tree: Path) -> None:
    """Trains and buses: a folder with images alone is no split."""
    (tree / "test").rename(tree / "bus")
    shutil.copytree(tree / "train", tree / "car")
    flattened(tree / "train")
    section = Data(source=f"imagefolder:{tree}", image_size=8, val_fraction=0.3)
    assert dataset.load(section).classes == ("bus", "car", "train")
    assert any(
        line.startswith("  warning: taken as a class, though a split may be called so: train\n")
        for line in described.described(section)
    )


def test_val_is_the_test_split_where_there_is_no_other(tree: Path, npz: Callable[..., str]) -> None:
    before = fingerprint.of(Data(source=f"imagefolder:{tree}"))
    (tree / "test").rename(tree / "valid")
    arrays = make_arrays()
    source = npz(changes={"x_test": None, "y_test": None, "x_val": arrays["x_test"], "y_val": arrays["y_test"]})
    sections = [Data(source=name, image_size=16, val_fraction=0.25) for name in (f"imagefolder:{tree}", source)]
    folder, archive = (dataset.load(section) for section in sections)
    assert (len(folder.train), len(folder.val), len(folder.test)) == (8, 4, 4)
    assert (len(archive.train), len(archive.val), len(archive.test)) == (60, 20, 16)
    assert described.described(sections[0])[2] == (
        "  no test folder: valid is the test split, and data.val_fraction of train is for validation"
    )
    assert described.described(sections[1])[1] == (
        "  no x_test: x_val is the test split, and data.val_fraction of x_train is for validation"
    )
    same_samples.same(sections[0], sections[0].model_copy(update={"source": f"imagefolder:{tree}/."}))
    assert fingerprint.of(Data(source=f"imagefolder:{tree}")) == before, "it is the same data by another name"


def test_train_alone_keeps_a_fifth_for_the_test(tree: Path) -> None:
    shutil.rmtree(tree / "test")
    section = Data(source=f"imagefolder:{tree}", image_size=8, val_fraction=0.3)
    assert np.bincount(dataset.load(section).test.labels).tolist() == [2, 2]
    assert "  no test folder: a fixed fifth of each class of train is the test split" in described.described(section)


def test_a_class_that_is_in_the_validation_split_alone_is_refused(tree: Path, npz: Callable[..., str]) -> None:
    """It would never be trained."""
    shutil.copytree(tree / "test", tree / "val")
    for path in (tree / "train" / "bee").iterdir():
        path.unlink()
    told = ": no training image of class 1 (bee), which only the validation split has\n"
    assert told in error_of(f"imagefolder:{tree}")
    labels = {"y_train": np.arange(80) % 3, "x_val": np.zeros((8, 16, 16), np.uint8), "y_val": np.arange(8) % 4}
    assert ": no training image of class 3 (3), which only the validation split has\n" in error_of(npz(changes=labels))


def test_a_folder_without_images_is_no_class(tree: Path) -> None:
    for place in ("train/wasp", "test/wasp", "test/fly/deep"):
        (tree / place).mkdir(parents=True)
    section = Data(source=f"imagefolder:{tree}", image_size=8, val_fraction=0.3)
    assert dataset.load(section).classes == ("ant", "bee")
    assert "  no class, for there is no image in it: fly, wasp" in described.described(section)
    root = tree / "train"
    section = Data(source=f"imagefolder:{root}", image_size=8, val_fraction=0.3)
    assert dataset.load(section).classes == ("ant", "bee")
    assert "  no class, for there is no image in it: wasp" in described.described(section)


def test_a_folder_that_is_one_too_high(tree: Path) -> None:
    """The folder that a recipe lies in, with the data and what edgekd writes."""
    (tree.parent / "build" / "net").mkdir(parents=True)
    (tree.parent / "build" / "net" / "run.json").write_text("")
    too_high = error_of(f"imagefolder:{tree.parent}")
    assert too_high == (
        f"{tree} has folders of splits, test and train, so it is not a class\n"
        f"  → give {tree}, if it is the image folder; else put them above the classes: {tree.parent}/train/images"
    )
    (tree.parent / "more").mkdir()
    Image.new("RGB", (8, 8)).save(tree.parent / "more" / "0.png")
    assert error_of(f"imagefolder:{tree.parent}") == too_high
    shutil.rmtree(tree.parent / "more")
    shutil.rmtree(tree / "test")
    assert error_of(f"imagefolder:{tree.parent}") == (
        f"{tree.parent} has images in only one folder, images, which seems to be the image folder\n  → give {tree}"
    )


def test_pipes_are_not_read(tree: Path, tmp_path: Path) -> None:
    """Opening one waits for ever."""
    os.mkfifo(tree / "train" / "ant" / "x.png")
    section = Data(source=f"imagefolder:{tree}", image_size=8, val_fraction=0.3)
    assert len(dataset.load(section).train) == 8
    assert described.described(section)[1] == "  not read: 1 pipes, sockets or devices"
    fingerprint.of(section)
    os.mkfifo(tmp_path / "x.npz")
    for read in (dataset.load, fingerprint.of):
        with pytest.raises(DataError, match="x.npz is a pipe, a socket or a device, not a file"):
            read(Data(source=f"npz:{tmp_path}/x.npz"))


def test_names_that_are_no_utf_8(tree: Path) -> None:
    """Old archives have them. All that is said and written of them is UTF-8."""
    for split in ("train", "test"):
        (tree / split / "bee").rename(tree / split / os.fsdecode(b"b\xe9"))
    image = tree / "train" / "ant" / os.fsdecode(b"\xff.png")
    shutil.copy(tree / "train" / "ant" / "0.png", image)
    section = Data(source=f"imagefolder:{tree}", image_size=8, val_fraction=0.3)
    assert dataset.load(section).classes == ("ant", "b\\xe9")
    fingerprint.of(section)
    "".join(described.described(section)).encode()
    image.write_bytes(b"")
    assert "/ant/\\xff.png is not a readable image: " in error_of(f"imagefolder:{tree}")


def test_classes_are_listed_in_the_order_in_which_they_are_numbered(tree: Path) -> None:
    names = dataset.load(Data(source=f"imagefolder:{tree}", val_fraction=0.3)).classes
    turned = Data(source=f"imagefolder:{tree}", val_fraction=0.3, class_order=names[::-1])
    assert f"({', '.join(names[::-1])})" in described.described(turned)[0]
