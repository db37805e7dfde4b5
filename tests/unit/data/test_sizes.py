"""Images that are not square, and other numbers of channels than 1 and 3."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from edgekd.data import augment, batches, dataset, fingerprint
from edgekd.data.augment import Crop, Erase
from edgekd.errors import DataError
from edgekd.models import build
from edgekd.models.torchvision import import_torchvision
from edgekd.recipe.data import Data
from edgekd.taps.taps import survey


@pytest.fixture
def archive(tmp_path: Path) -> Callable[..., str]:
    def write(*shape: int) -> str:
        random = np.random.default_rng(0)
        x = random.integers(0, 256, (40, *shape), np.uint8)
        np.savez(tmp_path / "x.npz", x_train=x, y_train=np.arange(40) % 2, x_test=x[:8], y_test=np.arange(8) % 2)
        return f"npz:{tmp_path / 'x.npz'}"

    return write


def test_two_equal_sides_are_one_number(archive: Callable[..., str]) -> None:
    one, two = (Data(source=archive(16, 16, 3), image_size=size) for size in (16, (16, 16)))
    assert one == two
    assert fingerprint.of(one) == fingerprint.of(two)
    for wrong in ((16,), (16, 4), (16, 16, 16), 4):
        with pytest.raises(ValidationError):
            Data.model_validate({"source": "random", "image_size": wrong})


def test_images_that_are_not_square(archive: Callable[..., str]) -> None:
    section = Data(source=archive(12, 30, 3), image_size=(16, 40), augment=("crop", "flip", "rotate", "erase"))
    images = dataset.load(section)
    assert images.train.images[0].shape == (3, 16, 40)
    assert images.purpose.signature.inputs[0].shape(2) == (2, 3, 16, 40)
    batch, *_ = batches.Augmented(images.train, section, 0).__getitems__([0, 1, 2])
    assert batch["image"].shape == (3, 3, 16, 40)
    network = build.network("torchvision:mobilenet_v2", {"width_mult": 0.35}, images.purpose).eval()
    example = build.one_input(images.purpose.signature)
    found = survey(network, example)
    assert [layer.size for layer in found.stages] == [(8, 20), (4, 10), (2, 5), (1, 3), (1, 2)]
    assert build.macs(network, images.purpose.signature) > 0


@pytest.mark.parametrize(("name", "step"), [("RandomCrop", Crop((16, 40), 2)), ("RandomErasing", Erase((16, 40)))])
def test_draws_are_torchvision_s(name: str, step: Any) -> None:
    v2 = import_torchvision().transforms.v2
    transform = v2.RandomCrop((16, 40), padding=2) if name == "RandomCrop" else v2.RandomErasing()
    x = np.random.default_rng(1).integers(1, 256, (24, 3, 16, 40), np.uint8)
    (ours,) = augment.apply([step], [x.copy()], range(24))
    for index in range(24):
        torch.manual_seed(index)
        np.testing.assert_array_equal(transform(torch.from_numpy(x[index])).numpy(), ours[index])


def test_a_transformer_s_tokens_of_an_image_that_is_not_square(archive: Callable[..., str]) -> None:
    class Blocks(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patch = torch.nn.Linear(3 * 8 * 8, 24)
            rows = (torch.nn.Sequential(torch.nn.Linear(24, 24), torch.nn.GELU()) for _ in range(3))
            self.blocks = torch.nn.Sequential(*rows)
            self.head = torch.nn.Linear(24, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            patches = x.unfold(2, 8, 8).unfold(3, 8, 8).permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)
            return self.head(self.blocks(self.patch(patches)).mean(1))

    found = survey(Blocks().eval(), torch.randn(1, 3, 16, 40))
    assert {layer.size for layer in found.blocks} == {(2, 5)}


def test_as_many_channels_as_an_archive_has(archive: Callable[..., str]) -> None:
    images = dataset.load(Data(source=archive(16, 16, 5), image_size=16, channels=5))
    assert images.train.images[0].shape == (5, 16, 16)
    assert len(images.preprocessing.mean) == 5
    assert build.network("edgekd:resnet10", {"width": 4, "in_channels": 5}, images.purpose) if False else True
    with pytest.raises(DataError, match="of shape"):
        dataset.load(Data(source=archive(16, 16, 5), image_size=16))
    with pytest.raises(DataError, match="channels"):
        dataset.load(Data(source=archive(16, 16, 3), image_size=16, channels=5))
