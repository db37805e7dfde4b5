"""What a teacher sees where it sees the samples in another way: the same draws, by their pixels."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgekd.data import batches
from edgekd.data.dataset import DataSet, load
from edgekd.distill import looks
from edgekd.distill.teachers import Combination, Ensemble
from edgekd.recipe.data import Data
from edgekd.taps.pairing import pair

Npz = Callable[..., str]


def batch(section: Data, own: DataSet, other: DataSet) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(the student's view, the teacher's, which images) of a whole epoch."""
    dataset = batches.Augmented(own.train, section, seed=4, views=[other.train])
    dataset.epoch = 2
    order = np.random.default_rng(1).permutation(len(own.train)).tolist()
    images, _, indices, view = dataset.__getitems__(order)
    return images["image"].numpy(), view["image"].numpy(), indices.numpy()


def enlarged(npz: Npz, arrays: Callable[..., dict[str, np.ndarray]], factor: int, name: str = "large.npz") -> str:
    """The same images with each pixel ``factor`` times as wide and high."""
    content = arrays()
    return npz(name, {x: content[x].repeat(factor, 1).repeat(factor, 2) for x in ("x_train", "x_test")})


@pytest.mark.parametrize("augment", [["crop"], ["flip"], ["crop", "flip", "color"]])
@pytest.mark.parametrize("factor", [2, 3])
def test_both_views_get_the_same_draw(
    npz: Npz, arrays: Callable[..., dict[str, np.ndarray]], augment: list[str], factor: int
) -> None:
    """Where the teacher's images are the student's with larger pixels, they still are after augmentation."""
    section = Data.model_validate({"source": npz(), "image_size": 16, "augment": augment})
    large = section.model_copy(update={"source": enlarged(npz, arrays, factor), "image_size": 16 * factor})
    own, other = load(section), load(large)
    images, view, indices = batch(section, own, other)
    np.testing.assert_array_equal(view, images.repeat(factor, 2).repeat(factor, 3))
    changed = [not np.array_equal(image, own.train.images[index]) for image, index in zip(images, indices, strict=True)]
    assert sum(changed) > len(changed) // 4


def test_the_boxes_of_erase_are_the_same_part_of_both_views(npz: Npz, arrays: Callable[..., dict[str, np.ndarray]]) -> None:
    bright = {name: np.full_like(arrays()[name], 200) for name in ("x_train", "x_test")}
    section = Data.model_validate({"source": npz(changes=bright), "image_size": 16, "augment": ["erase"]})
    own, other = load(section), load(section.model_copy(update={"image_size": 32}))
    images, view, _ = batch(section, own, other)
    assert (images == 0).any()
    np.testing.assert_array_equal(view, images.repeat(2, 2).repeat(2, 3))


def test_a_rotation_has_one_angle(npz: Npz) -> None:
    """A wedge that is rotated covers the same share of both views, to a pixel's width along its edges."""
    rows = np.arange(64)
    wedge = np.where(rows[:, None] < rows[None, :], 250, 0).astype(np.uint8)
    images = {"x_train": np.stack([wedge] * 80), "x_test": np.stack([wedge] * 16)}
    section = Data.model_validate({"source": npz(changes=images), "image_size": 64, "augment": ["rotate"]})
    small = section.model_copy(update={"image_size": 32})
    ours, theirs, _ = batch(section, load(section), load(small))
    pooled = ours.reshape(-1, 1, 32, 2, 32, 2).mean((3, 5))
    assert np.abs(pooled - theirs).mean() < 10  # unlike draws: over 20
    unlike = np.abs(pooled[1:] - theirs[:-1]).mean()
    assert unlike > 2 * np.abs(pooled - theirs).mean()


@pytest.mark.parametrize("augment", [["trivial"], ["crop", "trivial", "flip"], ["rotate", "erase", "color"]])
def test_views_of_one_form_change_alike(npz: Npz, augment: list[str]) -> None:
    section = Data.model_validate({"source": npz(channels=3), "image_size": 16, "augment": augment})
    images = load(section)
    ours, theirs, indices = batch(section, images, load(section))
    np.testing.assert_array_equal(ours, theirs)
    assert any(not np.array_equal(image, images.train.images[index]) for image, index in zip(ours, indices, strict=True))


