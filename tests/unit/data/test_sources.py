from __future__ import annotations

import gzip
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgekd.data import dataset, decoding, described, fingerprint
from edgekd.data.sources import fashion_mnist
from edgekd.errors import DataError
from edgekd.progress import Silent
from edgekd.recipe.data import Data
from edgekd.resources import find

Npz = Callable[..., str]


def load(source: str, **settings: Any) -> dataset.DataSet:
    return dataset.load(Data.model_validate({"source": source, "image_size": 16, **settings}))


def error_of(source: str, **settings: Any) -> str:
    with pytest.raises(DataError) as caught:
        load(source, **settings)
    assert caught.value.hint
    return str(caught.value)


# --- npz --------------------------------------------------------------------------------------------------------------


def test_npz_grey_and_colour(npz: Npz) -> None:
    grey = load(npz("grey.npz"))
    assert grey.train.images[0].shape == (1, 16, 16)
    assert grey.classes == ("0", "1", "2", "3")
    colour = load(npz("colour.npz", channels=3))
    assert colour.train.images[0].shape == (3, 16, 16)
    assert len(colour.preprocessing.mean) == 3


def test_npz_with_class_names(npz: Npz) -> None:
    assert load(npz(changes={"classes": np.array(["ant", "bee", "cat", "dog"])})).classes == ("ant", "bee", "cat", "dog")
    as_bytes = np.array([b"ant", "büe".encode(), b"\xff", b"dog"])
    assert load(npz(changes={"classes": as_bytes})).classes == ("ant", "büe", "\\xff", "dog")
    twice = error_of(npz(changes={"classes": np.array(["ant", "bee", "ant", "dog"])}))
    assert "classes has 'ant' more than once" in twice


def test_npz_keeps_pixels_and_channel_order(npz: Npz) -> None:
    x = np.zeros((8, 16, 16, 3), np.uint8)
    x[:, 0, 5] = (10, 20, 30)
    images = load(npz(changes={"x_test": x, "y_test": np.arange(8) % 4}, channels=3)).test.images
    assert images[3][:, 0, 5].tolist() == [10, 20, 30]
    assert images[3].sum() == 60


def test_npz_is_resized(npz: Npz) -> None:
    source = npz(changes={"x_test": np.full((4, 16, 16), 77, np.uint8), "y_test": np.arange(4)})
    test = load(source, image_size=24).test.images
    assert test[0].shape == (1, 24, 24)
    assert np.all(test[0] == 77)


def test_npz_missing(tmp_path: Path) -> None:
    assert error_of(f"npz:{tmp_path}/no.npz") == (
        f"{tmp_path}/no.npz does not exist\n  → correct data.source; a relative path starts at the recipe's folder"
    )


def test_npz_without_an_array(npz: Npz, tmp_path: Path) -> None:
    assert error_of(npz(changes={"x_test": None, "y_test": None, "extra": np.zeros(1)})) == (
        f"{tmp_path}/data.npz holds extra, x_train, y_train, but no x_test, y_test\n"
        "  → it needs x_train, y_train, x_test and y_test; see docs/data.md"
    )


@pytest.mark.parametrize(
    ("x", "told"),
    [
        (np.zeros((80, 16, 16, 4), np.uint8), "uint8 of shape (80, 16, 16, 4)"),
        (np.zeros((80, 3, 16, 16), np.uint8), "uint8 of shape (80, 3, 16, 16)"),
        (np.zeros((80, 256), np.uint8), "uint8 of shape (80, 256)"),
    ],
)
def test_npz_of_another_form(npz: Npz, x: np.ndarray, told: str, tmp_path: Path) -> None:
    assert error_of(npz(changes={"x_train": x})) == (
        f"{tmp_path}/data.npz: x_train is {told}\n  → images must be uint8, N×H×W (grey) or N×H×W×3"
    )


def test_npz_of_floats_holds_no_images(npz: Npz) -> None:
    text = error_of(npz(changes={f"x_{split}": np.zeros((n, 16, 16)) for split, n in (("train", 80), ("test", 16))}))
    assert "image-classification takes images, and a sample here is x (float32 (16, 16))" in text


