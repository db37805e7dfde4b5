"""Losses on relations against the published formulas in numpy, and against torchdistill where it has them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgekd.distill.outputs import Batch, Facts, Outputs, adapter_of
from edgekd.models.torchvision import import_torchvision
from edgekd.registry import losses
from edgekd.taps.layer import Layer
from edgekd.taps.pairing import Pair

Array = NDArray[np.float64]

N = 6
BATCH = Batch(torch.zeros(N, dtype=torch.int64), torch.arange(N))
FACTS = Facts(classes=3, samples=N)
EMBEDDING = ("rkd", "correlation_congruence", "pkt")
MAPS = ("similarity_preserving", "ickd")


def drawn(*shape: int, seed: int) -> Array:
    return np.random.default_rng(seed).normal(size=shape)


def features(kind: str) -> tuple[Array, Array]:
    """A student's and a teacher's, of different widths."""
    size = (3, 4) if kind in MAPS else ()
    return drawn(N, 5, *size, seed=1), drawn(N, 8, *size, seed=2)


class Case:
    """A loss with its adapter, in float64."""

    def __init__(self, kind: str, ours: Sequence[Array], theirs: Sequence[Array], **options: Any) -> None:
        torch.manual_seed(0)
        self.ours, self.theirs = [[torch.tensor(f) for f in side] for side in (ours, theirs)]
        self.loss = losses.get(kind).model_validate(options)
        pairs = [Pair(Layer("s", a.shape[1:]), Layer("t", b.shape[1:])) for a, b in zip(ours, theirs, strict=True)]
        self.adapter: nn.Module | None = adapter_of(self.loss, pairs, FACTS)
        if self.adapter is not None:
            self.adapter.double()

    def __call__(self, ours: Sequence[Tensor] | None = None) -> Tensor:
        student = Outputs(torch.zeros(N, 3), tuple(self.ours if ours is None else ours))
        result: Tensor = self.loss(student, Outputs(torch.zeros(N, 3), tuple(self.theirs)), BATCH, self.adapter)
        return result

    def with_gradient(self) -> tuple[Tensor, Tensor]:
        """Value, and the gradient of the student's first feature."""
        leaves = [f.clone().requires_grad_() for f in self.ours]
        loss = self(leaves)
        loss.backward()
        assert leaves[0].grad is not None
        return loss.detach(), leaves[0].grad


def case(kind: str, **options: Any) -> Case:
    ours, theirs = features(kind)
    return Case(kind, [ours], [theirs], **options)


def value(kind: str, ours: Array, theirs: Array, **options: Any) -> float:
    return float(Case(kind, [ours], [theirs], **options)().detach())


def huber(x: Array) -> Array:
    return np.where(np.abs(x) <= 1, x**2 / 2, np.abs(x) - 0.5)


def normalised(x: Array) -> Array:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


# --- the formulas -----------------------------------------------------------------------------------------------------


def distances(x: Array) -> Array:
    """Park et al. 2019, ψ_D: the Euclidean distance over the mean one of different images."""
    found = np.array([[np.linalg.norm(a - b) for b in x] for a in x])
    return found / found[~np.eye(len(x), dtype=bool)].mean()


def angles(x: Array) -> Array:
    """Park et al. 2019, ψ_A: the cosine at j of the angle between i and k; 0 where one of them is j."""
    found = np.zeros((len(x),) * 3)
    for i, j, k in product(range(len(x)), repeat=3):
        if j not in (i, k):
            a, b = x[i] - x[j], x[k] - x[j]
            found[i, j, k] = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    return found


def test_rkd_is_park_2019() -> None:
    s, t = features("rkd")
    distance, angle = huber(distances(s) - distances(t)).mean(), huber(angles(s) - angles(t)).mean()
    assert value("rkd", s, t) == pytest.approx(25 * distance + 50 * angle, rel=1e-10)
    assert value("rkd", s, t, distance=0, angle=2) == pytest.approx(2 * angle, rel=1e-10)
    assert losses.get("rkd")().weight == 1.0


