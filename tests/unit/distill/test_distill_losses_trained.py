"""Response and relation losses in two real epochs: what learns, what stays, and which of them look at the labels."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor

from edgekd.data import dataset
from edgekd.distill.outputs import Facts
from edgekd.distill.terms import Terms
from edgekd.progress import Silent
from edgekd.recipe.data import Data
from edgekd.recipe.distill import Distill
from edgekd.train.loop import Fitted, Teaching, Trainable, fit

LABEL_FREE: list[dict[str, Any]] = [
    {"kind": "kd"},
    {"kind": "kd", "standardize": True, "temperature": 2, "weight": 9},
    {"kind": "dist"},
    {"kind": "dist", "standardize": True},
    {"kind": "mse_logits"},
    {"kind": "rkd"},
    {"kind": "similarity_preserving"},
    {"kind": "correlation_congruence"},
    {"kind": "pkt"},
    {"kind": "ickd"},
]
LABELLED: list[dict[str, Any]] = [{"kind": "dkd"}, {"kind": "dkd", "standardize": True}, {"kind": "tf_kd"}]
ADAPTED = {"correlation_congruence", "ickd"}


def name(loss: dict[str, Any]) -> str:
    return loss["kind"] + "_standardized" * ("standardize" in loss)


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.fixture
def train(fabric: Fabric, npz: Callable[..., str], small: Any) -> Callable[..., Fitted]:
    """Distil the same student from the same teacher for two epochs of 4 steps."""
    section = Data(source=npz(), image_size=16, augment=("crop", "flip"))
    images = dataset.load(section)

    def call(*losses: dict[str, Any], labels: int | None = None, teacher: Any = None) -> Fitted:
        """Train with all training labels replaced by ``labels``."""
        settings = Distill.model_validate({"epochs": 2, "batch_size": 16, "warmup_epochs": 0, "losses": losses})
        student, teacher = small(0), small(1, width=8) if teacher is None else teacher
        given = images
        if labels is not None:
            given = replace(images, train=replace(images.train, targets=np.full(len(images.train), labels)))
        torch.manual_seed(0)
        terms = Terms(settings.losses, student, teacher, torch.zeros(1, 3, 16, 16), Facts(4, len(images.train)))
        trainable = Trainable.tapped("distilled", student, terms, settings, 0)
        return fit(fabric, trainable, given, section, Silent(), Teaching.of(teacher, terms))

    return call


@pytest.mark.parametrize("loss", [*LABEL_FREE, *LABELLED], ids=name)
def test_two_epochs(train: Callable[..., Fitted], small: Any, loss: dict[str, Any]) -> None:
    """With the loss alone, at its default weight: the student and the adapter learn, the teacher does not."""
    teacher = small(1, width=8, dropout=0.5).train()
    before = {key: value.clone() for key, value in teacher.state_dict().items()}
    start, fitted = small(0).state_dict(), train(loss, teacher=teacher)
    assert equal(dict(teacher.state_dict()), before)
    assert all(parameter.grad is None for parameter in teacher.parameters())
    values = fitted.curve.terms[loss["kind"]]
    assert all(math.isfinite(value) for value in values)
    assert values[1] < values[0]
    untouched = {key for key in start if torch.equal(fitted.last[key], start[key])}
    embedding = loss["kind"] in {"rkd", "similarity_preserving", "correlation_congruence", "pkt", "ickd"}
    assert untouched == ({"head.weight", "head.bias"} if embedding else set())  # the classifier is behind what they read
    assert bool(fitted.adapters) == (loss["kind"] in ADAPTED)
    torch.manual_seed(0)
    fresh = Terms(Distill(epochs=1, losses=(loss,)).losses, small(0), teacher, torch.zeros(1, 3, 16, 16), Facts(4, 72))
    assert not any(torch.equal(value, fitted.adapters[key]) for key, value in fresh.adapters.state_dict().items())


@pytest.mark.parametrize("loss", LABEL_FREE, ids=name)
def test_without_task_the_labels_are_never_looked_at(train: Callable[..., Fitted], loss: dict[str, Any]) -> None:
    """Training labels that are no class at all, as images without labels have them: the same bytes."""
    right, wrong = train(loss), train(loss, labels=-1)
    assert equal(right.last, wrong.last)
    assert equal(right.best, wrong.best)
    assert equal(right.adapters, wrong.adapters)
    assert right.curve.terms == wrong.curve.terms
    assert right.curve.train["top1"]  # and without labels there is none: they did arrive
    assert not wrong.curve.train.get("top1")


@pytest.mark.parametrize("loss", [{"kind": "task"}, *LABELLED], ids=name)
def test_losses_that_read_the_labels(train: Callable[..., Fitted], loss: dict[str, Any]) -> None:
    """What the test above can see: one class for all images is another student."""
    assert not equal(train(loss).last, train(loss, labels=0).last)


def test_one_seed_one_result(train: Callable[..., Fitted]) -> None:
    """All of them at once, adapters too."""
    terms = [loss for loss in [*LABEL_FREE, *LABELLED] if "standardize" not in loss]
    first = train(*terms)
    torch.rand(100)
    second = train(*terms)
    assert equal(first.last, second.last)
    assert equal(first.adapters, second.adapters)
