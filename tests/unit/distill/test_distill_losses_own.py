from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgekd.distill.outputs import Batch, Facts, Outputs
from edgekd.distill.terms import Terms
from edgekd.errors import ModelError
from edgekd.recipe.distill import Distill
from edgekd.registry import losses
from edgekd.taps.layer import Layer
from edgekd.taps.pairing import Pair, pair
from edgekd.taps.taps import Tapped

Array = NDArray[np.float64]

SHAPES = ((3, 8, 8), (5, 4, 4))
DEEPEST = (6, 2, 2)
PAIRS = tuple(Pair(Layer("s", shape), Layer("deepest", DEEPEST)) for shape in SHAPES)
FACTS = Facts(classes=4, samples=6)
X = torch.randn(6, 3, 16, 16, generator=torch.Generator().manual_seed(0))
BATCH = Batch(torch.tensor([0, 1, 2, 3, 0, 1]), torch.arange(6))


def random(seed: int, *shape: int) -> Tensor:
    return torch.randn(6, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def branches() -> Any:
    torch.manual_seed(0)
    return losses.get("byot")().adapter(PAIRS, FACTS).double()


def log_softmax(x: Array) -> Array:
    result: Array = x - np.log(np.exp(x).sum(axis=1, keepdims=True))
    return result


@pytest.mark.parametrize("options", [{}, {"alpha": 0.8, "temperature": 1.5, "hint": 2.0}])
def test_byot_is_zhang_2019(options: dict[str, float]) -> None:
    """(1 − α) CE(q_i, y) + α KL(q_C ‖ q_i at T) + λ ‖F_i − F_C‖², summed over the shallow classifiers."""
    adapter, logits, deepest = branches(), random(5, 4), random(6, *DEEPEST)
    features = tuple(random(index, *shape) for index, shape in enumerate(SHAPES))
    loss = losses.get("byot")(**options)
    found = loss(Outputs(logits, features), Outputs(logits, (deepest, deepest)), BATCH, adapter)
    alpha, t, hint = (options.get(name, default) for name, default in (("alpha", 0.3), ("temperature", 3), ("hint", 0.03)))
    expected = 0.0
    for branch, feature in zip(adapter, features, strict=True):
        f, q = (value.detach().numpy() for value in branch(feature))
        cross = -log_softmax(q)[np.arange(6), BATCH.target.numpy()].mean()
        target = log_softmax(logits.numpy() / t)
        divergence = (np.exp(target) * (target - log_softmax(q / t))).sum(axis=1).mean()
        distance = ((f - deepest.numpy().mean(axis=(2, 3))) ** 2).sum(axis=1).mean()
        expected += (1 - alpha) * cross + alpha * divergence + hint * distance
    assert found.item() == pytest.approx(expected, rel=1e-10)


def test_branches_go_down_to_the_deepest_stage() -> None:
    """One step of stride 2 for each stage behind: 8 and 4 pixels to 2."""
    for branch, shape in zip(branches(), SHAPES, strict=True):
        deep, logits = branch(random(0, *shape))
        assert deep.shape == (6, 6)
        assert logits.shape == (6, 4)
        assert branch.bottleneck[:-2](random(0, *shape)).shape == (6, *DEEPEST)


def test_gradients_reach_shallow_stages_and_branches_and_not_the_end() -> None:
    adapter = branches()
    logits, deepest = random(5, 4).requires_grad_(), random(6, *DEEPEST)
    features = tuple(random(index, *shape).requires_grad_() for index, shape in enumerate(SHAPES))
    losses.get("byot")()(Outputs(logits, features), Outputs(logits.detach(), (deepest,) * 2), BATCH, adapter).backward()
    for tensor in (*features, *adapter.parameters()):
        assert tensor.grad is not None
        assert tensor.grad.abs().sum() > 0
    assert logits.grad is None


def test_dead_maps_are_finite() -> None:
    features = tuple(torch.zeros(6, *shape, dtype=torch.float64, requires_grad=True) for shape in SHAPES)
    deepest = torch.zeros(6, *DEEPEST, dtype=torch.float64)
    logits = torch.full((6, 4), 1e4, dtype=torch.float64)
    found = losses.get("byot")()(Outputs(logits, features), Outputs(logits, (deepest,) * 2), BATCH, branches())
    found.backward()
    assert torch.isfinite(found)
    assert all(feature.grad is not None and torch.isfinite(feature.grad).all() for feature in features)


# --- a network that is its own teacher --------------------------------------------------------------------------------


def own(student: nn.Module, *more: dict[str, Any], teacher: nn.Module | None = None) -> Terms:
    torch.manual_seed(0)
    return Terms(Distill(epochs=1, losses=({"kind": "byot"}, *more)).losses, student, teacher, X[:1], FACTS)


def test_own_stages_are_paired_with_the_last(small: Any) -> None:
    terms = own(small())
    assert [str(p) for p in terms.terms[0].pairs] == [
        "stem (4 ch) ← down2 (16 ch) at 16×16 and 4×4",
        "down1 (8 ch) ← down2 (16 ch) at 8×8 and 4×4",
    ]
    assert not terms.needs_teacher
    assert terms.student_paths == ("stem", "down1", "down2")
    assert terms.teacher_paths == ()


def test_stages_keep_their_size_and_the_end_gets_no_gradient(small: Any) -> None:
    student = small().eval()
    terms = own(student).eval()
    outputs = Tapped(student, terms.student_paths).eval()(X)
    (value,) = terms(outputs, None, BATCH, 0)
    stem, down1, down2 = outputs[1:]
    ours, end = Outputs(outputs[0], (stem, down1)), Outputs(outputs[0].detach(), (down2.detach(),) * 2)
    torch.testing.assert_close(value, losses.get("byot")()(ours, end, BATCH, terms.adapters["byot"]))
    value.backward()
    assert student.down1[0].weight.grad.abs().sum() > 0
    assert student.down2[0].weight.grad is None
    assert student.head.weight.grad is None


def test_beside_a_teacher_and_its_stages(small: Any) -> None:
    student, teacher = small().eval(), small(1, width=8).eval()
    terms = own(student, {"kind": "fitnet", "layers": {"stem": "stem"}}, teacher=teacher).eval()
    assert terms.needs_teacher
    assert terms.teacher_paths == ("stem",)
    ours = Tapped(student, terms.student_paths).eval()(X)
    theirs = Tapped(teacher, terms.teacher_paths).eval()(X)
    both = terms(ours, theirs, BATCH, 0)
    alone = own(student).eval()
    torch.testing.assert_close(both[0], alone(Tapped(student, alone.student_paths).eval()(X), None, BATCH, 0)[0])
    torch.testing.assert_close(both[1], (terms.adapters["fitnet"][0](student.stem(X)) - teacher.stem(X)).pow(2).mean())


def test_a_network_of_one_stage_cannot_teach_itself() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 4))
    with pytest.raises(ModelError, match="the student has no two stages"):
        pair(net, net, X[:1], "own_stages")
