"""Losses with much to train beside the student, in the real training loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from edgekd.data import dataset
from edgekd.distill.outputs import Facts
from edgekd.distill.terms import Terms
from edgekd.progress import Silent
from edgekd.recipe.data import Data
from edgekd.recipe.distill import Distill
from edgekd.train.loop import Fitted, Teaching, Trainable, fit

X = torch.zeros(1, 3, 16, 16)


def copy(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in state.items()}


@pytest.mark.parametrize("kind", ["reviewkd", "crd", "byot", "adversarial"])
def test_two_epochs(kind: str, fabric: Fabric, npz: Callable[..., str], small: Any) -> None:
    """The loss is finite, student and adapter learn, the teacher stays as it is; the same seed gives the same bytes."""
    section = Data(source=npz(), image_size=16, augment=("crop", "flip"))
    images = dataset.load(section)

    def run() -> tuple[Fitted, Terms, nn.Module]:
        student, teacher = small(), small(1, width=8).train()
        before = copy(teacher.state_dict())
        budget = Distill.model_validate({"epochs": 2, "batch_size": 16, "warmup_epochs": 0, "losses": [{"kind": kind}]})
        torch.manual_seed(0)
        terms = Terms(
            budget.losses,
            student,
            teacher,
            X,
            Facts(len(images.classes), len(images.train), torch.from_numpy(images.train.labels)),
        )
        start, adapters = copy(student.state_dict()), copy(terms.adapters.state_dict())
        trainable = Trainable.tapped("net", student, terms, budget, 0)
        fitted = fit(fabric, trainable, images, section, Silent(), Teaching.of(teacher, terms))
        assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
        assert all(parameter.grad is None for parameter in teacher.parameters())
        assert not torch.equal(fitted.last["stem.0.weight"], start["stem.0.weight"])
        learnt = [name for name, _ in terms.adapters.named_parameters()]
        assert learnt
        assert not any(torch.equal(fitted.adapters[name], adapters[name]) for name in learnt)
        return fitted, terms, student

    first, second = run()[0], run()[0]
    assert torch.tensor(first.curve.terms[kind]).isfinite().all()
    assert first.curve.terms == second.curve.terms
    assert all(torch.equal(value, second.last[name]) for name, value in first.last.items())
    assert all(torch.equal(value, second.adapters[name]) for name, value in first.adapters.items())
