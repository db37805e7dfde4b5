"""Each loss against its published formula, worked out with numpy in float64: another path than the one under test."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgekd.distill.outputs import Batch, Facts, Outputs, adapter_of
from edgekd.registry import losses
from edgekd.taps.layer import Layer
from edgekd.taps.pairing import Pair

Array = NDArray[np.float64]

S = np.array([[2.0, -1.0, 0.5], [0.0, 0.3, -2.0]])
T = np.array([[1.0, 1.5, -0.5], [4.0, -3.0, 0.0]])
LABELS = np.array([0, 2])
BATCH = Batch(torch.tensor(LABELS), torch.arange(2))
FACTS = Facts(classes=3, samples=2)


def pairs(ours: Sequence[Array], theirs: Sequence[Array]) -> tuple[Pair, ...]:
    return tuple(Pair(Layer("s", a.shape[1:]), Layer("t", b.shape[1:])) for a, b in zip(ours, theirs, strict=True))


def softmax(x: Array) -> Array:
    e = np.exp(x)
    return e / e.sum(axis=1, keepdims=True)


def value(kind: str, student: Array | None = None, teacher: Array | None = None, ours: Sequence[Array] = (),
          theirs: Sequence[Array] = (), **options: float) -> float:  # fmt: skip
    def outputs(logits: Array | None, features: Sequence[Array]) -> Outputs:
        return Outputs(torch.tensor(S if logits is None else logits), tuple(torch.tensor(f) for f in features))

    loss = losses.get(kind).model_validate(options)
    adapter = adapter_of(loss, pairs(ours, theirs), FACTS)
    return float(loss(outputs(student, ours), outputs(teacher, theirs), BATCH, adapter))


@pytest.mark.parametrize("t", [1.0, 4.0, 20.0])
def test_kd_is_hinton_2015(t: float) -> None:
    p, q = softmax(T / t), softmax(S / t)
    expected = t**2 * (p * (np.log(p) - np.log(q))).sum(axis=1).mean()
    assert value("kd", S, T, temperature=t) == pytest.approx(expected, rel=1e-12)


def test_kd_at_high_temperature_matches_logits() -> None:
    """Hinton et al. 2015, §2.1: for T → ∞ and logits of zero mean, KD is half the squared distance of logits over N."""
    s, t = S - S.mean(axis=1, keepdims=True), T - T.mean(axis=1, keepdims=True)
    expected = ((s - t) ** 2).sum(axis=1).mean() / (2 * 3)
    assert value("kd", S, T, temperature=1e5) == pytest.approx(expected, rel=1e-4)


def test_kd_of_equals_is_zero_and_ignores_a_shift() -> None:
    assert value("kd", T, T) == pytest.approx(0.0, abs=1e-12)
    assert value("kd", S + 7, T - 3) == pytest.approx(value("kd", S, T), rel=1e-12)


def test_kd_survives_large_logits() -> None:
    """exp(1000) overflows: the value is the difference of logits, times T² / T, for a sure teacher."""
    sure, wrong = np.array([[1000.0, 0.0, 0.0]] * 2), np.array([[0.0, 1000.0, 0.0]] * 2)
    assert value("kd", wrong, sure, temperature=2.0) == pytest.approx(4 * 500.0)


def test_kd_gradient_is_softmax_difference() -> None:
    """Hinton et al. 2015, eq. 2: ∂C/∂s = T (q − p) for one image after the factor T²."""
    s = torch.tensor(S, requires_grad=True)
    losses.get("kd")(temperature=3.0)(Outputs(s), Outputs(torch.tensor(T)), BATCH, None).backward()
    expected = 3 * (softmax(S / 3) - softmax(T / 3)) / 2
    assert s.grad is not None
    assert s.grad.numpy() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_task_is_cross_entropy_with_smoothed_labels(smoothing: float) -> None:
    target = (1 - smoothing) * np.eye(3)[LABELS] + smoothing / 3
    expected = -(target * np.log(softmax(S))).sum(axis=1).mean()
    assert value("task", S, label_smoothing=smoothing) == pytest.approx(expected, rel=1e-12)


def test_task_needs_no_teacher() -> None:
    assert losses.get("task").needs_teacher is False
    assert torch.isfinite(losses.get("task")()(Outputs(torch.tensor(S)), None, BATCH, None))


def features(*shape: int, seed: int) -> Array:
    return np.random.default_rng(seed).normal(size=shape)


def test_fitnet_is_mean_squared_error_over_pairs() -> None:
    ours = [features(2, 3, 4, 4, seed=1), features(2, 5, 2, 2, seed=2)]
    theirs = [features(2, 3, 4, 4, seed=3), features(2, 5, 2, 2, seed=4)]
    # each pair weighs the same, whatever its size
    expected = np.mean([np.mean((a - b) ** 2) for a, b in zip(ours, theirs, strict=True)])
    assert value("fitnet", ours=ours, theirs=theirs) == pytest.approx(expected, rel=1e-12)


def test_fitnet_regressor_only_where_widths_differ() -> None:
    wide, narrow = features(2, 12, 5, 3, seed=1), features(2, 8, 5, 3, seed=2)
    adapter = losses.get("fitnet")().adapter(pairs([narrow, wide], [wide, wide]), FACTS)
    assert adapter[0](torch.zeros(2, 8, 5, 3)).shape == (2, 12, 5, 3)
    assert sum(p.numel() for p in adapter.parameters()) == 8 * 12 + 12  # 1×1, of the first pair


def attention(feature: Array) -> Array:
    flat = (feature**2).sum(axis=1).reshape(len(feature), -1)
    return flat / np.sqrt((flat**2).sum(axis=1, keepdims=True))


def test_attention_transfer_is_zagoruyko_2017() -> None:
    """The authors' code: ``(at(x) - at(y)).pow(2).mean()``, at = normalized mean of squares, summed over the groups."""
    ours = [features(2, 3, 4, 4, seed=1), features(2, 5, 2, 2, seed=2)]
    theirs = [features(2, 7, 4, 4, seed=3), features(2, 6, 2, 2, seed=4)]
    expected = sum(np.mean((attention(a) - attention(b)) ** 2) for a, b in zip(ours, theirs, strict=True))
    assert value("attention_transfer", ours=ours, theirs=theirs) == pytest.approx(expected, rel=1e-12)


