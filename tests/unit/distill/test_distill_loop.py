from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision
from torch import Tensor, nn

from edgekd.data import dataset
from edgekd.data.batches import Prepare
from edgekd.distill import mutual
from edgekd.distill.outputs import Facts
from edgekd.distill.terms import Terms
from edgekd.errors import TrainingError
from edgekd.models.zoo.resnet import resnet10
from edgekd.progress import Silent
from edgekd.recipe.data import Data
from edgekd.recipe.distill import Distill
from edgekd.train.loop import Fitted, Freeze, Teaching, Trainable, fit, hasten_norms, score

X = torch.zeros(1, 3, 16, 16)
FACTS = Facts(classes=4, samples=72)
KD = ({"kind": "task", "weight": 0.1}, {"kind": "kd"}, {"kind": "fitnet", "weight": 0.1})


class Watching(Silent):
    """Calls back after every step."""

    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback = callback

    @contextmanager
    def task(self, name: str, total: int) -> Iterator[Any]:
        callback = self.callback

        class Task:
            def advance(self, steps: int = 1, note: str = "") -> None:
                if steps:
                    callback()

        yield Task()


@pytest.fixture
def section(npz: Callable[..., str]) -> Data:
    """72 images to train on, 8 to validate, 16 to test."""
    return Data(source=npz(), image_size=16, augment=("crop", "flip"))


@pytest.fixture
def run(fabric: Fabric, section: Data) -> Callable[..., Fitted]:
    """Train a network for an epoch or two with the given budget."""

    def call(network: nn.Module, teacher: nn.Module | None = None, losses: Any = ({"kind": "task"},), *, seed: int = 0,
             progress: Any = None, freeze: Freeze | None = None, augment: bool = True, images: Any = None,
             name: str = "net", **budget: Any) -> Fitted:  # fmt: skip
        settings = Distill.model_validate({"epochs": 2, "batch_size": 16, "warmup_epochs": 0, "losses": losses, **budget})
        torch.manual_seed(0)
        terms = Terms(settings.losses, network, teacher, X, FACTS)
        trainable = replace(Trainable.tapped(name, network, terms, settings, seed), freeze=freeze)
        given = section if augment else section.model_copy(update={"augment": ()})
        teaching = Teaching.of(teacher, terms)
        return fit(fabric, trainable, images or dataset.load(section), given, progress or Silent(), teaching)

    return call


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


class Bars(nn.Module):
    """Reads the class of a test image off its bars without training; wrong, on purpose, after ``limit`` steps."""

    steps: Tensor

    def __init__(self, limit: int = 10**6) -> None:
        super().__init__()
        self.limit = limit
        self.scale = nn.Parameter(torch.ones(1))
        self.register_buffer("steps", torch.zeros(1))
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.steps += 1
        else:
            self.seen.append(x.clone())
        logits = x.mean(1).reshape(len(x), 4, 4, 16).mean((2, 3)) * self.scale
        return logits if self.steps <= self.limit else -logits


# --- what is learnt ---------------------------------------------------------------------------------------------------


def test_it_learns(run: Callable[..., Fitted], small: Any) -> None:
    fitted = run(small(), augment=False, epochs=12, lr=0.02)
    assert max(fitted.curve.val["top1"]) == 1.0
    assert fitted.curve.terms["task"][-1] < 0.5 * fitted.curve.terms["task"][0]
    assert fitted.curve.train["top1"][-1] > 0.9


@pytest.mark.parametrize(("width", "form"), [(4, torch.contiguous_format), (8, torch.channels_last)])
def test_a_narrow_shortcut_trains(run: Callable[..., Fitted], width: int, form: torch.memory_format) -> None:
    """Its gradient ends the process in channels last on some CPUs (edgekd.models.layout)."""
    torch.manual_seed(0)
    network = resnet10(4, width=width)
    fitted = run(network, epochs=4)
    assert math.isfinite(fitted.curve.terms["task"][-1])
    assert network.get_parameter("layer2.0.conv1.weight").is_contiguous(memory_format=form)


def test_one_seed_one_result(run: Callable[..., Fitted], small: Any) -> None:
    first = run(small(), small(1, width=8), KD)
    torch.rand(100)
    second = run(small(), small(1, width=8), KD)
    assert equal(first.last, second.last)
    assert equal(first.best, second.best)
    assert equal(first.adapters, second.adapters)
    assert replace(first.curve, seconds=0) == replace(second.curve, seconds=0)
    assert not equal(first.last, run(small(), small(1, width=8), KD, seed=1).last)