def test_the_student_gets_the_same_with_and_without_another_view(npz: Npz) -> None:
    section = Data.model_validate({"source": npz(), "image_size": 16, "augment": ["crop", "flip", "rotate"]})
    images = load(section)
    other = load(section.model_copy(update={"image_size": 24}))
    alone = batches.Augmented(images.train, section, seed=1).__getitems__([3, 1])
    both = batches.Augmented(images.train, section, seed=1, views=[other.train]).__getitems__([3, 1])
    assert torch.equal(alone[0]["image"], both[0]["image"])
    assert all(torch.equal(a, b) for a, b in zip(alone[1:], both[1:3], strict=True))
    assert len(alone) == 3
    assert both[3]["image"].shape == (2, 1, 24, 24)


@pytest.mark.parametrize(
    "augment", [["rotate"], ["color"], ["rotate", "color", "erase"], ["color", "crop", "rotate", "flip"]]
)
@pytest.mark.parametrize("channels", [0, 3])
def test_rotation_and_color_are_torchvisions(npz: Npz, augment: list[str], channels: int) -> None:
    section = Data.model_validate({"source": npz(channels=channels), "image_size": 16, "augment": augment})
    train = load(section).train
    images, *_ = batches.Augmented(train, section, seed=4).__getitems__(list(range(len(train))))
    for index, image in enumerate(images["image"]):
        torch.manual_seed(batches.draw_seed(4, 0, index))
        assert torch.equal(image, batches.transforms(section)(torch.from_numpy(np.array(train.images[index]))))


class Bright(nn.Module):
    """Class 0 where an image is darker than its view's mean, 1 where it is brighter; knows what size it takes."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[2:] == (self.size, self.size)
        mean = x.mean((1, 2, 3))
        return torch.stack([-mean, mean], 1)


def test_each_of_an_ensemble_sees_its_own_view(npz: Npz) -> None:
    y = np.arange(80) % 2
    x = np.where(y[:, None, None] == 1, 200, 20) * np.ones((80, 16, 16))
    changes = {"x_train": x.astype(np.uint8), "y_train": y, "x_test": x[:16].astype(np.uint8), "y_test": y[:16]}
    section = Data(source=npz(changes=changes), image_size=16, channels=1)
    views = [load(section.model_copy(update=change)) for change in ({"image_size": 24, "channels": 3}, {})]
    teacher = Ensemble({"large": Bright(24), "small": Bright(16)}, Combination("logits"))
    assert looks.logits(teacher, views, torch.device("cpu")).argmax(1).tolist() == views[0].val.labels.tolist()
    assert looks.logits(Bright(24), views[:1], torch.device("cpu")).argmax(1).tolist() == views[0].val.labels.tolist()
    blank = looks.ViewNormalizer(views).blank()
    assert [tuple(stored["image"].shape) for stored in blank] == [(2, 1, 24, 24), (2, 1, 16, 16)]


def test_stages_of_images_of_other_sizes_are_paired_by_depth(small: Callable[..., nn.Module]) -> None:
    """The same resolutions would leave the student's last stage out."""
    student, teacher = small(), small(width=6)
    from edgekd.taps.pairing import match
    from edgekd.taps.taps import survey

    found = match(survey(student, torch.zeros(1, 3, 16, 16)), survey(teacher, torch.zeros(1, 3, 32, 32)))
    assert [(p.student.path, p.teacher.path) for p in found] == [("stem", "stem"), ("down1", "down1"), ("down2", "down2")]
    assert [p.teacher.size for p in found] == [(32, 32), (16, 16), (8, 8)]
    alike = pair(student, teacher, torch.zeros(1, 3, 16, 16))
    assert [p.teacher.size for p in alike] == [(16, 16), (8, 8), (4, 4)]
