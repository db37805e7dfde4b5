"""nst, cwd and fsp against their papers' formulas, worked out by numpy, and against torchdistill."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from tests.unit.distill.maps import Array, build, call, convolve, features, gradients, pairs

from edgekd.errors import ModelError
from edgekd.models.torchvision import import_torchvision


def selectivity(feature: Array) -> Array:
    """Mean over channels of the outer product of its unit vector of positions with itself: N×P×P."""
    flat = feature.reshape(*feature.shape[:2], -1)
    unit = flat / np.sqrt((flat**2).sum(axis=2, keepdims=True))
    return np.asarray(np.stack([sum(np.outer(c, c) for c in image) / len(image) for image in unit]))


@pytest.mark.parametrize("size", [2, 5], ids=["less positions than channels", "more positions than channels"])
def test_nst_is_the_distance_of_second_moments(size: int) -> None:
    """Huang & Wang 2017: the discrepancy with the kernel (x·y)² is the squared distance of mean outer products."""
    ours = [features(3, 6, size, size, seed=1), features(3, 5, size, size, seed=2)]
    theirs = [features(3, 9, size, size, seed=3), features(3, 5, size, size, seed=4)]
    expected = sum(
        ((selectivity(a) - selectivity(b)) ** 2).sum(axis=(1, 2)).mean() for a, b in zip(ours, theirs, strict=True)
    )
    loss, adapter = build("nst", ours, theirs)
    assert adapter is None
    assert call(loss, adapter, ours, theirs).item() == pytest.approx(expected, rel=1e-10)


def test_nst_does_not_see_scale_or_the_order_of_channels() -> None:
    feature = features(2, 6, 3, 3, seed=1)
    loss, _ = build("nst", [feature], [feature])
    assert call(loss, None, [feature], [7 * feature[:, ::-1].copy()]).item() == pytest.approx(0.0, abs=1e-12)
    assert call(loss, None, [feature], [feature**2]).item() > 1e-3


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max())
    return np.asarray(e / e.sum())


@pytest.mark.parametrize("t", [1.0, 4.0])
def test_cwd_is_shu_2021(t: float) -> None:
    """``T² / C · Σ_c Σ_i φ(t)_i log(φ(t)_i / φ(s)_i)``, φ = softmax over positions; the student through its 1×1."""
    ours = [features(2, 4, 3, 5, seed=1), features(2, 3, 2, 2, seed=2)]
    theirs = [features(2, 6, 3, 5, seed=3), features(2, 3, 2, 2, seed=4)]
    loss, adapter = build("cwd", ours, theirs, temperature=t)
    assert isinstance(adapter[1], torch.nn.Identity)
    expected = 0.0
    for s, other in ((convolve(ours[0], adapter[0]), theirs[0]), (ours[1], theirs[1])):
        n, c = s.shape[:2]
        for image in range(n):
            for channel in range(c):
                p, q = softmax(other[image, channel] / t), softmax(s[image, channel] / t)
                expected += t**2 / (n * c) * float((p * np.log(p / q)).sum())
    assert call(loss, adapter, ours, theirs).item() == pytest.approx(expected, rel=1e-10)


def test_cwd_ignores_a_shift_of_a_channel() -> None:
    feature = features(2, 3, 4, 4, seed=1)
    loss, adapter = build("cwd", [feature], [feature])
    shifted = feature + np.array([5.0, -3.0, 0.5])[:, None, None]
    assert call(loss, adapter, [feature], [shifted]).item() == pytest.approx(0.0, abs=1e-12)


def flow(a: Array, b: Array) -> Array:
    """Yim et al. 2017, eq. 1, where ``a`` has a whole multiple of the size of ``b``: max-pooled to it."""
    n, c, h, w = b.shape
    step = a.shape[2] // h
    pooled = a.reshape(n, a.shape[1], h, step, w, step).max(axis=(3, 5))
    matrix = np.zeros((n, a.shape[1], c))
    for i in range(h):
        for j in range(w):
            matrix += pooled[:, :, None, i, j] * b[:, None, :, i, j] / (h * w)
    return matrix


OURS = [features(2, 3, 8, 8, seed=1), features(2, 5, 4, 4, seed=2), features(2, 6, 4, 4, seed=3)]
THEIRS = [features(2, 4, 8, 8, seed=4), features(2, 5, 4, 4, seed=5), features(2, 8, 4, 4, seed=6)]


def test_fsp_is_yim_2017() -> None:
    """Eq. 2 with the mean over a matrix's elements instead of their sum."""
    loss, adapter = build("fsp", OURS, THEIRS)
    adapted = [convolve(OURS[0], adapter[0]), OURS[1], convolve(OURS[2], adapter[2])]
    flows = zip(pairwise(adapted), pairwise(THEIRS), strict=True)
    expected = sum(((flow(*s) - flow(*t)) ** 2).mean() for s, t in flows)
    assert call(loss, adapter, OURS, THEIRS).item() == pytest.approx(expected, rel=1e-10)


def test_fsp_matrices_are_those_of_torchdistill() -> None:
    """Its loss is another one: ``Σ_j √(Σ_i (G^S - G^T)²_ij)``, norms of columns, not squared, where eq. 2 has a squared norm
    of the whole; so the loss of eq. 2 is made of its matrices, by value and gradients.
    """
    import_torchvision()
    from torchdistill.losses.mid_level import FSPLoss

    same = [features(2, t.shape[1], *t.shape[2:], seed=10 + i) for i, t in enumerate(THEIRS)]
    ours = [torch.tensor(s, requires_grad=True) for s in same]
    theirs = [torch.tensor(t) for t in THEIRS]
    matrix: Any = FSPLoss.compute_fsp_matrix
    expected = sum((matrix(*s) - matrix(*t)).pow(2).mean() for s, t in zip(pairwise(ours), pairwise(theirs), strict=True))
    loss, adapter = build("fsp", same, THEIRS)
    value = call(loss, adapter, ours, theirs)
    assert value.item() == pytest.approx(expected.item(), rel=1e-10)
    for ours_gradient, theirs_gradient in zip(gradients(value, *ours), gradients(expected, *ours), strict=True):
        assert ours_gradient == pytest.approx(theirs_gradient, rel=1e-5, abs=1e-12)


def test_fsp_of_one_stage() -> None:
    loss, _ = build("fsp", OURS, THEIRS)
    with pytest.raises(ModelError) as caught:
        loss.adapter(pairs(OURS[:1], THEIRS[:1]), None)
    assert str(caught.value) == (
        "fsp compares each layer with the next one: it needs two pairs of layers or more, not 1\n"
        "  → choose more, layers: {student: teacher, student: teacher}, or another loss"
    )
