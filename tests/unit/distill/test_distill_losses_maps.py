"""What every loss on maps must do: teach the student and its adapter, leave the teacher alone, stay finite."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from tests.unit.distill.maps import build, call, features
from torch import Tensor, nn

from edgekd.data import dataset
from edgekd.distill.outputs import Facts
from edgekd.distill.terms import Terms
from edgekd.progress import Silent
from edgekd.recipe.data import Data
from edgekd.recipe.distill import Distill
from edgekd.train.loop import Fitted, Teaching, Trainable, fit

KINDS = ("ab", "attention_transfer", "cwd", "factor_transfer", "fitnet", "fsp", "mgd", "nst", "ofd", "pkd", "vid")
NETWORKS = ("factor_transfer", "mgd", "vid")  # whose adapters are several layers, in half precision as the student is
NOTHING_TO_TRAIN = ("attention_transfer", "nst")
X = torch.zeros(1, 3, 16, 16)


def maps(widths: Sequence[int], seed: int, n: int = 4) -> list[Tensor]:
    sizes = (8, 4, 4)
    return [torch.tensor(features(n, c, at, at, seed=seed + i)) for i, (c, at) in enumerate(zip(widths, sizes, strict=True))]


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_reach_the_student_and_the_adapter(kind: str) -> None:
    """Every map, and every parameter that is trained."""
    ours, theirs = [m.requires_grad_() for m in maps((3, 5, 6), seed=1)], maps((4, 5, 8), seed=4)
    loss, adapter = build(kind, ours, theirs)
    call(loss, adapter, ours, theirs).backward()
    trained = list(adapter.named_parameters()) if adapter is not None else []
    assert bool(trained) == (kind not in NOTHING_TO_TRAIN)
    for name, tensor in [*((str(i), m) for i, m in enumerate(ours)), *trained]:
        assert tensor.grad is not None, name
        assert torch.isfinite(tensor.grad).all(), name
        assert tensor.grad.any(), name


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", ["dead student", "dead teacher", "both dead", "one image", "constant", "huge"])
def test_finite_on_degenerate_maps(kind: str, case: str) -> None:
    """Value and gradients, in float32."""
    n = 1 if case == "one image" else 2
    ours, theirs = maps((3, 5, 6), seed=1, n=n), maps((4, 5, 8), seed=4, n=n)
    if case in {"dead student", "both dead"}:
        ours = [torch.zeros_like(m) for m in ours]
    if case in {"dead teacher", "both dead"}:
        theirs = [torch.zeros_like(m) for m in theirs]
    if case == "constant":
        ours, theirs = [torch.full_like(m, 0.7) for m in ours], [torch.full_like(m, -0.7) for m in theirs]
    if case == "huge":
        ours, theirs = [1e4 * m for m in ours], [1e4 * m for m in theirs]
    loss, adapter = build(kind, ours, theirs)
    ours, theirs = [m.float().requires_grad_() for m in ours], [m.float() for m in theirs]
    value = call(loss, adapter.float() if adapter is not None else None, ours, theirs)
    value.backward()
    assert value.dtype == torch.float32
    assert torch.isfinite(value)
    for tensor in (*ours, *(adapter.parameters() if adapter is not None else ())):
        assert tensor.grad is not None
        assert torch.isfinite(tensor.grad).all()
        assert case == "huge" or tensor.grad.abs().max() < 1e5  # not 1 / the epsilon of a division


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
def test_half_precision_keeps_the_small_differences(kind: str, dtype: torch.dtype) -> None:
    """A student close to its teacher under autocast: the value and the direction of its gradient are those of float64."""
    theirs = [m.to(dtype) for m in maps((4, 5, 8), seed=4)]
    ours = [(t.double() + 0.1 * m).to(dtype) for t, m in zip(theirs, maps((4, 5, 8), seed=1), strict=True)]

    def found(dtype: torch.dtype) -> tuple[Tensor, list[Tensor]]:
        student, teacher = [m.to(dtype).requires_grad_() for m in ours], [m.to(dtype) for m in theirs]
        loss, adapter = build(kind, student, teacher)
        if adapter is not None and dtype != torch.float64:
            adapter.float()
        torch.manual_seed(0)  # the same mask
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float64):
            value = call(loss, adapter, student, teacher)
        value.backward()
        return value.detach(), [m.grad.double() for m in student if m.grad is not None]

    (exact, expected), (value, gradients) = found(torch.float64), found(dtype)
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(exact.item(), rel=0.02)
    for a, b in zip(gradients, expected, strict=True):
        assert nn.functional.cosine_similarity(a.flatten(), b.flatten(), dim=0) > (0.95 if kind in NETWORKS else 0.999)


@pytest.mark.parametrize("kind", KINDS)
def test_the_student_comes_closer(kind: str) -> None:
    """Steps along the gradient lower the loss: a sign the wrong way round would raise it."""
    ours, theirs = [m.requires_grad_() for m in maps((4, 5, 8), seed=1)], maps((4, 5, 8), seed=4)
    loss, adapter = build(kind, ours, theirs)
    trained = [*ours, *(adapter.parameters() if adapter is not None else ())]
    optimizer = torch.optim.Adam(trained, lr=0.02)
    values = []
    for _ in range(30):
        optimizer.zero_grad()
        torch.manual_seed(0)  # the same mask
        value = call(loss, adapter, ours, theirs)
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert values[-1] < values[0] - 0.05 * abs(values[0])


@pytest.fixture
def distill(fabric: Fabric, npz: Callable[..., str]) -> Callable[..., tuple[Fitted, Terms]]:
    """Train a network for two epochs with the task and one term, at the weight that is shipped."""
    section = Data(source=npz(), image_size=16, augment=("crop", "flip"))

    def call(student: nn.Module, teacher: nn.Module, kind: str) -> tuple[Fitted, Terms]:
        losses = ({"kind": "task"}, {"kind": kind})
        budget = Distill.model_validate({"epochs": 2, "batch_size": 16, "warmup_epochs": 0, "losses": losses})
        torch.manual_seed(0)
        terms = Terms(budget.losses, student, teacher, X, Facts(classes=4, samples=72))
        trainable = Trainable.tapped("net", student, terms, budget, 0)
        fitted = fit(fabric, trainable, dataset.load(section), section, Silent(), Teaching.of(teacher, terms))
        return fitted, terms

    return call


def state(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


@pytest.mark.parametrize("kind", KINDS)
def test_two_epochs(kind: str, distill: Callable[..., tuple[Fitted, Terms]], small: Any) -> None:
    """Of what is trained everything moves, of the teacher nothing; the same seed gives the same bytes."""
    student, teacher = small(), small(1, width=8, dropout=0.5).train()
    start, before = state(student), state(teacher)
    torch.manual_seed(0)
    losses = Distill.model_validate({"epochs": 1, "losses": [{"kind": kind}]}).losses
    untrained = state(Terms(losses, student, teacher, X, Facts(classes=4, samples=72)).adapters)

    fitted, _ = distill(student, teacher, kind)
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert all(torch.isfinite(torch.tensor(row)).all() for row in fitted.curve.terms.values())
    assert all(abs(value) > 0 for value in fitted.curve.terms[kind])
    assert not any(torch.equal(fitted.last[name], start[name]) for name in start)
    assert fitted.adapters.keys() == untrained.keys()
    assert not any(torch.equal(fitted.adapters[name], untrained[name]) for name in untrained)

    again, _ = distill(small(), teacher, kind)
    assert all(torch.equal(value, again.last[name]) for name, value in fitted.last.items())
    assert all(torch.equal(value, again.adapters[name]) for name, value in fitted.adapters.items())
    assert again.curve.terms == fitted.curve.terms


@pytest.mark.parametrize("kind", ["ab", "ofd"])
def test_what_comes_in_front_of_the_activation_is_compared(kind: str, small: Any) -> None:
    losses = Distill.model_validate({"epochs": 1, "losses": [{"kind": kind}]}).losses
    terms = Terms(losses, small(), small(1, width=8), X, Facts(classes=4, samples=72))
    assert terms.student_paths == ("stem.1", "down1.0", "down2.0")


@pytest.mark.parametrize("kind", ["cwd", "factor_transfer", "mgd"])
def test_the_last_stage_is_compared(kind: str, small: Any) -> None:
    losses = Distill.model_validate({"epochs": 1, "losses": [{"kind": kind}]}).losses
    terms = Terms(losses, small(), small(1, width=8), X, Facts(classes=4, samples=72))
    assert terms.student_paths == ("down2",)
