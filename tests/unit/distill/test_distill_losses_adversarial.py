from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgekd.distill.outputs import Batch, Facts, Outputs
from edgekd.registry import losses
from edgekd.taps.layer import Layer
from edgekd.taps.pairing import Pair

Array = NDArray[np.float64]

OURS = ((3, 4, 4), (5, 2, 2))
THEIRS = ((6, 4, 4), (5, 2, 2))
PAIRS = tuple(Pair(Layer("s", a), Layer("t", b)) for a, b in zip(OURS, THEIRS, strict=True))
N = 8
BATCH = Batch(torch.arange(N) % 3, torch.arange(N))
LOGITS = torch.zeros(N, 3)


def maps(shapes: tuple[tuple[int, ...], ...], seed: int) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(N, *shape, generator=generator, dtype=torch.float64) for shape in shapes)


def discriminators(**options: float) -> Any:
    torch.manual_seed(0)
    return losses.get("adversarial")(**options).adapter(PAIRS, Facts(3, N)).double()


def value(adapter: Any, ours: tuple[Tensor, ...], theirs: tuple[Tensor, ...], **options: float) -> Tensor:
    found: Tensor = losses.get("adversarial")(**options)(Outputs(LOGITS, ours), Outputs(LOGITS, theirs), BATCH, adapter)
    return found


def linear(x: Array, layer: Any) -> Array:
    result: Array = x @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()
    return result


def test_adversarial_is_the_discriminators_cross_entropy() -> None:
    adapter, ours, theirs = discriminators().eval(), maps(OURS, 1), maps(THEIRS, 2)
    values = []
    for index in range(2):
        s, t = (x[index].numpy().mean(axis=(2, 3)) for x in (ours, theirs))
        if index == 0:  # 3 channels to 6
            s = linear(s, adapter.maps[0])
        for feature, sign in ((s, 1), (t, -1)):
            for layer in (0, 2):
                feature = np.maximum(linear(feature, adapter.judges[index][layer]), 0)
            odds = linear(feature, adapter.judges[index][4])
            values.append(-np.log(1 / (1 + np.exp(sign * odds))).mean())
    assert value(adapter, ours, theirs).item() == pytest.approx(np.mean(values), rel=1e-10)


def test_a_guess_costs_log_2() -> None:
    adapter = discriminators()
    for judge in adapter.judges:
        judge[4] = torch.nn.Linear(128, 1).double()
        torch.nn.init.zeros_(judge[4].weight)
        torch.nn.init.zeros_(judge[4].bias)
    assert value(adapter, maps(OURS, 1), maps(THEIRS, 2)).item() == pytest.approx(np.log(2))


@pytest.mark.parametrize("factor", [0.0, 1.0, 2.5])
def test_the_student_gets_the_gradient_reversed_and_the_discriminators_the_true_one(factor: float) -> None:
    """By central differences, another path than autograd's."""
    adapter, theirs = discriminators().eval(), maps(THEIRS, 2)
    ours = tuple(x.requires_grad_() for x in maps(OURS, 1))
    value(adapter, ours, theirs, reversal=factor).backward()
    checked = (
        (ours[0], (0, 1, 2, 3), -factor),
        (ours[1], (7, 0, 1, 1), -factor),
        (adapter.maps[0].weight, (2, 1), -factor),
        (adapter.judges[0][0].parametrizations.weight.original, (0, 2), 1.0),
        (adapter.judges[1][4].parametrizations.weight.original, (0, 5), 1.0),
        (adapter.judges[1][4].bias, (0,), 1.0),
    )
    for tensor, at, sign in checked:
        found = []
        for step in (1e-5, -1e-5):
            with torch.no_grad():
                tensor[at] += step
                found.append(value(adapter, ours, theirs).item())
                tensor[at] -= step
        slope = (found[0] - found[1]) / 2e-5
        assert slope != 0
        assert tensor.grad[at].item() == pytest.approx(sign * slope, rel=1e-4, abs=1e-10)
    assert all(t.grad is None for t in theirs)


def test_gradients_reach_all_of_the_adapter() -> None:
    adapter, ours = discriminators(), tuple(x.requires_grad_() for x in maps(OURS, 1))
    value(adapter, ours, maps(THEIRS, 2)).backward()
    for tensor in (*ours, *adapter.parameters()):
        assert tensor.grad is not None
        assert tensor.grad.abs().sum() > 0


def test_the_student_wins_against_discriminators_that_learn() -> None:
    """Features far from the teacher's come to it, both sides on one optimizer: no discriminator becomes so sure that
    nothing is left of its gradient."""
    adapter, theirs = discriminators(hidden=16), tuple(x + 2 for x in maps(THEIRS, 2))
    ours = tuple((x - 2).requires_grad_() for x in maps(OURS, 1))
    optimizer = torch.optim.Adam([*ours, *adapter.parameters()], lr=0.02)

    def distance() -> float:
        return float((ours[1].detach().mean((0, 2, 3)) - theirs[1].mean((0, 2, 3))).norm())

    before = distance()
    for _ in range(300):
        optimizer.zero_grad()
        value(adapter, ours, theirs).backward()
        optimizer.step()
    assert distance() < 0.5 * before


@pytest.mark.parametrize("size", [0.0, 1e4])
def test_extremes_are_finite(size: float) -> None:
    adapter = discriminators()
    ours = tuple((size * x).detach().requires_grad_() for x in maps(OURS, 1))
    found = value(adapter, ours, tuple(-size * x for x in maps(THEIRS, 2)))
    found.backward()
    assert torch.isfinite(found)
    assert all(x.grad is not None and torch.isfinite(x.grad).all() for x in ours)


def test_one_image() -> None:
    adapter = discriminators()
    found = value(adapter, tuple(x[:1] for x in maps(OURS, 1)), tuple(x[:1] for x in maps(THEIRS, 2)))
    assert torch.isfinite(found)