def test_student_and_regressors_learn_and_the_teacher_does_not(run: Callable[..., Fitted], small: Any) -> None:
    student, teacher = small(), small(1, width=8, dropout=0.5).train()
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    start = {name: value.clone() for name, value in student.state_dict().items()}
    torch.manual_seed(0)
    adapters = Terms(Distill(epochs=1, losses=KD).losses, student, teacher, X, FACTS).adapters.state_dict()
    fitted = run(student, teacher, KD)
    assert equal(dict(teacher.state_dict()), before)  # batch norm's statistics among them
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert not any(torch.equal(fitted.last[name], start[name]) for name in start)
    assert fitted.adapters.keys() == adapters.keys()
    assert not any(torch.equal(fitted.adapters[name], adapters[name]) for name in adapters)


def test_the_teacher_sees_what_the_student_sees(run: Callable[..., Fitted], small: Any) -> None:
    """The same augmented batch, in evaluation mode."""
    seen: list[tuple[bool, bytes]] = []

    class Looking(Bars):
        def forward(self, x: Tensor) -> Tensor:
            seen.append((self.training, x.contiguous().numpy().tobytes()))
            return super().forward(x)

    run(Looking(), Looking(), ({"kind": "kd"},), epochs=1)
    steps = list(zip(seen[::2], seen[1::2], strict=False))[:4]
    assert [(a[0], b[0]) for a, b in steps] == [(False, True)] * 4
    assert all(a[1] == b[1] for a, b in steps)


def test_validation_images_are_not_augmented(run: Callable[..., Fitted], section: Data) -> None:
    network = Bars()
    run(network, epochs=1)
    images = dataset.load(section)
    plain = images.preprocessing.arrays(np.stack([images.val.images[i] for i in range(8)]))
    assert np.array_equal(torch.cat(network.seen).numpy(), plain)


def test_the_curve_is_what_happened(run: Callable[..., Fitted], small: Any, section: Data) -> None:
    student = small()
    fitted = run(student, small(1), KD, epochs=3, name="distilled")
    curve = fitted.curve
    assert curve.model == "distilled"
    assert list(curve.terms) == ["task", "kd", "fitnet"]
    assert {len(row) for row in (*curve.terms.values(), curve.train["top1"], curve.val["top1"], curve.lr)} == {3}
    assert curve.pairs[0] == "fitnet: stem (4 ch) ← stem (4 ch) at 16×16"
    images = dataset.load(section)
    student.load_state_dict(fitted.last)
    assert score(student, images.val, Prepare(images), torch.device("cpu"), images.purpose) == curve.val["top1"][-1]


def test_losses_are_means_over_the_images(run: Callable[..., Fitted], section: Data) -> None:
    """A network that never changes (learning rate next to zero): each epoch's mean is the loss of the whole set."""
    network = Bars()
    fitted = run(network, augment=False, lr=1e-30, epochs=1, batch_size=24)
    images = dataset.load(section)
    x = images.preprocessing.arrays(np.stack([images.train.images[i] for i in range(72)]))
    expected = nn.functional.cross_entropy(network(torch.from_numpy(x)), torch.from_numpy(images.train.labels))
    assert fitted.curve.terms["task"][0] == pytest.approx(expected.item(), rel=1e-5)
    assert fitted.curve.train["top1"] == (1.0,)
    assert fitted.curve.val["top1"] == (1.0,)


# --- which epoch is kept ----------------------------------------------------------------------------------------------


def test_best_and_last(run: Callable[..., Fitted]) -> None:
    """4 steps an epoch; from step 9 on the network is wrong: epochs 0 and 1 are right, the first of them is kept."""
    fitted = run(Bars(limit=8), epochs=4)
    assert fitted.curve.val["top1"] == (1.0, 1.0, 0.0, 0.0)
    assert fitted.curve.best_epoch == 0
    assert fitted.best["steps"].item() == 4
    assert fitted.last["steps"].item() == 16


def test_best_is_by_validation(run: Callable[..., Fitted], small: Any, section: Data) -> None:
    fitted = run(small(2), epochs=6, lr=0.02)
    curve = fitted.curve
    assert curve.best_epoch == curve.val["top1"].index(max(curve.val["top1"]))
    network = small()
    network.load_state_dict(fitted.best)
    images = dataset.load(section)
    assert score(network, images.val, Prepare(images), torch.device("cpu"), images.purpose) == max(curve.val["top1"])


@pytest.mark.parametrize(
    ("share", "step", "best"),
    [(0.0, 1, 0), (0.25, 4, 1), (0.3, 4, 1), (0.5, 8, 2), (0.66, 10, 2), (1.0, 15, 3)],
)
def test_freeze_happens_once_and_only_later_epochs_count(
    run: Callable[..., Fitted], share: float, step: int, best: int
) -> None:
    """16 steps in 4 epochs; by validation the first epoch would always win."""
    network = Bars(limit=4)
    calls: list[float] = []
    fitted = run(network, epochs=4, freeze=Freeze(share, lambda _: calls.append(network.steps.item())))
    assert calls == [step]
    assert fitted.curve.best_epoch == best
    assert fitted.best["steps"].item() == 4 * (best + 1)


