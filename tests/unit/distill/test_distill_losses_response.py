"""Losses on logits against the published formulas in numpy, and against torchdistill where it has them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from torch import Tensor

from edgekd.distill.outputs import Batch, Outputs
from edgekd.models.torchvision import import_torchvision
from edgekd.registry import losses

Array = NDArray[np.float64]

RANDOM = np.random.default_rng(0)
N, K = 7, 5
S, T = RANDOM.normal(0, 2, (N, K)), RANDOM.normal(0, 3, (N, K))
LABELS = np.array([0, 2, 4, 1, 1, 3, 0])
BATCH = Batch(torch.tensor(LABELS), torch.arange(N))
RESPONSE: list[tuple[str, dict[str, Any]]] = [
    ("kd", {}),
    ("kd", {"standardize": True}),
    ("dkd", {}),
    ("dkd", {"standardize": True}),
    ("dist", {}),
    ("dist", {"standardize": True}),
    ("mse_logits", {}),
    ("tf_kd", {}),
]


def softmax(x: Array) -> Array:
    e = np.exp(x)
    return e / e.sum(axis=1, keepdims=True)


def kl(p: Array, q: Array) -> Array:
    """KL(p ‖ q) of each row."""
    return np.sum(p * np.log(p / q), axis=1)


def z_score(x: Array) -> Array:
    """Sun et al. 2024, the Z-score: the standard deviation is √(1/K Σ (x − mean)²)."""
    deviation = x - x.mean(axis=1, keepdims=True)
    return deviation / np.sqrt((deviation**2).mean(axis=1, keepdims=True))


def value(kind: str, student: Array = S, teacher: Array = T, batch: Batch = BATCH, **options: Any) -> float:
    loss = losses.get(kind).model_validate(options)
    return float(loss(Outputs(torch.tensor(student)), Outputs(torch.tensor(teacher)), batch, None))


def with_gradient(
    kind: str, student: Array | Tensor = S, teacher: Array | Tensor = T, **options: Any
) -> tuple[Tensor, Tensor]:
    s = torch.as_tensor(student).clone().requires_grad_()
    loss = losses.get(kind).model_validate(options)(Outputs(s), Outputs(torch.as_tensor(teacher)), BATCH, None)
    loss.backward()
    assert s.grad is not None
    return loss.detach(), s.grad


def peer(name: str, **options: Any) -> tuple[Tensor, Tensor]:
    """Value and student's gradient of torchdistill's loss ``name``."""
    import_torchvision()
    module = pytest.importorskip("torchdistill.losses.mid_level")
    place = {"student_module_path": ".", "student_module_io": "o", "teacher_module_path": ".", "teacher_module_io": "o"}
    s = torch.tensor(S, requires_grad=True)
    loss = getattr(module, name)(**place, **options)({".": {"o": s}}, {".": {"o": torch.tensor(T)}})
    loss.backward()
    assert s.grad is not None
    return loss.detach(), s.grad


# --- the formulas -----------------------------------------------------------------------------------------------------


def dkd_parts(s: Array, t: Array) -> tuple[Array, Array]:
    """Zhao et al. 2022, TCKD and NCKD: KL of (p_target, p_not_target), and of p_i / p_not_target over i ≠ target."""
    p, q = softmax(t), softmax(s)
    rows = np.arange(len(LABELS))
    binary = [np.stack([x[rows, LABELS], 1 - x[rows, LABELS]], axis=1) for x in (p, q)]
    others = [np.stack([np.delete(row, label) for row, label in zip(x, LABELS, strict=True)]) for x in (p, q)]
    return kl(*binary), kl(*(x / x.sum(axis=1, keepdims=True) for x in others))


@pytest.mark.parametrize("t", [1.0, 4.0])
@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 8.0), (0.0, 1.0), (2.0, 0.0)])
def test_dkd_is_zhao_2022(t: float, alpha: float, beta: float) -> None:
    tckd, nckd = dkd_parts(S / t, T / t)
    expected = t**2 * (alpha * tckd + beta * nckd).mean()
    assert value("dkd", alpha=alpha, beta=beta, temperature=t) == pytest.approx(expected, rel=1e-10)


def test_dkd_defaults() -> None:
    assert value("dkd") == pytest.approx(value("dkd", alpha=1.0, beta=8.0, temperature=4.0))
    assert losses.get("dkd")().weight == 1.0


def test_kd_is_dkd_coupled() -> None:
    """Zhao et al. 2022, what KD decouples into: KD = TCKD + (1 − p_target) NCKD, image by image."""
    for row in range(N):
        batch = Batch(BATCH.target[row : row + 1], BATCH.indices[row : row + 1])
        s, t = S[row : row + 1], T[row : row + 1]
        missing = 1 - softmax(t / 4)[0, LABELS[row]]
        coupled = value("dkd", s, t, batch, alpha=1.0, beta=missing)
        assert coupled == pytest.approx(value("kd", s, t, batch), rel=1e-9)


def test_dkd_of_a_sure_teacher_is_finite() -> None:
    """The probability of all other classes is exp(−1000): no logarithm of zero, forward or backward."""
    sure = 1000 * np.eye(K)[LABELS]
    loss, gradient = with_gradient("dkd", S, sure, temperature=1.0)
    assert torch.isfinite(loss)
    assert torch.isfinite(gradient).all()
    loss, gradient = with_gradient("dkd", sure, T, temperature=1.0)
    assert float(loss) > 500  # a student just as sure, of a teacher who is not
    assert torch.isfinite(gradient).all()


def test_dkd_of_two_classes_has_no_other_classes() -> None:
    s, t = S[:, :2], T[:, :2]
    batch = Batch(BATCH.target % 2, BATCH.indices)
    assert value("dkd", s, t, batch, alpha=0.0) == 0.0
    assert value("dkd", s, t, batch) == pytest.approx(value("kd", s, t, batch))


def correlations(p: Array, q: Array) -> float:
    return float(np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(p, q, strict=True)]))


@pytest.mark.parametrize("t", [1.0, 4.0])
def test_dist_is_huang_2022(t: float) -> None:
    p, q = softmax(S / t), softmax(T / t)
    inter, intra = 1 - correlations(p, q), 1 - correlations(p.T, q.T)
    assert value("dist", temperature=t) == pytest.approx(2 * inter + 2 * intra, rel=1e-9)
    assert value("dist", temperature=t, beta=3, gamma=0) == pytest.approx(3 * inter, rel=1e-9)
    assert value("dist", temperature=t, beta=0, gamma=3) == pytest.approx(3 * intra, rel=1e-9)


def test_dist_asks_for_correlation_not_for_equality() -> None:
    """A student whose probabilities are a shrunk copy of the teacher's has nothing more to learn."""
    p = softmax(T)
    shrunk = np.log(0.3 * p + 0.7 / K)
    assert value("dist", shrunk, T) == pytest.approx(0.0, abs=1e-12)
    assert value("kd", shrunk, T) > 0.1


