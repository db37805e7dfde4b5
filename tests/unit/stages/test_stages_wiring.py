"""A given network that is wired wrongly is stopped before training, with the cause and what to type."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgekd import data, logits
from edgekd.data import DataSet
from edgekd.errors import ModelError
from edgekd.recipe import Teacher
from edgekd.recipe_data import Data
from edgekd.stages import wiring

SIZE = 32


@pytest.fixture(scope="module")
def section() -> Data:
    return Data(source="fashion-mnist-mini", image_size=SIZE, mean=(0.5,), std=(0.5,))


@pytest.fixture(scope="module")
def images(section: Data) -> DataSet:
    return data.load(section)


class Net(nn.Module):
    """Takes 32 pixels and normalization with 0.5 / 0.5; knows about 75 % of Fashion-MNIST after a few steps."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1),
            nn.ReLU(),
            nn.Conv2d(8, 16, 3, 2, 1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(4),
            nn.Flatten(),
        )
        self.head = nn.Linear(256, 10)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.body(x))
        return out


def train(images: DataSet, labels: np.ndarray, steps: int = 150) -> Net:
    net = Net()
    optimizer = torch.optim.Adam(net.parameters(), 2e-3)
    random = np.random.default_rng(0)
    for _ in range(steps):
        batch = random.choice(len(labels), 64, replace=False)
        x = data.preprocess(np.stack([images.train.images[int(i)] for i in batch]), (0.5,), (0.5,), 3)
        loss = nn.functional.cross_entropy(net(torch.from_numpy(x)), torch.from_numpy(labels[batch]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return net.eval()


@pytest.fixture(scope="module")
def state(images: DataSet) -> dict[str, Tensor]:
    return train(images, images.train.labels).state_dict()


@pytest.fixture
def net(state: dict[str, Tensor]) -> Net:
    network = Net()
    network.load_state_dict(state)
    return network.eval()


def check(network: nn.Module, images: DataSet, section: Data, *, teaches: bool = True) -> list[str]:
    said: list[str] = []
    wiring.check(network, images, section, "teacher" if teaches else "student", teaches=teaches, say=said.append)
    return said


def stopped(network: nn.Module, images: DataSet, section: Data) -> ModelError:
    with pytest.raises(ModelError) as error:
        check(network, images, section)
    return error.value


def test_a_network_that_is_wired_right_is_said_to_be(net: Net, images: DataSet, section: Data) -> None:
    (line,) = check(net, images, section)
    assert line.startswith("  teacher: top-1 ")
    assert float(line.split()[2]) > 60


def test_classes_in_another_order(net: Net, images: DataSet, section: Data) -> None:
    """And what is proposed cures it."""
    order = (3, 1, 4, 0, 5, 9, 2, 6, 8, 7)
    logits.rearrange(net, order, probabilities=False)  # as a network that was trained with another list
    error = stopped(net, images, section)
    assert "teacher has its classes in another order: top-1 " in error.message
    assert error.hint.startswith("write teacher.classes: [")
    names = error.hint.removeprefix("write teacher.classes: [").removesuffix("]").split(", ")
    assert sorted(names) == sorted(images.classes)
    teacher = Teacher(model="edgekd:resnet10", weights="x", classes=tuple(names))
    logits.rearrange(net, wiring.order_of(teacher, images.classes, "teacher"), probabilities=False)
    check(net, images, section)


def test_the_names_of_classes_are_checked(images: DataSet) -> None:
    teacher = Teacher(model="edgekd:resnet10", weights="x", classes=(*images.classes[:9], "Hat"))
    with pytest.raises(ModelError, match=r"teacher.classes are not the classes of the data: Ankle boot, Hat is in only one"):
        wiring.order_of(teacher, images.classes, "teacher")


@pytest.mark.parametrize("mean", [None, (0.9,)])
def test_another_normalization(net: Net, section: Data, mean: tuple[float, ...] | None) -> None:
    """At chance in any case; above chance where the recipe gives none, for that is a choice that nobody made."""
    with torch.no_grad():  # as a network that takes pixels from 0 to 255, for which all others are the same grey
        net.body[0].weight.mul_(2 / 255)  # type: ignore[operator]
        net.body[0].bias.add_(-0.5 * net.body[0].weight.sum((1, 2, 3)) * 255)  # type: ignore[operator, union-attr]
    given = section.model_copy(update={"mean": mean, "std": None if mean is None else (0.1,)})
    error = stopped(net, data.load(given), given)
    assert "with pixels from 0 to 255" in error.message
    assert "write teacher.data: {mean: [0], std: [0.003922]}" in error.hint


def test_a_default_normalization_that_is_worse_than_a_usual_one(net: Net, section: Data) -> None:

    class Folds(nn.Module):
        """Takes pixels from -1 to 1, and makes something else of what lies above."""

        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.net(x - 4 * (x - 1).relu())
            return out

    given = section.model_copy(update={"mean": None, "std": None})
    error = stopped(Folds(), data.load(given), given)
    assert re.search(r"with the mean and the standard deviation of the data, and \d+\.\d % with half", error.message)
    assert "write teacher.data: {mean: [0.5], std: [0.5]}" in error.hint
    # What the recipe gives is somebody's choice: it is told, and kept.
    told = given.model_copy(update={"mean": (0.2863,), "std": (0.34,)})
    warning, line = check(Folds(), data.load(told), told)
    assert re.match(r"  warning: teacher has top-1 .* % on 96 of them with half\n    → write teacher.data", warning)
    assert line.startswith("  teacher: top-1 ")


def test_another_size(net: Net, images: DataSet, section: Data) -> None:
    """The images are 8 pixels where the network was trained on 32."""
    small = section.model_copy(update={"image_size": 8})
    error = stopped(net, data.load(small), small)
    assert "It was trained on images of another size" in error.message
    assert error.hint == "write teacher.data: {image_size: 32}"


def test_probabilities(net: Net, images: DataSet, section: Data) -> None:
    error = stopped(nn.Sequential(net, nn.Softmax(1)), images, section)
    assert "gives probabilities, not logits" in error.message
    assert "teacher.outputs: probabilities" in error.hint
    network = nn.Sequential(net, nn.Softmax(1))
    logits.rearrange(network, None, probabilities=True)
    check(network, images, section)


class Ends(nn.Module):
    """Softmax always, in evaluation alone, or a log-softmax."""

    def __init__(self, net: nn.Module, kind: str) -> None:
        super().__init__()
        self.net, self.norm, self.kind = net, nn.BatchNorm1d(10), kind

    def forward(self, x: Tensor) -> Tensor:
        logits = self.norm(self.net(x))
        if self.kind == "log" or (self.kind == "evaluation" and self.training):
            return logits.log_softmax(1)
        return logits.softmax(1)


def test_a_network_that_is_to_be_trained_has_no_softmax(net: Net) -> None:
    """Which its losses take another one of; those that may be trained are not touched."""
    example = torch.zeros(1, 3, 32, 32)
    with pytest.raises(ModelError, match="^student gives probabilities, not logits"):
        wiring.refuse_probabilities(Ends(net, "always"), example, "student")
    for network in (net, Ends(net, "evaluation"), Ends(net, "log").train()):
        before, mode, drawn = copy.deepcopy(network.state_dict()), network.training, torch.get_rng_state()
        wiring.refuse_probabilities(network, example, "student")
        assert network.training == mode
        assert torch.equal(torch.get_rng_state(), drawn)
        assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_other_classes(images: DataSet, section: Data) -> None:
    """Trained, and sure of itself, on something that these classes do not follow: the brightness of one corner."""
    corner = np.stack([images.train.images[i][0, 8:24, 8:24].mean() for i in range(len(images.train))])
    labels = np.argsort(np.argsort(corner)) * 10 // len(corner)
    error = stopped(train(images, np.random.default_rng(1).permutation(10)[labels]), images, section)
    assert "it seems to know other classes than T-shirt/top" in error.message


def test_random_weights(images: DataSet, section: Data) -> None:
    assert "It looks untrained" in stopped(Net().eval(), images, section).message


def test_a_student_at_chance_is_told(images: DataSet, section: Data) -> None:
    """It may be used as it is; the report has a caution."""
    (line,) = check(Net().eval(), images, section, teaches=False)
    assert line.startswith("  warning: student is no better than chance: top-1 ")


def test_few_images_prove_nothing(section: Data, npz: Callable[..., str]) -> None:
    few = section.model_copy(update={"source": npz(train=40, classes=10, size=32), "val_fraction": 0.3})
    lines = check(Net().eval(), data.load(few), few)
    assert "warning: teacher is not better than chance" in lines[-1]


def test_without_labels_nothing_is_said(section: Data) -> None:
    hidden = section.model_copy(update={"labels": "none"})
    assert check(Net().eval(), data.load(hidden), hidden) == []
