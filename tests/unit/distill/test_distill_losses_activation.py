"""ab and ofd against their papers' formulas, worked out by numpy, and against torchdistill."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from tests.unit.distill.maps import Array, batch_norm, build, call, convolve, features, gradients
from torch import nn

from edgekd.distill.adapters import Margin
from edgekd.models.torchvision import import_torchvision

OURS = [features(3, 4, 4, 4, seed=1), features(3, 3, 4, 2, seed=2), features(3, 5, 2, 2, seed=3)]
THEIRS = [features(3, 6, 4, 4, seed=4), features(3, 3, 4, 2, seed=5), features(3, 8, 2, 2, seed=6)]


def connected(x: Array, connector: nn.Sequential) -> Array:
    return batch_norm(convolve(x, connector[0]))


@pytest.mark.parametrize("margin", [1.0, 0.3])
def test_ab_is_heo_2019(margin: float) -> None:
    """A neuron at a time; the last pair counts 1, the others 1/2 and 1/4."""
    loss, adapter = build("ab", OURS, THEIRS, margin=margin)
    expected = 0.0
    for s, t, connector, share in zip(OURS, THEIRS, adapter, (0.25, 0.5, 1.0), strict=True):
        for a, b in zip(connected(s, connector).flat, t.flat, strict=True):
            distance = margin - a if b > 0 else margin + a
            expected += share * max(0.0, float(distance)) ** 2 / len(s)
    assert call(loss, adapter, OURS, THEIRS).item() == pytest.approx(expected, rel=1e-10)


def test_ab_of_torchdistill() -> None:
    """Value and gradients, without connectors, which torchdistill has in the student."""
    import_torchvision()
    from torchdistill.losses.mid_level import AltActTransferLoss

    ours = [torch.tensor(features(*t.shape, seed=20 + i), requires_grad=True) for i, t in enumerate(THEIRS)]
    theirs = [torch.tensor(t) for t in THEIRS]
    names = ("a", "b", "c")
    config = {
        name: {"student": {"io": "output", "path": name}, "teacher": {"io": "output", "path": name}, "weight": share}
        for name, share in zip(names, (0.25, 0.5, 1.0), strict=True)
    }
    expected = AltActTransferLoss(config, 1.0, "mean")(
        {name: {"output": s} for name, s in zip(names, ours, strict=True)},
        {name: {"output": t} for name, t in zip(names, theirs, strict=True)},
    )
    loss, _ = build("ab", ours, theirs)
    value = call(loss, nn.ModuleList(nn.Identity() for _ in ours), ours, theirs)
    assert value.item() == pytest.approx(expected.item(), rel=1e-10)
    for a, b in zip(gradients(value, *ours), gradients(expected, *ours), strict=True):
        assert a == pytest.approx(b, rel=1e-5, abs=1e-12)


def test_ab_is_content_beyond_the_margin() -> None:
    """Only the sign of the teacher counts, and nothing of the student beyond the margin."""
    sign = np.sign(features(2, 3, 4, 4, seed=1))
    loss, _ = build("ab", [sign], [sign])
    none = nn.ModuleList([nn.Identity()])
    assert call(loss, none, [1.01 * sign], [1e-3 * sign]).item() == 0.0
    assert call(loss, none, [0.5 * sign], [9 * sign]).item() == pytest.approx(0.25 * 3 * 4 * 4)


def partial(s: Array, t: Array, m: Array) -> float:
    """Three cases, as in mdistiller: another way to say that places with s ≤ max(t, m) ≤ 0 do not count."""
    m = np.broadcast_to(m[:, None, None], t.shape)
    total = ((s - m) ** 2)[(s > m) & (t <= m)].sum()
    total += ((s - t) ** 2)[(s > t) & (t > m) & (t <= 0)].sum()
    total += ((s - t) ** 2)[t > 0].sum()
    return float(total) / len(s)


def margin(batches: list[Array]) -> Array:
    every = np.concatenate(batches)
    return np.array([every[:, c][every[:, c] < 0].mean() for c in range(every.shape[1])])


def test_ofd_is_heo_2019() -> None:
    """Two steps: the margin of the second is the mean of the negative values of both."""
    loss, adapter = build("ofd", OURS, THEIRS)
    later = [features(*t.shape, seed=30 + i) - 0.5 for i, t in enumerate(THEIRS)]
    for seen in ([THEIRS], [THEIRS, later]):
        expected = 0.0
        for i, share in enumerate((0.25, 0.5, 1.0)):
            m = margin([batch[i] for batch in seen])
            expected += share * partial(connected(OURS[i], adapter[i].connector), seen[-1][i], m)
        assert call(loss, adapter, OURS, seen[-1]).item() == pytest.approx(expected, rel=1e-10)


def test_the_margin_is_learnt_in_training_alone() -> None:
    loss, adapter = build("ofd", OURS, THEIRS)
    call(loss, adapter, OURS, THEIRS)
    before = {name: value.clone() for name, value in adapter.state_dict().items()}
    call(loss, adapter.eval(), OURS, [t - 3 for t in THEIRS])
    assert all(torch.equal(value, before[name]) for name, value in adapter.state_dict().items())


def test_the_margin_of_normal_values_is_the_authors() -> None:
    """Behind a batch norm with shift μ and scale σ their closed form is ``μ - σ φ(μ/σ) / Φ(-μ/σ)``."""
    mean, sd = np.array([0.0, 1.0, -2.0]), np.array([1.0, 2.0, 0.5])
    module = Margin(3)
    for seed in range(20):
        module(torch.tensor(mean[:, None, None] + sd[:, None, None] * features(16, 3, 16, 16, seed=seed)))
    for m, s, found in zip(mean, sd, module.value, strict=True):
        density = math.exp(-((m / s) ** 2) / 2) / math.sqrt(2 * math.pi)
        below = 0.5 * math.erfc(m / s / math.sqrt(2))
        assert found.item() == pytest.approx(m - s * density / below, rel=0.02)


def test_a_channel_without_negative_values_is_left_as_it_is() -> None:
    feature = torch.tensor(np.abs(features(2, 3, 4, 4, seed=1)), dtype=torch.float32)
    module = Margin(3)
    assert torch.equal(module(feature), feature)
    assert module.value.tolist() == [0.0] * 3


def test_the_margin_goes_on_where_it_was_saved() -> None:
    """Quantization-aware training takes the adapters over."""
    first, second = Margin(2), Margin(2)
    first(torch.tensor(features(4, 2, 3, 3, seed=1)))
    second.load_state_dict(first.state_dict())
    batch = torch.tensor(features(4, 2, 3, 3, seed=2))
    assert torch.equal(first(batch), second(batch))
    assert torch.equal(first.value, second.value)