@pytest.mark.parametrize("budget", [{"epochs": 2}, {"epochs": 1, "batch_size": 72}], ids=["several steps", "one step"])
def test_freeze_comes_after_a_step_at_least(run: Callable[..., Fitted], small: Any, budget: dict[str, int]) -> None:
    """What is frozen is what was seen in the steps before."""
    network, done = small(), []
    first = next(network.parameters()).detach().clone()
    fitted = run(network, freeze=Freeze(0.0, lambda net: done.append(next(net.parameters()).detach().clone())), **budget)
    (seen,) = done
    assert not torch.equal(seen, first)
    assert math.isfinite(fitted.curve.val["top1"][fitted.curve.best_epoch])


def test_freeze_is_given_the_network(run: Callable[..., Fitted]) -> None:
    network = Bars()
    given: list[nn.Module] = []
    run(network, freeze=Freeze(0.5, given.append))
    assert [module.network for module in given] == [network]


# --- the optimizer, by hand -------------------------------------------------------------------------------------------


def gradients(network: nn.Module, section: Data) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """(parameters, gradients) of the first step over all 72 images."""
    images = dataset.load(section)
    x = images.preprocessing.arrays(np.stack([images.train.images[i] for i in range(72)]))
    network.train()
    nn.functional.cross_entropy(network(torch.from_numpy(x)), torch.from_numpy(images.train.labels)).backward()
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    return before, {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}


def one_step(run: Callable[..., Fitted], network: nn.Module, **budget: Any) -> dict[str, Tensor]:
    return run(network, augment=False, epochs=1, batch_size=72, **budget).last


def test_sgd_is_nesterov_and_decays_weights_alone(run: Callable[..., Fitted], small: Any, section: Data) -> None:
    before, slope = gradients(small(), section)
    after = one_step(run, small(), optimizer="sgd", lr=0.1, weight_decay=0.3)
    for name, p in before.items():
        decay = 0.3 if p.ndim > 1 else 0.0  # neither biases nor normalization
        expected = p - 0.1 * 1.9 * (slope[name] + decay * p)
        torch.testing.assert_close(after[name], expected, rtol=1e-3, atol=1e-5)


def test_sgd_of_the_published_recipes(run: Callable[..., Fitted], small: Any, section: Data) -> None:
    """No Nesterov, and everything decays."""
    before, slope = gradients(small(), section)
    after = one_step(run, small(), optimizer="sgd", nesterov=False, lr=0.1, weight_decay=0.3, decay_norms=True)
    for name, p in before.items():
        torch.testing.assert_close(after[name], p - 0.1 * (slope[name] + 0.3 * p), rtol=1e-3, atol=1e-5)


