"""A given network that is wired wrongly is stopped before training, with the cause and what to type."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor, nn

from edgekd.assembly import hypotheses, wiring
from edgekd.data import dataset
from edgekd.data.dataset import DataSet
from edgekd.data.preprocessing import Preprocessing
from edgekd.distill.teachers import BlackBox
from edgekd.errors import DataError, ModelError
from edgekd.progress import Silent
from edgekd.recipe.data import Data
from edgekd.recipe.teacher import Teacher
from edgekd.report.findings import sentence
from edgekd.task import primary
from edgekd.task.image_classification import purpose

SIZE = 32
ORDER = (3, 1, 4, 0, 5, 9, 2, 6, 8, 7)
HALF = ("half", ((0.5,), (0.5,)))


@pytest.fixture(autouse=True)
def _few(monkeypatch: pytest.MonkeyPatch) -> None:
    """As for large images: a quarter of the work."""
    monkeypatch.setattr(wiring, "IMAGES", (256, 256))


@pytest.fixture(scope="module")
def section() -> Data:
    return Data(source="fashion-mnist-mini", image_size=SIZE, mean=(0.5,), std=(0.5,))


@pytest.fixture(scope="module")
def images(section: Data) -> DataSet:
    return dataset.load(section)


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
        x = Preprocessing((0.5,), (0.5,), 3).arrays(np.stack([images.train.images[int(i)] for i in batch]))
        loss = nn.functional.cross_entropy(net(torch.from_numpy(x)), torch.from_numpy(labels[batch]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return net.eval()


@pytest.fixture(scope="module")
def state(images: DataSet) -> dict[str, Tensor]:
    return train(images, images.train.labels).state_dict()


@dataclass(frozen=True)
class Photos:
    """Red, green and yellow images, and a network that tells them by their colour."""

    net: nn.Module
    images: DataSet
    section: Data


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Photos:
    random = np.random.default_rng(0)
    labels = np.arange(400) % 3
    pixels = random.integers(0, 120, (400, 16, 16, 3)).astype(np.uint8)
    for index, label in enumerate(labels):
        pixels[index, :, :, [(0,), (1,), (0, 1)][label]] += 100
    path = tmp_path_factory.mktemp("photos") / "photos.npz"
    np.savez(path, x_train=pixels[:300], y_train=labels[:300], x_test=pixels[300:], y_test=labels[300:])
    section = Data(source=f"npz:{path}", image_size=16, mean=(0.5,), std=(0.5,))

    class Colour(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            red, green, _ = (10 * x.mean((2, 3))).unbind(1)
            return torch.stack([red - green, green - red, red + green], 1)

    return Photos(Colour(), dataset.load(section), section)


@pytest.fixture
def net(state: dict[str, Tensor]) -> Net:
    network = Net()
    network.load_state_dict(state)
    return network.eval()


class Said(Silent):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


def check(network: nn.Module, images: DataSet, section: Data, *, teaches: bool = True, box: bool = False) -> list[str]:
    progress = Said()
    place = "teacher" if teaches else "student"
    role = wiring.Role(place, teaches=teaches, box=box, normalized=box or section.mean is not None)
    doubts = wiring.check(network, images, section, role, progress)
    said = progress.lines
    assert [f"  warning: {sentence(doubt)}" for doubt in doubts] == [line for line in said if "warning" in line]
    return said


def stopped(network: nn.Module, images: DataSet, section: Data, **role: bool) -> ModelError:
    with pytest.raises(ModelError) as error:
        check(network, images, section, **role)
    return error.value


def ordered(net: nn.Module, order: tuple[int, ...]) -> nn.Module:
    """As a network that was trained with another list of the classes."""
    primary.rearrange(net, order, probabilities=False)
    return net


def test_a_network_that_is_wired_right_is_said_to_be(net: Net, images: DataSet, section: Data) -> None:
    (line,) = check(net, images, section)
    assert line.startswith("  teacher: top-1 ")
    assert float(line.partition("top-1 ")[2].split()[0]) > 60


@pytest.mark.parametrize("order", [ORDER, (0, 2, 1, 3, 4, 5, 6, 7, 8, 9)], ids=["all", "two of ten"])
def test_classes_in_another_order(net: Net, images: DataSet, section: Data, order: tuple[int, ...]) -> None:
    """And what is proposed cures it."""
    error = stopped(ordered(net, order), images, section)
    assert re.search(r"teacher has top-1 .* if its output \d is '.*', and so on", error.message)
    names = yaml.safe_load(error.hint.removeprefix("write teacher.classes: "))
    assert sorted(names) == sorted(images.classes)
    teacher = Teacher(model="edgekd:resnet10", weights="x", classes=tuple(names))
    primary.rearrange(net, wiring.order_of(teacher, images.classes, "teacher"), probabilities=False)
    check(net, images, section)


def test_a_student_in_another_order(net: Net, images: DataSet, section: Data) -> None:
    """Which would be quantized, exported, and the same as itself in every comparison."""
    error = stopped(ordered(net, ORDER), images, section, teaches=False)
    names = yaml.safe_load(error.hint[len("write data: ") : error.hint.index(" (--set")])["class_order"]
    turned = section.model_copy(update={"class_order": tuple(names)})
    (line,) = check(net, dataset.load(turned), turned, teaches=False)
    assert float(line.partition("top-1 ")[2].split()[0]) > 60
    assert dataset.load(turned).classes == tuple(names)
    assert f'(--set "data.class_order=[{", ".join(names)}]")' in error.hint


def test_the_order_of_classes_is_of_the_datas_names(section: Data) -> None:
    for names, said in ((("a", "b"), "Ankle boot, Bag, Coat is in only one"), (("Bag",) * 10, "Ankle boot, Coat")):
        with pytest.raises(DataError, match=f"data.class_order are not the classes of fashion-mnist-mini: .*{said}"):
            dataset.load(section.model_copy(update={"class_order": names}))


def test_names_of_classes_are_proposed_as_they_are_typed(net: Net, images: DataSet, section: Data) -> None:
    """010 is a number and [x: y] a mapping in YAML; so are #c, no and '.'"""
    names = ("010", "x: y", "#c", "no", "a, b", "'", "0x1F", "null", "~", "1e3")
    known = replace(images.purpose, samples=replace(images.purpose.samples, classes=names))
    error = stopped(ordered(net, ORDER), replace(images, purpose=known), section)
    typed = yaml.safe_load(error.hint.removeprefix("write teacher.classes: "))
    assert sorted(typed) == sorted(names)