def test_mse_logits_is_half_squared_distance_at_high_temperature() -> None:
    """Kim et al. 2021: kd at T → ∞ is the squared error of logits of zero mean, over 2."""
    s, t = S - S.mean(axis=1, keepdims=True), T - T.mean(axis=1, keepdims=True)
    assert value("mse_logits", s, t) == pytest.approx(((s - t) ** 2).sum() / (N * K), rel=1e-12)
    assert value("kd", s, t, temperature=1e4) == pytest.approx(value("mse_logits", s, t) / 2, rel=1e-3)
    assert value("mse_logits", S + 1, S) == pytest.approx(1.0)  # it sees a shift, which kd ignores


@pytest.mark.parametrize(("correct", "t"), [(0.99, 20.0), (0.9, 1.0)])
def test_tf_kd_is_yuan_2020(correct: float, t: float) -> None:
    """Eq. 8 and 9: p(label) = a, all others (1 − a) / (K − 1); raised to 1 / T and normalised, as a softmax at T does."""
    designed = np.full((N, K), (1 - correct) / (K - 1))
    designed[np.arange(N), LABELS] = correct
    soft = designed ** (1 / t)
    soft /= soft.sum(axis=1, keepdims=True)
    expected = t**2 * kl(soft, softmax(S / t)).mean()
    assert value("tf_kd", correct=correct, temperature=t) == pytest.approx(expected, rel=1e-10)
    assert float(losses.get("tf_kd")(correct=correct, temperature=t)(Outputs(torch.tensor(S)), None, BATCH, None)) == (
        pytest.approx(expected, rel=1e-10)
    )


def test_tf_kd_at_temperature_1_is_label_smoothing() -> None:
    """Yuan et al. 2020: smoothing by ε spreads ε over all classes, so a = 1 − ε + ε / K; the entropy is a constant."""
    smoothing = 0.1
    correct = 1 - smoothing + smoothing / K
    _, ours = with_gradient("tf_kd", correct=correct, temperature=1.0)
    _, smooth = with_gradient("task", label_smoothing=smoothing)
    torch.testing.assert_close(ours, smooth)


def test_tf_kd_needs_no_teacher() -> None:
    assert losses.get("tf_kd").needs_teacher is False
    assert losses.get("tf_kd")().weight == 0.1
    with pytest.raises(ValidationError):
        losses.get("tf_kd")(correct=1.0)


