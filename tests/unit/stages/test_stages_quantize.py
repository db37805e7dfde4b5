from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgekd.assembly.context import Context
from edgekd.assembly.stage import perform
from edgekd.data import dataset
from edgekd.progress import Silent
from edgekd.recipe import Recipe
from edgekd.recipe.data import Data
from edgekd.recipe.quantize import Qat
from edgekd.stages import quantize
from edgekd.stages.quantize import QuantizeStage


@pytest.fixture
def images(tmp_path: Path) -> dataset.DataSet:
    """120 training and 40 test images, each of one grey of its own, so that it can be told from the others."""
    greys = np.arange(160, dtype=np.uint8)
    pixels = np.broadcast_to(greys[:, None, None], (160, 8, 8)).copy()
    pixels[:, 0, 0] = 255
    labels = np.arange(160) % 2
    np.savez(tmp_path / "d.npz", x_train=pixels[:120], y_train=labels[:120], x_test=pixels[120:], y_test=labels[120:])
    return dataset.load(Data(source=f"npz:{tmp_path / 'd.npz'}", image_size=8, val_fraction=0.25, augment=("flip", "erase")))


def greys(images: dataset.DataSet, x: Any) -> list[int]:
    values = x[:, 0, 4, 4].numpy() * images.preprocessing.std[0] + images.preprocessing.mean[0]
    return [int(value) for value in np.round(values * 255)]


def test_calibration_images_are_of_the_training_split_alone(images: dataset.DataSet) -> None:
    train = {int(images.train.images[index][0, 4, 4]) for index in range(len(images.train))}
    held_out = {int(images.val.images[index][0, 4, 4]) for index in range(len(images.val))}
    (x,) = quantize.calibration_images(images, 1000).values()
    assert x.shape == (90, 3, 8, 8)
    assert sorted(greys(images, x)) == sorted(train)
    assert not train & held_out


def test_calibration_images_are_a_fixed_mix_of_the_classes(images: dataset.DataSet) -> None:
    first, again = (greys(images, *quantize.calibration_images(images, 32).values()) for _ in range(2))
    assert first == again
    assert len(set(first)) == 32
    assert 8 <= sum(grey % 2 for grey in first) <= 24
    assert first != sorted(first)


def test_only_the_method_decides_the_settings_in_the_key(sections: Callable[..., Recipe]) -> None:
    qat, ptq = sections(Qat()), sections({"method": "ptq", "weight_bits": 7})
    assert QuantizeStage().config(qat, "quantize")["quantize"].keys() == Qat.model_fields.keys()
    found = QuantizeStage().config(ptq, "quantize")["quantize"]
    assert (found["method"], found["weight_bits"]) == ("ptq", 7)
    assert "epochs" not in found


@pytest.fixture
def sections() -> Callable[..., Recipe]:
    def make(section: Any) -> Recipe:
        student = {"model": "torchvision:mobilenet_v2"}
        distill = {"epochs": 2, "losses": [{"kind": "task"}]}
        data_section = {"source": "fashion-mnist-mini"}
        return Recipe.model_validate(
            {"edgekd": 1, "data": data_section, "student": student, "distill": distill, "quantize": section}
        )

    return make


def test_steps_of_distillation_are_not_those_of_int8_training(sections: Callable[..., Recipe]) -> None:
    """Milestones beyond int8's few epochs would leave its learning rate at the peak."""
    recipe = sections(Qat(epochs=2))
    assert recipe.distill is not None
    distill = recipe.distill.model_copy(update={"schedule": "step", "milestones": (150, 180)})
    budget = quantize.budget(recipe.model_copy(update={"distill": distill}))
    assert (budget.epochs, budget.schedule, budget.optimizer) == (2, "cosine", "adamw")


def test_int8_trains_in_float32_whatever_distillation_does(
    sections: Callable[..., Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = sections(Qat(epochs=1))
    assert recipe.distill is not None
    distill = recipe.distill.model_copy(update={"precision": "bf16-mixed"})
    launched: list[str] = []
    monkeypatch.setattr(quantize, "_train", lambda fabric, _context: launched.append(fabric.strategy.precision.precision))
    recipe = recipe.model_copy(update={"distill": distill})
    perform(QuantizeStage(), Context(recipe, "quantize", tmp_path, {}, tmp_path / "log", Silent()))
    assert launched == ["32-true"]
    torch.use_deterministic_algorithms(False)
