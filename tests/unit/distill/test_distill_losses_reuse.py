from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from edgekd.data import dataset
from edgekd.distill.outputs import Batch, Facts, Outputs
from edgekd.distill.reuse import Reused, adopt, reuse
from edgekd.distill.terms import Terms
from edgekd.errors import ModelError
from edgekd.progress import Silent
from edgekd.quantization import qat
from edgekd.recipe.data import Data
from edgekd.recipe.distill import Distill
from edgekd.registry import losses
from edgekd.taps.pairing import pair
from edgekd.taps.taps import Tapped, survey
from edgekd.train.loop import Teaching, Trainable, fit

X = torch.randn(6, 3, 16, 16, generator=torch.Generator().manual_seed(0))
FACTS = Facts(classes=4, samples=72)


def reused(student: nn.Module, teacher: nn.Module, **options: Any) -> Reused:
    made = losses.get("simkd")(**options).student(student, teacher, X[:1])
    assert isinstance(made, Reused)
    return made


class Net(nn.Sequential):
    """A stem and an end of one's own."""

    def __init__(self, *end: nn.Module, activation: nn.Module | None = None) -> None:
        super().__init__(nn.Conv2d(3, 6, 3, 2, 1), nn.BatchNorm2d(6), activation or nn.ReLU(), *end)


# --- the network ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("training", [True, False])
def test_the_student_ends_in_the_teachers_classifier(small: Any, training: bool) -> None:
    student, teacher = small(0), small(1, width=8).eval()
    made = reused(student, small(2, width=8))
    adopt(made, teacher)
    made.eval().train(training)
    ours = student.train(training)
    last = ours.down2(ours.down1(ours.stem(X)))
    torch.testing.assert_close(made.backbone(X), last)
    projected = made.projector(last)
    assert projected.shape == (6, 32, 4, 4)
    torch.testing.assert_close(made(X), teacher.head(projected.mean((2, 3))))
    torch.testing.assert_close(made.classifier(teacher.down2(teacher.down1(teacher.stem(X)))), teacher(X))


def test_what_is_behind_the_students_last_map_is_gone(small: Any) -> None:
    student = small(0)
    names = {name for name, _ in reused(student, small(1, width=8)).named_parameters()}
    own = {f"backbone.{name}" for name, _ in student.named_parameters() if not name.startswith("head")}
    assert {name for name in names if name.startswith("backbone")} == own
    assert {name for name in names if name.startswith("classifier")} == {"classifier.head.weight", "classifier.head.bias"}


def test_the_classifier_is_not_trained_and_knows_no_dropout(small: Any) -> None:
    teacher = small(1, width=8, dropout=0.9).eval()
    made = reused(small(0), small(2, width=8, dropout=0.9))
    adopt(made, teacher)
    assert {name for name, p in made.named_parameters() if not p.requires_grad} == {
        "classifier.head.weight", "classifier.head.bias",
    }  # fmt: skip
    last = torch.rand(6, 32, 4, 4)
    torch.testing.assert_close(made.train().classifier(last), teacher.head(last.mean((2, 3))))


def test_the_projector_is_chen_2022() -> None:
    """Two 1×1 and a 3×3 convolution of half the teacher's width, each with batch norm and ReLU, and what that costs."""
    student = Net(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4))
    teacher = Net(nn.Conv2d(6, 16, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4))
    for options, size in (
        ({}, 6 * 8 + 9 * 8 * 8),
        ({"depthwise": True}, 6 * 8 + 9 * 8),
        ({"reduction": 4}, 6 * 4 + 9 * 4 * 4),
    ):
        inner = 16 // options.get("reduction", 2)
        count = size + 16 * inner + 2 * (inner + inner + 16)
        made = reused(student, teacher, **options)
        assert sum(p.numel() for p in made.projector.parameters()) == count
        assert made.cost.startswith(f"{count:,} parameters of a projector and 68 of the teacher's classifier")
        assert [type(module).__name__ for module in made.projector] == ["Conv2d", "BatchNorm2d", "ReLU"] * 3


def test_no_relu_before_a_map_that_may_be_negative() -> None:
    student = Net(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4))
    teacher = Net(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4), activation=nn.SiLU())
    assert isinstance(reused(student, teacher).projector[-1], nn.BatchNorm2d)


@pytest.mark.parametrize(
    ("end", "message"),
    [
        ((nn.Flatten(), nn.Linear(384, 4)), "the teacher has no pooling over height and width"),
        ((nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(6), nn.Flatten(), nn.Linear(6, 4)), "has batch norm behind its last pool"),
        ((nn.AvgPool2d(4), nn.Flatten(), nn.Linear(24, 4)), "cannot read the student's last map \\(16×16 and 8×8 pixels"),
    ],
)
def test_teachers_whose_end_cannot_be_taken(end: tuple[nn.Module, ...], message: str) -> None:
    student = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 4))
    with pytest.raises(ModelError, match=message):
        reuse(student, Net(*end), X[:1], reduction=2, depthwise=False)