def test_attention_transfer_ignores_scale_and_channels() -> None:
    feature = features(2, 3, 4, 4, seed=1)
    wide = np.concatenate([feature, feature], axis=1) * 9
    assert value("attention_transfer", ours=[feature], theirs=[wide]) == pytest.approx(0.0, abs=1e-15)
    assert adapter_of(losses.get("attention_transfer")(), pairs([feature], [wide]), FACTS) is None


def test_attention_transfer_of_a_dead_map_is_finite() -> None:
    """All activations zero after ReLU: no division by zero, forward or backward."""
    dead = torch.zeros(2, 3, 4, 4, requires_grad=True)
    theirs: Tensor = torch.tensor(features(2, 3, 4, 4, seed=1), dtype=torch.float32)
    loss = losses.get("attention_transfer")()(
        Outputs(torch.tensor(S), (dead,)), Outputs(torch.tensor(T), (theirs,)), BATCH, None
    )
    loss.backward()
    assert torch.isfinite(loss)
    assert dead.grad is not None
    assert torch.isfinite(dead.grad).all()


def test_built_in_losses() -> None:
    assert losses.names() == [
        "ab", "adversarial", "attention_maps", "attention_transfer", "byot", "correlation_congruence", "crd", "cwd", "dist",
        "dkd", "factor_transfer", "fitnet", "fsp", "ickd", "kd", "mgd", "minilm", "mse_logits", "nst", "ofd", "pkd", "pkt",
        "reviewkd", "rkd", "similarity_preserving", "simkd", "task", "tf_kd", "vid",
    ]  # fmt: skip