def test_adamw_first_step(run: Callable[..., Fitted], small: Any, section: Data) -> None:
    before, slope = gradients(small(), section)
    after = one_step(run, small(), lr=0.01, weight_decay=0.5)
    for name, p in before.items():
        decayed = p * (1 - 0.01 * 0.5) if p.ndim > 1 else p
        g = slope[name]
        clear = g.abs() > 1e-4  # next to zero the sign is the rounding's
        assert clear.any()
        torch.testing.assert_close(after[name][clear], (decayed - 0.01 * g / (g.abs() + 1e-8))[clear], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("limit", [0.01, 1e6])
def test_clip_grad_norm(run: Callable[..., Fitted], small: Any, section: Data, limit: float) -> None:
    before, slope = gradients(small(), section)
    norm = math.sqrt(sum(float((g**2).sum()) for g in slope.values()))
    factor = min(1.0, limit / norm)
    assert norm > 0.02
    after = one_step(run, small(), optimizer="sgd", lr=0.1, weight_decay=0, clip_grad_norm=limit)
    for name, p in before.items():
        torch.testing.assert_close(after[name] - p, -0.19 * factor * slope[name], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("peers", [False, True])
def test_a_gradient_that_overflows_in_half_precision_is_no_error_of_clipping(small: Any, section: Data, peers: bool) -> None:
    """The scaler begins far too high, as on a GPU: it leaves out steps and lowers its scale, and then the network learns."""
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**24)
    fabric = Fabric(accelerator="cpu", devices=1, plugins=MixedPrecision("16-mixed", "cpu", scaler))
    network, other = small(), small(1)
    start = {name: p.detach().clone() for name, p in network.named_parameters()}
    budget = Distill.model_validate({"epochs": 3, "batch_size": 16, "clip_grad_norm": 1.0, "losses": [{"kind": "task"}]})
    terms, others = (Terms(budget.losses, each, None, X, FACTS) for each in (network, other))
    beside = [mutual.Peer("other", other, others, 1)] if peers else []
    trainable = Trainable.tapped("net", network, terms, budget, 0, beside)
    fitted = fit(fabric, trainable, dataset.load(section), section, Silent())
    assert scaler.get_scale() < 2.0**24
    assert all(value.isfinite().all() for value in fitted.last.values())
    assert all(not torch.equal(fitted.last[name], p) for name, p in start.items())


def test_cosine_with_warm_up(run: Callable[..., Fitted]) -> None:
    """5 epochs of 4 steps, 1.5 of them warm-up: 6 steps up, 14 steps of half a cosine down."""
    rates = []
    network = Bars()
    fitted = run(network, epochs=5, warmup_epochs=1.5, lr=0.5)
    for last_step in (3, 7, 11, 15, 19):
        up = (last_step + 1) / 6
        rates.append(0.5 * (up if last_step < 6 else (1 + math.cos(math.pi * (last_step - 6) / 14)) / 2))
    assert fitted.curve.lr == pytest.approx(rates)


def test_steps_at_milestones(run: Callable[..., Fitted]) -> None:
    """After epochs 1, 3 and, never reached, 9; the warm-up of half an epoch ends at the peak."""
    budget = {"schedule": "step", "milestones": [1, 3, 9], "gamma": 0.2, "lr": 0.5}
    fitted = run(Bars(), epochs=5, warmup_epochs=0.5, **budget)
    assert fitted.curve.lr == pytest.approx([0.5, 0.1, 0.1, 0.02, 0.02])
    assert run(Bars(), epochs=2, batch_size=72, warmup_epochs=0, **budget).curve.lr == pytest.approx([0.5, 0.1])


def test_ema_is_kept_and_validated(run: Callable[..., Fitted], small: Any, section: Data) -> None:
    network = small()
    passed: list[dict[str, Tensor]] = []
    watch = Watching(lambda: passed.append({name: value.clone() for name, value in network.state_dict().items()}))
    fitted = run(network, ema=0.8, lr=0.05, epochs=1, progress=watch)
    assert len(passed) == 4
    average = passed[0]
    for state in passed[1:]:
        average = {name: 0.8 * average[name] + 0.2 * state[name] for name in average}
    for name, value in fitted.last.items():
        if value.is_floating_point():  # batch norm's statistics among them
            torch.testing.assert_close(value, average[name])
    assert not equal(fitted.last, passed[-1])
    kept = small()
    kept.load_state_dict(fitted.last)
    images = dataset.load(section)
    assert score(kept, images.val, Prepare(images), torch.device("cpu"), images.purpose) == fitted.curve.val["top1"][0]


# --- failures ---------------------------------------------------------------------------------------------------------


def test_loss_that_is_not_finite(run: Callable[..., Fitted]) -> None:
    network = Bars()
    watch = Watching(lambda: network.scale.data.fill_(math.nan if network.steps >= 5 else 1.0))
    with pytest.raises(TrainingError) as caught:
        run(network, epochs=3, lr=0.5, progress=watch, name="teacher")
    assert str(caught.value) == (
        "teacher: the loss is nan at step 2 of epoch 2 (task nan): its weight scale is NaN or infinite after the steps "
        "before\n  → lower the learning rate (now 0.5) or set clip_grad_norm; a square root or a norm of exactly 0 in "
        "forward() has an infinite gradient at any rate"
    )


def test_accuracy_keeps_the_mode(small: Any, section: Data) -> None:
    images = dataset.load(section)
    network = small().train()
    score(network, images.val, Prepare(images), torch.device("cpu"), images.purpose)
    assert network.training


def test_norms_that_could_not_follow_a_short_epoch_are_hastened(run: Callable[..., Fitted], small: Any) -> None:
    """With a momentum of 0.001 the averages of 8 steps would still be the initial ones: mean 0, variance 1."""
    said: list[str] = []

    class Saying(Silent):
        def say(self, text: str) -> None:
            said.append(text)

    slow, usual = small(), small()
    slow.stem[1].momentum = 0.001
    run(slow, augment=False, progress=Saying())
    run(usual, augment=False)
    assert torch.equal(slow.stem[1].running_mean, usual.stem[1].running_mean)
    assert said == ["  net: batch norm momentum 0.001 → 0.1, for its averages must follow epochs of 4 steps"]


@pytest.mark.parametrize(
    ("momentum", "steps", "after"), [(0.01, 141, 10 / 141), (0.01, 5000, 0.01), (0.3, 4, 0.3), (None, 4, None)]
)
def test_hasten_norms(momentum: float | None, steps: int, after: float | None) -> None:
    norm = nn.BatchNorm2d(3, momentum=momentum)
    assert bool(hasten_norms(norm, steps)) == (momentum != after)
    assert norm.momentum == after