def test_rkd_ignores_scale_rotation_and_shift() -> None:
    _, t = features("rkd")
    rotation = np.linalg.qr(drawn(8, 8, seed=5))[0]
    assert value("rkd", 7 * t @ rotation + 3, t) == pytest.approx(0.0, abs=1e-12)


def test_similarity_preserving_is_tung_2019() -> None:
    s, t = features("similarity_preserving")
    rows = [normalised(x.reshape(N, -1) @ x.reshape(N, -1).T) for x in (s, t)]
    expected = np.linalg.norm(rows[0] - rows[1]) ** 2 / N**2
    assert value("similarity_preserving", s, t) == pytest.approx(expected, rel=1e-10)
    assert losses.get("similarity_preserving")().weight == 3000.0


@pytest.mark.parametrize("order", [1, 2, 40])
def test_correlation_congruence_is_peng_2019(order: int) -> None:
    """With the student's layer given, squared error of the Gaussian RBF; 40 terms are as good as all."""
    s, t = features("correlation_congruence")
    made = Case("correlation_congruence", [s], [t], order=order, gamma=0.7)

    def kernel(x: Array) -> Array:
        embedded = normalised(x)
        if order == 40:
            return np.array([[np.exp(-0.7 * np.sum((a - b) ** 2)) for b in embedded] for a in embedded])
        return np.exp(-1.4) * sum(1.4**p / math.factorial(p) * (embedded @ embedded.T) ** p for p in range(order + 1))

    weight, bias = (p.detach().numpy() for p in made.adapter.parameters())  # type: ignore[union-attr]
    expected = np.mean((kernel(s @ weight.T + bias) - kernel(t)) ** 2)
    assert float(made().detach()) == pytest.approx(expected, rel=1e-9)


def test_correlation_congruence_defaults() -> None:
    made = case("correlation_congruence")
    assert (made.loss.weight, made.loss.gamma, made.loss.order) == (100.0, 0.4, 2)
    # nothing on the teacher's side that could learn to make all images alike
    assert [tuple(p.shape) for p in made.adapter.parameters()] == [(8, 5), (8,)]  # type: ignore[union-attr]


def test_pkt_is_passalis_2018() -> None:
    s, t = features("pkt")
    p, q = ((normalised(x) @ normalised(x).T + 1) / 2 for x in (s, t))
    p, q = (x / x.sum(axis=1, keepdims=True) for x in (p, q))
    assert value("pkt", s, t) == pytest.approx((q * np.log(q / p)).mean(), rel=1e-4)  # an epsilon of 1e-7 in the logarithm
    assert losses.get("pkt")().weight == 30000.0


def test_pkt_of_opposite_embeddings_is_finite() -> None:
    """A similarity of 0 has no logarithm."""
    s = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]])
    assert value("pkt", s, np.abs(s)) > 0
    assert np.isfinite(value("pkt", np.abs(s), s))


def test_ickd_is_liu_2021() -> None:
    s, t = drawn(N, 5, 3, 4, seed=1), drawn(N, 5, 3, 4, seed=2)
    errors = []
    for a, b in zip(s, t, strict=True):
        correlation = [normalised(x.reshape(5, -1) @ x.reshape(5, -1).T) for x in (a, b)]
        errors.append(np.linalg.norm(correlation[0] - correlation[1]) ** 2 / 5)
    assert value("ickd", s, t) == pytest.approx(np.mean(errors), rel=1e-10)
    assert losses.get("ickd")().weight == 2.5