# --- logit standardization --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["kd", "dkd", "dist"])
def test_standardize_is_sun_2024(kind: str) -> None:
    """The loss of Z-scores, at the base temperature."""
    options = {"temperature": 2.0}
    expected = value(kind, z_score(S), z_score(T), **options)
    assert value(kind, standardize=True, **options) == pytest.approx(expected, rel=1e-5)
    assert value(kind, standardize=False, **options) != pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("kind", ["kd", "dkd", "dist"])
def test_standardize_ignores_shift_and_scale(kind: str) -> None:
    """What it is for: a small student need not reach the size of the teacher's logits."""
    assert value(kind, 0.1 * T - 3, T, standardize=True) == pytest.approx(0.0, abs=1e-6)
    assert value(kind, 0.1 * T - 3, T) > 0.01


@pytest.mark.parametrize(("kind", "options"), RESPONSE)
@pytest.mark.parametrize("constant", [0.0, 0.3])
def test_a_head_that_says_the_same_of_every_image(kind: str, options: dict[str, Any], constant: float) -> None:
    """As a head of zeros does at the start: there is no variation to correlate or to divide by, and no huge gradient."""
    for spoilt in (np.full((N, K), constant), np.tile(T[:1], (N, 1))):
        for s, t in ((spoilt, T), (T, spoilt), (spoilt, spoilt)):
            loss, gradient = with_gradient(kind, torch.tensor(s).float(), torch.tensor(t).float(), **options)
            assert torch.isfinite(loss)
            assert gradient.abs().max() < 100


# --- torchdistill -----------------------------------------------------------------------------------------------------


def close(ours: tuple[Tensor, Tensor], theirs: tuple[Tensor, Tensor], factor: float = 1.0) -> None:
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, factor * b, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("t", [1.0, 4.0])
def test_dist_beside_torchdistill(t: float) -> None:
    """torchdistill, as the authors' later code, multiplies by T²; the paper and its listing do not."""
    ours = with_gradient("dist", beta=1.5, gamma=0.5, temperature=t)
    close(ours, peer("DISTLoss", beta=1.5, gamma=0.5, tau=t), 1 / t**2)


@pytest.mark.parametrize("t", [1.0, 4.0])
def test_standardized_kd_beside_torchdistill(t: float) -> None:
    """torchdistill divides by the standard deviation with 1 / (K − 1), Sun et al. by that with 1 / K, so its
    logits are smaller by √((K − 1) / K): the same at a temperature lower by that. Its soft loss alone is without T².
    """
    lower = t * np.sqrt((K - 1) / K)
    close(with_gradient("kd", standardize=True, temperature=t), peer("LogitStdKDLoss", temperature=lower, alpha=0.0), t**2)


# --- gradients and degenerate input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "options"), RESPONSE)
def test_gradients_reach_the_student(kind: str, options: dict[str, Any]) -> None:
    """Checked by finite differences."""
    loss = losses.get(kind).model_validate(options)
    s = torch.tensor(S, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: loss(Outputs(x), Outputs(torch.tensor(T)), BATCH, None), (s,))
    assert (with_gradient(kind, **options)[1].abs().sum(dim=1) > 0).all()


@pytest.mark.parametrize(("kind", "options"), RESPONSE)
def test_a_batch_of_one_and_logits_of_zero_are_finite(kind: str, options: dict[str, Any]) -> None:
    loss = losses.get(kind).model_validate(options)
    for s, t in ((S[:1], T[:1]), (np.zeros((1, K)), T[:1]), (S[:1], np.zeros((1, K))), (np.zeros((1, K)), np.zeros((1, K)))):
        x = torch.tensor(s, dtype=torch.float32, requires_grad=True)
        result = loss(
            Outputs(x), Outputs(torch.tensor(t, dtype=torch.float32)), Batch(BATCH.target[:1], BATCH.indices[:1]), None
        )
        result.backward()
        assert torch.isfinite(result)
        assert x.grad is not None
        assert torch.isfinite(x.grad).all()


@pytest.mark.parametrize(("kind", "options"), RESPONSE)
def test_half_precision_logits(kind: str, options: dict[str, Any]) -> None:
    """Mixed precision hands over bfloat16: the loss of those numbers, not of what is left of them after more rounding."""
    s, t = torch.tensor(S).bfloat16(), torch.tensor(T).bfloat16()
    loss = losses.get(kind).model_validate(options)
    with torch.autocast("cpu", torch.bfloat16):
        half = loss(Outputs(s), Outputs(t), BATCH, None)
    full = loss(Outputs(s.double()), Outputs(t.double()), BATCH, None)
    assert float(half) == pytest.approx(float(full), rel=1e-4)