def test_channels_in_another_order(photos: Photos) -> None:
    class Bgr(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return photos.net(x.flip(1))

    error = stopped(Bgr(), photos.images, photos.section)
    assert "with the channels in the order blue, green, red" in error.message
    assert "weight = weight[:, [2, 1, 0]]" in error.hint
    both = stopped(ordered(Bgr(), (1, 2, 0)), photos.images, photos.section, teaches=False)
    assert "in the order blue, green, red and if its output" in both.message


def test_an_honest_teacher_of_unbalanced_classes(photos: Photos) -> None:
    """90 of 100 images are of one class; right on 91 of 100 is little above that, and far from chance."""
    random = np.random.default_rng(0)
    labels = (random.random(len(photos.images.train)) < 0.1).astype(np.int64)
    images = replace(photos.images, train=replace(photos.images.train, targets=labels), purpose=purpose(photos.section, 2))

    class Weak(nn.Module):
        """Finds half of the rare class, and takes a few of the other one for it."""

        def __init__(self) -> None:
            super().__init__()
            _, sample, _ = wiring._sample(images, (16, 16))
            said = np.where(random.random(len(sample)) < np.where(sample == 1, 0.5, 0.05), 1, 0)
            self.logits, self.at = torch.eye(2)[torch.from_numpy(said)] * 4, 0

        def forward(self, x: Tensor) -> Tensor:
            at, self.at = self.at, (self.at + len(x)) % len(self.logits)
            return self.logits[at : at + len(x)]

    (line,) = check(Weak(), images, photos.section)
    assert line.startswith("  teacher: top-1 ")


@pytest.mark.parametrize("classes", [2, 5, 20, 100])
@pytest.mark.parametrize("right", [0.3, 0.6, 0.95])
def test_weak_networks_are_not_taken_for_wrongly_wired_ones(photos: Photos, classes: int, right: float) -> None:
    """Twenty of each kind: mistakes at random, or all into the next class."""
    for seed in range(20):
        random = np.random.default_rng(seed)
        labels = random.integers(0, classes, 256)
        wrong = random.integers(0, classes, 256) if seed % 2 else (labels + 1) % classes
        said = np.where(random.random(256) < max(right, 0.55 if seed % 2 == 0 else right), labels, wrong)
        tried = hypotheses.Tried(nn.Identity(), np.zeros((256, 3, 8, 8), np.uint8), labels, photos.images, photos.section)
        given = tried.as_it_is(np.eye(classes, dtype=np.float32)[said])
        assert tried.best(given, "teacher", Silent(), fixed=True, lost=False, chosen=True) is None


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
    error = stopped(net, dataset.load(given), given)
    assert "with the normalization pixels from 0 to 255" in error.message
    assert error.hint.startswith("write teacher.data: {mean: [0.0], std: [0.003922]}")


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
    error = stopped(Folds(), dataset.load(given), given)
    assert re.search(r"teacher has top-1 .*, and \d+\.\d % with the normalization half", error.message)
    own = ", or {mean: [0.2863], std: [0.34]} if it was trained with the images' own"
    best, known = ", the best of the usual ones", "; its training script has the right values"
    assert error.hint == f"write teacher.data: {{mean: [0.5], std: [0.5]}}{best}{own}{known}"
    hint = stopped(Folds(), dataset.load(given), given, teaches=False).hint
    own = ", or --normalize 0.2863/0.34 if it was trained with the images' own"
    assert hint.endswith(f"(--normalize half){best}{own}{known}")
    # What the recipe gives is somebody's choice: if it is not far off, it is told, and kept.
    told = given.model_copy(update={"mean": (0.35,), "std": (0.38,)})
    (warning,) = check(Folds(), dataset.load(told), told)
    assert re.match(r"  warning: teacher has top-1 .* with the normalization half; write teacher.data", warning)


def test_a_file_that_was_trained_with_another_normalization(net: Net, images: DataSet, section: Data) -> None:
    """The recipe gives one, and a wrong one; others are tried in its place, not on top of it."""

    def call(x: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return net(torch.from_numpy(x)).numpy()

    seen = images.preprocessing
    check(BlackBox(call, seen, replace(seen, mean=(0.5,), std=(0.5,))), images, section, box=True)
    error = stopped(BlackBox(call, seen, replace(seen, mean=(0.0,), std=(1 / 255,))), images, section, box=True)
    assert "with the normalization half" in error.message
    known = "; its training script has the right values"
    assert error.hint == f"write teacher.mean: [0.5], teacher.std: [0.5], the best of the usual ones{known}"


@pytest.mark.parametrize("side", [8, 20])
def test_another_size(net: Net, images: DataSet, section: Data, side: int) -> None:
    """The images are fewer pixels than the network was trained on: at chance, or right on some."""
    small = section.model_copy(update={"image_size": side})
    error = stopped(net, dataset.load(small), small)
    assert "% at 32×32" in error.message
    assert error.hint == "write teacher.data: {image_size: 32}"
    assert stopped(net, dataset.load(small), small, teaches=False).hint == "write data: {image_size: 32} (--size 32)"


def test_probabilities(net: Net, images: DataSet, section: Data) -> None:
    error = stopped(nn.Sequential(net, nn.Softmax(1)), images, section)
    assert "gives probabilities, not logits" in error.message
    assert "teacher.outputs: probabilities" in error.hint
    network = nn.Sequential(net, nn.Softmax(1))
    primary.rearrange(network, None, probabilities=True)
    check(network, images, section)
    (_, doubt) = check(nn.Sequential(net, nn.Softmax(1)), images, section, teaches=False)
    assert doubt.startswith("  warning: the network gives probabilities, not logits")
    (_, doubt) = check(nn.Sequential(net, nn.Sigmoid()), images, section)
    assert doubt.startswith("  warning: all outputs of teacher are between 0 and 1, as those of a sigmoid")


def test_probabilities_of_an_int8_network(net: Net, images: DataSet, section: Data) -> None:
    """They are in steps of 1/256."""

    class Rounded(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (net(x).softmax(1) * 256).round() / 256

    assert "gives probabilities" in stopped(Rounded(), images, section).message


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
    use = purpose(Data(source="random", classes=10))
    with pytest.raises(ModelError, match="^student gives probabilities, not logits"):
        wiring.refuse_probabilities(Ends(net, "always"), use, "student")
    for network in (net, Ends(net, "evaluation"), Ends(net, "log").train()):
        before, mode, drawn = copy.deepcopy(network.state_dict()), network.training, torch.get_rng_state()
        wiring.refuse_probabilities(network, use, "student")
        assert network.training == mode
        assert torch.equal(torch.get_rng_state(), drawn)
        assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_other_classes(images: DataSet, section: Data) -> None:
    """Trained, and sure of itself, on something that these classes do not follow: the brightness of one corner."""
    corner = np.stack([images.train.images[i][0, 8:24, 8:24].mean() for i in range(len(images.train))])
    labels = np.argsort(np.argsort(corner)) * 10 // len(corner)
    error = stopped(train(images, np.random.default_rng(1).permutation(10)[labels]), images, section)
    assert "it seems to be trained on other classes than T-shirt/top" in error.message


def test_random_weights(images: DataSet, section: Data) -> None:
    assert "It looks untrained" in stopped(Net().eval(), images, section).message


def test_a_student_at_chance_is_told(images: DataSet, section: Data) -> None:
    """It may be used as it is; the report has a caution."""
    (line,) = check(Net().eval(), images, section, teaches=False)
    assert line.startswith("  warning: the network is no better than chance: top-1 ")


def test_few_images_prove_nothing(section: Data, npz: Callable[..., str]) -> None:
    few = section.model_copy(update={"source": npz(train=40, classes=10, size=32), "val_fraction": 0.3})
    lines = check(Net().eval(), dataset.load(few), few)
    assert "warning: teacher is not better than chance" in lines[-1]


def test_without_labels_nothing_can_be_said(section: Data) -> None:
    hidden = section.model_copy(update={"labels": "none"})
    assert check(Net().eval(), dataset.load(hidden), hidden) == []
    (line,) = check(Net().eval(), dataset.load(hidden), hidden.model_copy(update={"mean": None, "std": None}))
    assert "without labels this cannot be checked" in line


@pytest.mark.parametrize(
    ("given", "found", "n", "what", "outcome"),
    [
        (0.446, 0.492, 1024, {"normalization": HALF}, ""),  # random crops; little trained
        (0.724, 0.751, 1024, {"normalization": HALF}, ""),
        (0.352, 0.490, 1024, {"normalization": HALF}, "said"),
        (0.966, 0.985, 1024, {"normalization": HALF}, "stopped"),  # trained with it
        (0.824, 0.977, 1024, {"normalization": HALF}, "stopped"),
        (0.676, 0.880, 108, {"side": 64}, "said"),
        (0.551, 0.645, 256, {"side": 96}, "said"),
        (0.770, 0.970, 576, {"side": 32}, "stopped"),
        (0.361, 0.409, 1024, {"normalization": HALF, "labels": tuple(ORDER)}, ""),
        (0.215, 0.430, 576, {"bgr": True, "labels": tuple(ORDER)}, "stopped"),
    ],
)
def test_what_a_network_of_random_crops_shows_is_no_fault(
    images: DataSet, section: Data, monkeypatch: pytest.MonkeyPatch, given: float, found: float, n: int,
    what: dict[str, Any], outcome: str,
) -> None:  # fmt: skip
    """Figures of networks that were trained rightly, and of such that were not."""

    def way(top1: float, **changes: Any) -> hypotheses.Way:
        return hypotheses.Way(
            np.tile(9 * np.eye(10, dtype=np.float32), (n // 10 + 1, 1))[:n], np.arange(n) < top1 * n, **changes
        )

    monkeypatch.setattr(wiring, "_sample", lambda *_: (np.zeros((n, 1, 8, 8), np.uint8), np.arange(n) % 10, []))
    monkeypatch.setattr(hypotheses.Tried, "as_it_is", lambda *_: way(given))
    monkeypatch.setattr(hypotheses.Tried, "best", lambda *_, **__: way(found, **what))
    own = section.model_copy(update={"mean": None, "std": None})
    if outcome == "stopped":
        assert "teacher has top-1" in stopped(nn.Identity(), images, own).message
    else:
        (line,) = check(nn.Identity(), images, own)
        assert ("warning" in line) == (outcome == "said")


class Root(nn.Module):
    """A network whose outputs are square roots of logits: NaN wherever one is below 0."""

    def __init__(self, net: nn.Module, least: float = -np.inf) -> None:
        super().__init__()
        self.net, self.least = net, least

    def forward(self, x: Tensor) -> Tensor:
        return torch.sqrt(self.net(x).clamp_min(self.least))


@pytest.mark.parametrize("teaches", [True, False])
@pytest.mark.parametrize("labels", ["source", "none"])
def test_outputs_that_are_nan_are_no_matter_of_wiring(
    net: Net, images: DataSet, section: Data, monkeypatch: pytest.MonkeyPatch, teaches: bool, labels: str
) -> None:
    monkeypatch.setattr(hypotheses.Tried, "best", None)  # nothing else is tried
    seen = images if labels == "source" else dataset.load(section.model_copy(update={"labels": "none"}))
    error = stopped(Root(net), seen, section, teaches=teaches)
    called = "teacher" if teaches else "the network"
    assert re.fullmatch(
        rf"{called} gives NaN for \d+ of 256 training images; forward\(\) of Root is the first to do so", error.message
    )
    assert error.hint is not None
    assert error.hint.startswith("look in its forward() for a square root")


def test_a_module_that_gives_nan_or_infinity_is_named(net: Net, images: DataSet, section: Data) -> None:
    damaged = copy.deepcopy(net)
    damaged.body[2].register_forward_hook(lambda module, given, found: found / 0.0 if (found > 0).any() else found)
    assert "; its module body.2 (Conv2d) is the first to do so" in stopped(damaged, images, section).message

    class Infinite(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = net(x)
            return torch.cat([out[:, :9], out[:, 9:] * 0 + torch.inf], 1)

    message = stopped(Infinite(), images, section).message
    assert message.startswith("teacher gives infinity for 256 of 256 training images; forward() of Infinite")


def test_another_way_whose_outputs_are_nan_is_none(net: Net, images: DataSet, section: Data) -> None:
    """Right as it is, for it was trained with roots of positive numbers alone; a hypothesis must not crash on NaN."""
    (line,) = check(Root(net, 0.0), images, section)
    assert line.startswith("  teacher: top-1 ")


def test_only_a_teacher_can_be_trained_here(images: DataSet, section: Data) -> None:
    hint = stopped(Net().eval(), images, section).hint
    assert hint is not None
    assert hint.endswith("Give others, or add train: {epochs: N}")
    (line,) = check(Net().eval(), images, section, teaches=False)
    assert line.endswith("Give others")