def test_ickd_has_an_adapter_only_where_widths_differ() -> None:
    wide, narrow = drawn(N, 8, 3, 4, seed=1), drawn(N, 5, 3, 4, seed=2)
    made = Case("ickd", [narrow, wide], [wide, wide])
    assert [tuple(p.shape) for p in made.adapter.parameters()] == [(8, 5, 1, 1), (8,), (8,)]  # type: ignore[union-attr]
    embedded = made.adapter[0](made.ours[0]).detach()  # type: ignore[index]
    torch.testing.assert_close(embedded.mean((0, 2, 3)), torch.zeros(8, dtype=torch.float64))
    assert float(Case("ickd", [wide], [wide])()) == 0.0


@pytest.mark.parametrize("kind", [*EMBEDDING, *MAPS])
def test_pairs_of_layers_are_summed(kind: str) -> None:
    (s, t), (u, v) = features(kind), (x[::-1].copy() for x in features(kind))
    both = Case(kind, [s, u], [t, v])
    alone = [Case(kind, [a], [b]) for a, b in ((s, t), (u, v))]
    for index, one in enumerate(alone):
        if both.adapter is not None:
            one.adapter[0].load_state_dict(both.adapter[index].state_dict())  # type: ignore[index]
    torch.testing.assert_close(both(), alone[0]() + alone[1]())


# --- torchdistill -----------------------------------------------------------------------------------------------------


def modules() -> Any:
    import_torchvision()
    return pytest.importorskip("torchdistill.losses.mid_level")


