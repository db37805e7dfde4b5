from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

import numpy as np
import pytest
import torch

from edgekd.data import batches
from edgekd.data.dataset import load
from edgekd.recipe.data import Augmentation, Data

Npz = Callable[..., str]


@pytest.fixture
def section(npz: Npz) -> Data:
    return Data(source=npz(channels=3), image_size=16, augment=("crop", "flip", "erase"))


def images_of(dataset: batches.Augmented, order: list[int]) -> dict[int, bytes]:
    return {index: dataset[index][0]["image"].numpy().tobytes() for index in order}


def test_a_draw_depends_on_seed_epoch_and_index_alone(section: Data) -> None:
    train = load(section).train
    dataset = batches.Augmented(train, section, seed=3)
    order = list(range(len(train)))
    forth = images_of(dataset, order)
    torch.manual_seed(99)
    torch.rand(7)
    assert images_of(dataset, order[::-1]) == forth
    assert images_of(batches.Augmented(train, section, seed=3), order) == forth


def test_another_epoch_and_another_seed_draw_anew(section: Data) -> None:
    train = load(section).train
    order = list(range(20))
    draws = []
    for seed, epoch in ((0, 0), (0, 1), (1, 0)):
        dataset = batches.Augmented(train, section, seed)
        dataset.epoch = epoch
        draws.append(images_of(dataset, order))
    for a, b in ((0, 1), (0, 2), (1, 2)):
        changed = sum(draws[a][index] != draws[b][index] for index in order)
        assert changed > 15


def test_augmentation_leaves_the_global_generator_alone(section: Data) -> None:
    dataset = batches.Augmented(load(section).train, section, seed=0)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    dataset[0]
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("name", get_args(Augmentation))
@pytest.mark.parametrize("channels", [0, 3])
def test_each_augmentation_does_something_and_keeps_the_form(npz: Npz, name: str, channels: int) -> None:
    section = Data.model_validate({"source": npz(channels=channels), "image_size": 16, "augment": [name]})
    train = load(section).train
    dataset = batches.Augmented(train, section, seed=0)
    changed = 0
    for index in range(len(train)):
        stored, (label,), (which,) = dataset[index]
        image = stored["image"][0]
        assert which == index
        assert image.dtype == torch.uint8
        assert image.shape == train.images[index].shape
        assert label == train.labels[index]
        changed += not np.array_equal(image.numpy(), train.images[index])
    assert changed > len(train) // 4


def test_without_augmentation_the_images_are_as_stored(npz: Npz) -> None:
    section = Data(source=npz(), image_size=16)
    train = load(section).train
    dataset = batches.Augmented(train, section, seed=0)
    for index in range(len(train)):
        assert np.array_equal(dataset[index][0]["image"][0].numpy(), train.images[index])
    dataset[0][0]["image"].zero_()  # a batch that is changed in place must not change the data
    assert train.images[0].any()


def test_order_is_a_permutation_of_its_own_each_epoch() -> None:
    orders = []
    for seed, epoch in ((0, 0), (0, 0), (0, 1), (1, 0)):
        sampler = batches.Shuffled(50, seed)
        sampler.epoch = epoch
        orders.append(list(sampler))
    assert all(sorted(order) == list(range(50)) for order in orders)
    assert orders[0] == orders[1]
    assert orders[0] != orders[2]
    assert orders[0] != orders[3]


def test_draw_seeds_do_not_collide() -> None:
    """Neighbouring seeds, epochs and indices are the ones in use."""
    found = {batches.draw_seed(s, e, i) for s in range(4) for e in range(10) for i in range(-1, 500)}
    assert len(found) == 4 * 10 * 501
    assert all(0 <= value < 2**63 for value in found)


def test_batches_have_one_size(npz: Npz) -> None:
    section = Data(source=npz(train=80), image_size=16)  # 72 to train on
    train = load(section).train
    for size, expected in ((64, [64]), (10, [10] * 7), (100, [72])):
        found, _, _ = batches.loader(train, section, size, seed=0)
        assert [len(labels) for _, labels, _ in found] == expected


@pytest.mark.parametrize(("stored", "channels"), [(0, 1), (0, 3), (3, 3)])
def test_normalize_is_preprocess_bit_for_bit(npz: Npz, stored: int, channels: int) -> None:
    """What is trained on is what load snippets and every runtime get."""
    images = load(Data(source=npz(channels=stored), image_size=16, channels=channels))
    every: Any = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16).repeat(stored or 1, axis=1)
    for x in (every, np.stack([images.test.images[i] for i in range(16)])):
        ours = batches.Normalize(images.preprocessing)(torch.from_numpy(x)).numpy()
        expected = images.preprocessing.arrays(x)
        assert ours.dtype == expected.dtype == np.float32
        assert ours.shape == expected.shape
        assert np.array_equal(ours.view(np.uint32), expected.view(np.uint32))


@pytest.mark.parametrize("augment", [["crop"], ["flip"], ["erase"], ["crop", "flip", "erase"], ["erase", "flip", "crop"]])
@pytest.mark.parametrize("channels", [0, 3])
def test_a_batch_is_augmented_as_torchvision_augments_each_image(npz: Npz, augment: list[str], channels: int) -> None:
    """Bit for bit: the draws are torchvision's own, for an image that starts from the same seed."""
    section = Data.model_validate({"source": npz(channels=channels), "image_size": 16, "augment": augment})
    train = load(section).train
    dataset = batches.Augmented(train, section, seed=4)
    dataset.epoch = 2
    order = np.random.default_rng(0).permutation(len(train)).tolist()
    stored, labels, indices = dataset.__getitems__(order)
    images = stored["image"]
    expected = []
    for index in order:
        torch.manual_seed(batches.draw_seed(4, 2, index))
        expected.append(batches.transforms(section)(torch.from_numpy(np.array(train.images[index]))))
    assert torch.equal(images, torch.stack(expected))
    assert labels.tolist() == train.labels[order].tolist()
    assert indices.tolist() == order
    assert images.dtype == torch.uint8
