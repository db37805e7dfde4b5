"""A loss that is not finite is blamed on what is not: samples, targets, teacher, network, weights, or the loss."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from edgekd.assembly.context import Context
from edgekd.errors import TrainingError
from edgekd.progress import Silent
from edgekd.recipe import Recipe
from edgekd.stages.distill import DistillStage
from edgekd.train import not_finite

NAN = float("nan")
NET = """
import torch
from torch import nn


class Root(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.body, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, num_classes)

    def forward(self, x):
        return torch.sqrt(self.head(self.body(x).relu().mean((2, 3))))


class Zero(Root):
    def forward(self, x):
        hidden = self.body(x).relu().mean((2, 3))
        return self.head(hidden) + torch.sqrt(0 * hidden).sum(1, keepdim=True)
"""


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.body(x).log())
        return out


def error(network: nn.Module | None = None, **changes: Any) -> TrainingError:
    """The error of a step in which all is finite but what is changed."""
    x = changes.pop("x", torch.ones(4, 3))
    batch = not_finite.Batch({"x": x}, changes.pop("target", torch.ones(4, 2)), changes.pop("teacher", None))
    facts: dict[str, Any] = {
        "outputs": torch.ones(4, 2), "terms": {"task": torch.tensor(1.0), "kd": torch.tensor(NAN)},
        "place": "step 1 of epoch 1", "updated": False, "lr": 0.1, "half": False,
    }  # fmt: skip
    network = network or Net()
    return not_finite.error("distilled", network, not_finite.Step(batch, **(facts | changes)), lambda: network(x))


def partly(shape: tuple[int, ...], row: int, value: float = NAN) -> Tensor:
    found = torch.ones(shape)
    found[row, 0] = value
    return found


@pytest.mark.parametrize(
    ("changes", "cause", "hint"),
    [
        ({"x": partly((4, 3), 1)}, "the input x is NaN for 1 of 4 samples of the batch", "correct the samples"),
        ({"target": partly((4, 2), 1, torch.inf)}, "the target is infinity for 1 of 4 samples", "correct the targets"),
        ({"teacher": (partly((4, 2), 0), torch.ones(4, 8))}, "the output of the teacher is NaN", "as to the teacher: look"),
        ({"teacher": (torch.ones(4, 2), partly((4, 8), 0))}, "a feature of the teacher is NaN", "as to the teacher: look"),
        ({"outputs": partly((4, 2), 3), "updated": True}, "its output is NaN for 1 of 4 .* weights are finite", "lower the"),
        ({}, "the samples, the targets and its output are finite, but not the loss kd", "look at the options of this loss"),
        ({"updated": True}, "its output are finite, but not the loss kd", r"lower the learning rate \(now 0.1\)"),
    ],
)
def test_the_cause_is_named(changes: dict[str, Any], cause: str, hint: str) -> None:
    found = error(**changes)
    assert found.message.startswith("distilled: the loss is nan at step 1 of epoch 1 (task 1, kd nan): ")
    with pytest.raises(TrainingError, match=f"{cause}(.|\n)*→ {hint}"):
        raise found
    assert ("learning rate" in str(found.hint)) == bool(changes.get("updated"))


def test_the_module_that_begins_is_named_before_the_first_update() -> None:
    network = Net()
    with torch.no_grad():
        network.body.weight.fill_(-1.0)
        network.body.bias.fill_(0.0)
    found = error(network, outputs=torch.full((4, 2), NAN))
    assert found.message.endswith(
        "its output is NaN for 4 of 4 samples of the batch before the first update of the weights; forward() of Net is the "
        "first to give such values"
    )
    with torch.no_grad():  # inf, which the logarithm keeps and the layer behind makes NaN
        network.body.bias.fill_(1e38)
        network.body.weight.fill_(3e38)
    assert "; its module body (Linear) is the first to give" in error(network, outputs=torch.full((4, 2), NAN)).message


def test_weights_that_are_nan_are_of_the_steps_before_or_of_the_network() -> None:
    network = Net()
    with torch.no_grad():
        network.head.weight[0, 0] = NAN
    before, after = error(network), error(network, updated=True, half=True)
    assert "its weight head.weight is NaN or infinite before the first step" in before.message
    assert before.hint == "give it values in __init__() of the network, or give other weights"
    assert "its weight head.weight is NaN or infinite after the steps before" in after.message
    assert str(after.hint).startswith("lower the learning rate (now 0.1) or set clip_grad_norm; float16 ends at 65504")


@pytest.fixture
def failed(tmp_path: Path, npz: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., TrainingError]:
    """Train a network of ``net.py`` and return the error."""
    (tmp_path / "net.py").write_text(NET)
    monkeypatch.chdir(tmp_path)

    def train(model: str, **distill: Any) -> TrainingError:
        value = {
            "edgekd": 1,
            "data": {"source": npz(), "image_size": 16},
            "student": {"model": f"net.py:{model}"},
            "distill": {"epochs": 1, "batch_size": 16, "losses": [{"kind": "task"}], **distill},
        }
        recipe = Recipe.model_validate(value)
        context = Context(recipe=recipe, name="distill", out=tmp_path, inputs={}, log=tmp_path / "log", progress=Silent())
        with pytest.raises(TrainingError) as caught:
            DistillStage().run(context)
        return caught.value

    return train


def test_a_gradient_that_is_nan_is_told_from_a_loss(failed: Callable[..., TrainingError]) -> None:
    found = failed("Zero", clip_grad_norm=1.0)
    assert found.message.startswith("student_alone: the gradient of ")
    assert found.message.endswith(" is NaN or infinite at step 1 of epoch 1, though the loss is finite")
    assert found.hint == "look in its forward() for a square root or a norm of exactly 0, whose gradient is infinite"
    later = failed("Zero")  # which nothing looks at before it is in the weights
    assert " is NaN or infinite after the steps before" in later.message
    assert "a square root or a norm of exactly 0" in str(later.hint)


def test_a_network_whose_outputs_are_nan_is_told_so_at_the_first_step(failed: Callable[..., TrainingError]) -> None:
    found = failed("Root")
    message, hint = found.message, found.hint
    assert "the loss is nan at step 1 of epoch 1 (task nan): its output is NaN for " in message
    assert message.endswith(
        "samples of the batch before the first update of the weights; forward() of Root is the first to give such values"
    )
    assert hint is not None
    assert hint.startswith("look in its forward() for a square root")
    assert "learning rate" not in hint