def peer(made: Case, call: Callable[[Tensor, Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """Value and gradient of torchdistill's ``call(student, teacher)`` on the features of a case."""
    s = made.ours[0].clone().requires_grad_()
    loss = call(s, made.theirs[0])
    loss.backward()
    assert s.grad is not None
    return loss.detach(), s.grad


def close(ours: tuple[Tensor, Tensor], theirs: tuple[Tensor, Tensor], factor: float = 1.0) -> None:
    assert theirs[1].abs().sum() > 0
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, factor * b, rtol=1e-5, atol=1e-9)


def test_rkd_beside_torchdistill() -> None:
    theirs = modules().RKDLoss("m", "m", dist_factor=25.0, angle_factor=50.0, reduction="mean")
    made = case("rkd")
    close(made.with_gradient(), peer(made, lambda s, t: theirs({"m": {"output": s}}, {"m": {"output": t}})))


def test_similarity_preserving_beside_torchdistill(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tung & Mori divide each row of the N×N matrix by its L2 norm. torchdistill 1.1.5 calls ``normalize(matrix, 1)``,
    whose second argument is the order of the norm, so it divides by the L1 norm; with that put right both are the same.
    """
    module = modules()
    made = case("similarity_preserving")
    theirs = module.SPKDLoss("m", "m", reduction="batchmean")
    as_it_is = peer(made, lambda s, t: theirs({"m": {"output": s}}, {"m": {"output": t}}))
    assert float(as_it_is[0]) != pytest.approx(float(made().detach()), rel=0.1)
    monkeypatch.setattr(module, "normalize", lambda matrix, _: nn.functional.normalize(matrix, dim=1))
    made = case("similarity_preserving")
    close(made.with_gradient(), peer(made, lambda s, t: theirs({"m": {"output": s}}, {"m": {"output": t}})))


def test_pkt_beside_torchdistill() -> None:
    theirs = modules().PKTLoss("m", "output", "m", "output")
    made = case("pkt")
    close(made.with_gradient(), peer(made, lambda s, t: theirs({"m": {"output": s}}, {"m": {"output": t}})))


def test_pkt_of_near_embeddings_is_as_exact_in_float32() -> None:
    """Their divergence is the small rest of terms that cancel: summed in float32 it came out negative."""
    random = np.random.default_rng(0)
    ours, theirs = (1 + 0.01 * random.normal(size=(N, 32)).astype(np.float32) for _ in range(2))
    found = value("pkt", ours, theirs)
    assert found == pytest.approx(value("pkt", ours.astype(np.float64), theirs.astype(np.float64)), rel=1e-2)


def test_ickd_beside_torchdistill() -> None:
    """torchdistill divides by the batch once more; the authors' code for CIFAR-100, where the weight is from, does not. Its
    students always go through a convolution (3×3 there); here both see the adapter of the case.
    """
    made = case("ickd")
    theirs = modules().ChSimLoss.batch_loss
    close(made.with_gradient(), peer(made, lambda s, t: theirs(made.adapter[0](s), t)), N)  # type: ignore[index]


def test_correlation_congruence_beside_torchdistill() -> None:
    """torchdistill expands the RBF, as the paper does, for vectors of length 1, but gives it others; and it divides the norm
    of the difference by N², where the paper's loss has the squared norm. So: the same kernel of normalised vectors, and the
    square of torchdistill's norm.
    """
    made = case("correlation_congruence")
    theirs = modules().CCKDLoss("m", "m", {"type": "gaussian", "gamma": 0.4, "max_p": 2}, reduction="sum")

    def call(s: Tensor, t: Tensor) -> Tensor:
        embedded = [nn.functional.normalize(x) for x in (made.adapter[0](s), t)]  # type: ignore[index]
        norm: Tensor = theirs({"m": {"output": embedded[0]}}, {"m": {"output": embedded[1]}})
        return norm**2 / N**2

    close(made.with_gradient(), peer(made, call))


# --- gradients and degenerate input -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [*EMBEDDING, *MAPS])
def test_gradients_reach_student_and_adapter(kind: str) -> None:
    """Checked by finite differences; and every image, and every parameter, has one."""
    made = case(kind)
    leaf = made.ours[0].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: made([x]), (leaf,), atol=1e-6)
    _, gradient = made.with_gradient()
    assert (gradient.flatten(1).abs().sum(dim=1) > 0).all()
    if made.adapter is not None:
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in made.adapter.parameters())


def dead(x: Array) -> Array:
    return np.zeros_like(x)


def half_dead(x: Array) -> Array:
    """Two images of which nothing is left, such as after ReLU."""
    x = x.copy()
    x[:2] = 0
    return x


def doubled(x: Array) -> Array:
    x = x.copy()
    x[1] = x[0]
    return x


@pytest.mark.parametrize("spoil", [dead, half_dead, doubled])
@pytest.mark.parametrize("kind", [*EMBEDDING, *MAPS])
def test_degenerate_features(kind: str, spoil: Callable[[Array], Array]) -> None:
    """Zeros and equal images: finite, and no gradient larger than a thousand times that of the features as they were."""
    s, t = features(kind)
    usual = float(Case(kind, [s], [t]).with_gradient()[1].abs().max())
    for ours, theirs in ((spoil(s), t), (s, spoil(t)), (spoil(s), spoil(t))):
        loss, gradient = Case(kind, [ours], [theirs]).with_gradient()
        assert torch.isfinite(loss)
        assert float(gradient.abs().max()) < 1000 * usual


@pytest.mark.parametrize("kind", [*EMBEDDING, *MAPS])
def test_a_batch_of_one(kind: str) -> None:
    """One image has no relations, but to itself."""
    s, t = (x[:1] for x in features(kind))
    loss, gradient = Case(kind, [s], [t]).with_gradient()
    assert torch.isfinite(loss)
    assert torch.isfinite(gradient).all()
    if kind != "ickd":  # its relations are inside the image
        assert float(loss) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("kind", ["rkd", "pkt", *MAPS])
def test_relations_are_computed_in_full_precision(kind: str) -> None:
    """Mixed precision: products of maps of large values neither overflow float16 nor lose the small differences."""
    s, t = (300 * x for x in features(kind))
    if kind == "ickd":
        t = t[:, :5]
    made = Case(kind, [s], [t])
    full = float(made())
    made.ours, made.theirs = ([f.half() for f in side] for side in (made.ours, made.theirs))
    with torch.autocast("cpu", torch.float16):
        half = float(made())
    assert half == pytest.approx(full, rel=0.01)