def test_the_last_map_is_what_the_last_pooling_reads(small: Any) -> None:
    """One pixel is a map as well; a pooling inside comes before."""
    inner = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(6, 7, 4), nn.SiLU())
    net = Net(inner, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(), nn.Linear(7, 4))
    found = survey(net, X[:1]).last_map
    assert found is not None
    assert (found.path, found.shape) == ("3", (7, 1, 1))
    found = survey(small(), X[:1]).last_map
    assert found is not None
    assert (found.path, found.shape) == ("down2", (16, 4, 4))
    assert survey(nn.Sequential(nn.Flatten(), nn.Linear(768, 4)), X[:1]).last_map is None


# --- the loss ---------------------------------------------------------------------------------------------------------


def test_simkd_is_the_mean_squared_error() -> None:
    s, t = (np.random.default_rng(seed).normal(size=(2, 3, 4, 4)) for seed in (1, 2))
    ours = torch.tensor(s, requires_grad=True)
    theirs = torch.tensor(t)
    logits = torch.zeros(2, 4)
    batch = Batch(torch.zeros(2, dtype=torch.int64), torch.arange(2))
    value = losses.get("simkd")()(Outputs(logits, (ours,)), Outputs(logits, (theirs,)), batch, None)
    assert value.item() == pytest.approx(((s - t) ** 2).mean(), rel=1e-12)
    value.backward()
    assert ours.grad is not None
    assert ours.grad.numpy() == pytest.approx(2 * (s - t) / s.size, rel=1e-12)
    assert theirs.grad is None


def test_it_reads_the_projected_map_and_the_teachers(small: Any) -> None:
    teacher = small(1, width=8).eval()
    made = reused(small(0), teacher).eval()
    assert [str(p) for p in pair(made, teacher, X[:1], "last_map")] == ["projector (32 ch) ← down2 (32 ch) at 4×4"]
    terms = Terms(Distill(epochs=1, losses=({"kind": "simkd"},)).losses, made, teacher, X[:1], FACTS)
    ours, theirs = Tapped(made, terms.student_paths).eval()(X), Tapped(teacher, terms.teacher_paths).eval()(X)
    (value,) = terms(ours, theirs, Batch(torch.zeros(6, dtype=torch.int64), torch.arange(6)), 0)
    expected = made.projector(made.backbone(X)) - teacher.down2(teacher.down1(teacher.stem(X)))
    torch.testing.assert_close(value, expected.pow(2).mean())


def test_the_classifier_is_not_trained_in_int8_either(small: Any) -> None:
    made = reused(small(0), small(1, width=8))
    prepared = qat.prepare(Tapped(made, ("projector",)).eval(), X[:1]).module
    still = {name for name, p in prepared.named_parameters() if not p.requires_grad}
    assert still == {"network.classifier.head.weight", "network.classifier.head.bias"}
    assert torch.equal(prepared.get_parameter("network.classifier.head.weight"), made.classifier.head.weight)


def test_two_epochs(fabric: Fabric, npz: Callable[..., str], small: Any) -> None:
    """Backbone and projector learn; the classifier and the teacher keep each bit, weight decay or not."""
    section = Data(source=npz(), image_size=16)
    teacher = small(1, width=8)
    made = reused(small(0), teacher)
    adopt(made, teacher)

    def copy(network: nn.Module) -> dict[str, Tensor]:
        return {name: value.clone() for name, value in network.state_dict().items()}

    start, before = copy(made), copy(teacher)
    budget = Distill.model_validate(
        {"epochs": 2, "batch_size": 16, "warmup_epochs": 0, "weight_decay": 0.5, "ema": 0.9, "losses": [{"kind": "simkd"}]}
    )
    terms = Terms(budget.losses, made, teacher, X[:1], FACTS)
    trainable = Trainable.tapped("net", made, terms, budget, 0)
    fitted = fit(fabric, trainable, dataset.load(section), section, Silent(), Teaching.of(teacher, terms))
    assert torch.tensor(fitted.curve.terms["simkd"]).isfinite().all()
    assert fitted.curve.terms["simkd"][1] < fitted.curve.terms["simkd"][0]
    assert fitted.last.keys() == start.keys()
    for name, value in fitted.last.items():
        assert torch.equal(value, start[name]) == name.startswith("classifier"), name
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert made.cost.endswith("132 of the teacher's classifier, shipped with it")