def test_npz_with_objects_is_not_unpickled(npz: Npz, tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "ran",)

    text = error_of(npz(changes={"y_train": np.array([Trap()] * 80, object)}))
    assert text.startswith(f"{tmp_path}/data.npz cannot be read: Object arrays cannot be loaded")
    assert not (tmp_path / "ran").exists()


def damaged(path: Path, how: str) -> None:
    content = path.read_bytes()
    middle = len(content) // 2
    path.write_bytes({
        "truncated": content[:middle],
        "empty": b"",
        "text": b"x_train, y_train\n",
        "bytes changed": content[:middle] + bytes(b ^ 0xFF for b in content[middle : middle + 64]) + content[middle + 64 :],
    }[how])  # fmt: skip


@pytest.mark.parametrize("how", ["truncated", "empty", "text", "bytes changed"])
def test_npz_damaged(tmp_path: Path, arrays: Callable[..., dict[str, Any]], how: str) -> None:
    path = tmp_path / "data.npz"
    np.savez_compressed(path, **arrays())
    damaged(path, how)
    assert error_of(f"npz:{path}").startswith(f"{path} cannot be read: ")


def test_npz_that_is_one_array(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((4, 16, 16), np.uint8))
    assert error_of(f"npz:{tmp_path}/x.npy").startswith(f"{tmp_path}/x.npy cannot be read: ")


def test_npz_that_is_a_folder(tmp_path: Path) -> None:
    assert error_of(f"npz:{tmp_path}") == f"{tmp_path} is a folder\n  → correct data.source"


# --- imagefolder ------------------------------------------------------------------------------------------------------


def test_imagefolder(tree: Path) -> None:
    images = load(f"imagefolder:{tree}", val_fraction=0.2)
    assert images.classes == ("ant", "bee")
    assert (len(images.train), len(images.val), len(images.test)) == (10, 2, 4)
    assert images.test.images[3].shape == (3, 16, 16)
    assert images.test.images[3][:, 8, 8].tolist() == [100, 10, 7]
    for split in (images.train, images.val, images.test):
        assert [int(split.images[i][0, 0, 0]) // 100 for i in range(len(split))] == split.labels.tolist()


def test_imagefolder_as_grey(tree: Path) -> None:
    images = load(f"imagefolder:{tree}", channels=1, val_fraction=0.2)
    assert images.test.images[0].shape == (1, 16, 16)
    assert images.preprocessing.mean[0] == pytest.approx((0.299 * 50 + 0.587 * 25 + 0.114 * 7) / 255, abs=0.02)


def test_imagefolder_formats_and_subfolders(tree: Path) -> None:
    folder = tree / "test" / "ant"
    (folder / "more").mkdir()
    Image.new("L", (9, 9), 200).save(folder / "more" / "grey.JPG")
    Image.new("RGBA", (9, 9), (1, 2, 3, 0)).save(folder / "clear.webp", lossless=True)
    palette = Image.new("P", (9, 9), 1)
    palette.putpalette([0, 0, 0, 9, 8, 7])
    palette.save(folder / "palette.png", transparency=bytes([0, 128]))
    (folder / "notes.txt").write_text("no image")
    images = load(f"imagefolder:{tree}", val_fraction=0.2)
    assert np.bincount(images.test.labels).tolist() == [5, 2]
    pixels = [images.test.images[i][:, 4, 4].tolist() for i in range(5)]
    assert [9, 8, 7] in pixels
    assert [200, 200, 200] in pixels


def test_imagefolder_of_16_bit_images_keeps_their_range(tree: Path) -> None:
    """Medical and depth images: 16 bits to 8 by scaling, not by clipping all to white."""
    Image.fromarray(np.full((16, 16), 0x8000, np.uint16)).save(tree / "test" / "ant" / "0.png")
    assert load(f"imagefolder:{tree}", val_fraction=0.2).test.images[0][:, 4, 4].tolist() == [128, 128, 128]


def test_imagefolder_decoded_on_demand_is_the_same(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that does not fit in memory; a damaged file is then told when it is met."""
    kept = load(f"imagefolder:{tree}", val_fraction=0.2)
    monkeypatch.setattr(decoding, "IN_MEMORY_BYTES", 100)
    lazy = load(f"imagefolder:{tree}", val_fraction=0.2)
    assert [lazy.train.images[i].tobytes() for i in range(10)] == [kept.train.images[i].tobytes() for i in range(10)]
    path = tree / "test" / "bee" / "1.png"
    path.write_bytes(b"")
    with pytest.raises(DataError, match="1.png is not a readable image"):
        lazy.test.images[3]


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "webp"])
def test_what_is_decoded_on_demand_is_looked_through_before(
    tree: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    """A training would end at the first of them, hours later."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8))
    paths = [tree / "train" / "bee" / f"{how}.{suffix}" for how in ("truncated", "empty", "text")]
    for path in paths:
        noise.save(path)
    section = Data(source=f"imagefolder:{tree}", val_fraction=0.2, image_size=8)
    monkeypatch.setattr(decoding, "IN_MEMORY_BYTES", 100)
    described.described(section)
    for path in paths:
        damaged(path, path.stem)
    with pytest.raises(DataError) as caught:
        described.described(section)
    assert caught.value.message.startswith("3 train images cannot be read:")
    assert all(f"{path} is not a readable image" in caught.value.message for path in paths)


@pytest.mark.parametrize("how", ["truncated", "empty", "text"])
def test_imagefolder_damaged_image(tree: Path, how: str) -> None:
    path = tree / "train" / "bee" / "4.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)).save(path)
    damaged(path, how)
    text = error_of(f"imagefolder:{tree}")
    assert text.startswith(f"{path} is not a readable image: ")
    assert text.endswith("\n  → replace it or remove it")


def test_imagefolder_image_that_would_eat_the_memory(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)  # an image of 20×12 now counts as a bomb
    text = error_of(f"imagefolder:{tree}")
    assert text.startswith(
        f"12 train images cannot be read:\n  {tree}/train/ant/0.png is not a readable image: Image size (240 "
    )
    assert text.count(".png is not a readable image") == 10
    assert text.endswith("\n  and 2 more\n  → replace it or remove it")


def test_imagefolder_missing(tree: Path, tmp_path: Path) -> None:
    assert error_of(f"imagefolder:{tmp_path}/no").startswith(f"{tmp_path}/no does not exist\n")
    shutil.rmtree(tree / "train")
    assert error_of(f"imagefolder:{tree}") == (
        f"{tree}/train does not exist\n"
        f"  → an image folder has {tree}/train/CLASS and {tree}/test/CLASS, or {tree}/CLASS alone"
    )


def test_imagefolder_class_in_one_split(tree: Path) -> None:
    shutil.copytree(tree / "test" / "bee", tree / "test" / "cow")
    assert error_of(f"imagefolder:{tree}") == (
        f"{tree}: class 'cow' is in only one of train and test\n  → give all splits the same class folders"
    )


def test_imagefolder_empty(tree: Path, tmp_path: Path) -> None:
    for path in (tree / "train" / "bee").iterdir():
        path.unlink()
    assert error_of(f"imagefolder:{tree}") == (
        f"imagefolder:{tree}: no training image of class 1 (bee)\n"
        "  → add images of it, or number the labels from 0 without gaps"
    )
    (tmp_path / "e" / "train").mkdir(parents=True)
    (tmp_path / "e" / "test").mkdir()
    assert error_of(f"imagefolder:{tmp_path}/e").startswith(f"no file below {tmp_path}/e is an image that edgekd reads")


def test_imagefolder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "images.zip").write_bytes(b"PK")
    assert error_of(f"imagefolder:{tmp_path}/images.zip").startswith(f"{tmp_path}/images.zip is not a folder\n")


def test_imagefolder_without_splits_keeps_a_fifth_of_each_class_for_the_test(tree: Path) -> None:
    root = tree / "train"
    images = load(f"imagefolder:{root}", val_fraction=0.3)
    assert images.classes == ("ant", "bee")
    assert np.bincount(images.test.labels).tolist() == [2, 2]
    seen = [split.images[i].tobytes() for split in (images.train, images.val, images.test) for i in range(len(split))]
    assert len(set(seen)) == 12, "no image is in two splits"
    again = load(f"imagefolder:{root}", val_fraction=0.3)
    assert [again.test.images[i].tobytes() for i in range(4)] == [images.test.images[i].tobytes() for i in range(4)]


def test_imagefolder_that_is_empty_or_flat(tmp_path: Path) -> None:
    assert error_of(f"imagefolder:{tmp_path}").endswith(f"an image folder has {tmp_path}/CLASS/*.png; it is empty")
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    assert error_of(f"imagefolder:{tmp_path}").endswith(f"images:{tmp_path} takes images without labels")


def test_imagefolder_of_one_class(tmp_path: Path) -> None:
    (tmp_path / "ant").mkdir()
    for index in range(6):
        Image.new("RGB", (9, 9)).save(tmp_path / "ant" / f"{index}.png")
    assert "there is only one class\n" in error_of(f"imagefolder:{tmp_path}")


# --- without labels ---------------------------------------------------------------------------------------------------


def test_images_without_labels(tree: Path) -> None:
    images = load(f"images:{tree}", classes=5)
    assert (len(images.train) + len(images.val), len(images.test)) == (12, 4)
    assert len(images.classes) == 5
    assert not images.labelled
    assert set(images.test.labels.tolist()) == {-1}


def test_too_few_images_without_labels(tmp_path: Path) -> None:
    assert error_of(f"images:{tmp_path}", classes=5).startswith(f"{tmp_path} has 0 images\n")


def test_random_images_are_always_the_same_and_say_nothing_of_normalization() -> None:
    one, two = (load("random", classes=3, channels=1) for _ in range(2))
    assert one.test.images[0].shape == (1, 16, 16)
    assert one.test.images[5].tobytes() == two.test.images[5].tobytes()
    assert (one.preprocessing.mean, one.preprocessing.std) == ((0.0,), (1.0,))


# --- IDX --------------------------------------------------------------------------------------------------------------


def idx(array: np.ndarray) -> bytes:
    return struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


@pytest.fixture
def fashion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as Debian's dataset-fashion-mnist installs it, with few images."""
    folder = tmp_path / "fashion-mnist"
    folder.mkdir()
    random = np.random.default_rng(0)
    for stem, count in (("train", 60), ("t10k", 20)):
        x, y = random.integers(0, 256, (count, 28, 28), np.uint8), (np.arange(count) % 10).astype(np.uint8)
        (folder / f"{stem}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(x), mtime=0))
        (folder / f"{stem}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(y), mtime=0))
    monkeypatch.setattr(fashion_mnist, "FOLDER", folder)
    return folder


def test_fashion_mnist(fashion: Path) -> None:
    images = load("fashion-mnist", image_size=28, val_fraction=0.2)
    assert (len(images.train), len(images.val), len(images.test)) == (50, 10, 20)
    assert images.classes == fashion_mnist.CLASSES
    raw = gzip.decompress((fashion / "t10k-images-idx3-ubyte.gz").read_bytes())
    assert images.test.images[3].tobytes() == raw[16 + 3 * 784 : 16 + 4 * 784]
    assert images.test.labels.tolist() == [*range(10), *range(10)]


@pytest.mark.parametrize("how", ["truncated", "empty", "text", "bytes changed"])
def test_fashion_mnist_damaged(fashion: Path, how: str) -> None:
    path = fashion / "train-images-idx3-ubyte.gz"
    damaged(path, how)
    text = error_of("fashion-mnist")
    assert text.startswith(f"{path} cannot be read: ")
    assert text.endswith("\n  → install dataset-fashion-mnist again")


@pytest.mark.parametrize("content", [b"\0\0\x0d\1" + b"\0\0\0\1" + b"\0" * 4, b"\0\0\x08\3\0\0\0\2", b"PK\3\4", b"\0"])
def test_idx_of_another_kind(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.gz").write_bytes(gzip.compress(content))
    with pytest.raises(DataError, match="a.gz cannot be read: "):
        fashion_mnist.read_idx(tmp_path / "a.gz")


def test_fashion_mnist_file_missing(fashion: Path) -> None:
    (fashion / "t10k-labels-idx1-ubyte.gz").unlink()
    text = error_of("fashion-mnist")
    assert "t10k-labels-idx1-ubyte.gz" in text
    assert text.endswith("install dataset-fashion-mnist again")


def test_fashion_mnist_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fashion_mnist, "FOLDER", tmp_path / "no")
    expected = (
        f"the full Fashion-MNIST is not in {tmp_path}/no\n"
        "  → apt-get install dataset-fashion-mnist, or use source: fashion-mnist-mini (needs nothing) or "
        "torchvision:FashionMNIST (downloads)"
    )
    assert error_of("fashion-mnist") == expected
    with pytest.raises(DataError) as caught:
        fingerprint.of(Data(source="fashion-mnist"))
    assert str(caught.value) == expected


def test_mini_is_the_first_of_each_class_of_the_full_set() -> None:
    """The archive against Debian's files, where they are installed."""
    if not fashion_mnist.FOLDER.is_dir():
        pytest.skip("dataset-fashion-mnist is not installed")
    with np.load(find("assets", "fashion-mnist-mini/images.npz")) as mini:
        for split, stem, count in (("train", "train", 1000), ("test", "t10k", 200)):
            x = fashion_mnist.read_idx(fashion_mnist.FOLDER / f"{stem}-images-idx3-ubyte.gz")
            y = fashion_mnist.read_idx(fashion_mnist.FOLDER / f"{stem}-labels-idx1-ubyte.gz")
            for label in range(10):
                ours = mini[f"x_{split}"][mini[f"y_{split}"] == label]
                assert np.array_equal(ours, x[y == label][:count])


# --- torchvision ------------------------------------------------------------------------------------------------------


@pytest.fixture
def downloaded(tmp_path: Path) -> Path:
    """What torchvision's FashionMNIST has in its root after a download, with few images."""
    raw = tmp_path / "root" / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for stem, count in (("train", 40), ("t10k", 20)):
        x = np.zeros((count, 28, 28), np.uint8) + np.arange(count, dtype=np.uint8)[:, None, None]
        (raw / f"{stem}-images-idx3-ubyte").write_bytes(idx(x))
        (raw / f"{stem}-labels-idx1-ubyte").write_bytes(idx((np.arange(count) % 10).astype(np.uint8)))
    return tmp_path / "root"


def test_torchvision_data(downloaded: Path) -> None:
    images = load("torchvision:FashionMNIST", root=str(downloaded), download=False, channels=1, val_fraction=0.25)
    assert (len(images.train), len(images.val), len(images.test)) == (30, 10, 20)
    assert images.classes == fashion_mnist.CLASSES
    assert [int(images.test.images[i][0, 3, 3]) for i in range(20)] == list(range(20))
    assert images.test.labels.tolist() == [*range(10), *range(10)]


def test_torchvision_data_not_there(tmp_path: Path) -> None:
    text = error_of("torchvision:FashionMNIST", root=str(tmp_path), download=False)
    assert text == (
        f"torchvision:FashionMNIST could not be had in {tmp_path}: Dataset not found. You can use download=True to download "
        "it\n  → set data.download: true, or put the files there yourself and set data.root"
    )


def test_torchvision_data_of_unknown_name() -> None:
    assert error_of("torchvision:FashionMIST") == (
        "torchvision has no data set 'FashionMIST'\n  → did you mean FashionMNIST?"
    )


def test_torchvision_data_without_splits() -> None:
    text = error_of("torchvision:FakeData")
    assert text.startswith("torchvision:FakeData has no train and test split for classification: ")
    assert text.endswith("\n  → use imagefolder:DIR for it")


def test_decoding_is_told_once_and_only_where_it_is_long(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every stage decodes the images again: in a moment without a word, else the first time alone, until it is long."""
    told: list[tuple[str, int]] = []
    monkeypatch.setattr(decoding, "_DECODED", set())

    class Listening(Silent):
        def task(self, name: str, total: int) -> Any:
            told.append((name, total))
            return super().task(name, total)

    def told_in(brief: float, again: float) -> list[str]:
        told.clear()
        monkeypatch.setattr(decoding, "BRIEF_S", brief)
        monkeypatch.setattr(decoding, "AGAIN_S", again)
        dataset.load(Data(source=f"imagefolder:{tree}", image_size=16, val_fraction=0.2), Listening())
        return [name for name, _ in told]

    both = ["decoding train images", "decoding test images"]
    assert told_in(0, 3600) == both
    assert told == [("decoding train images", 11), ("decoding test images", 3)]  # those that are left after the first
    assert told_in(0, 3600) == []
    assert told_in(3600, 0) == both
    decoding._DECODED.clear()
    assert told_in(3600, 0) == []
