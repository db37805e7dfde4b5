"""Networks that learn together: the paper's equation, whose gradient goes where, and training them for real."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.data import dataset
from edgekd.data.batches import Prepare
from edgekd.distill import mutual
from edgekd.distill.mutual import UntrainedPeer
from edgekd.distill.outputs import Facts
from edgekd.distill.terms import Terms
from edgekd.errors import ModelError, TrainingError
from edgekd.progress import Lines, Silent
from edgekd.recipe.data import Data
from edgekd.recipe.distill import Distill
from edgekd.taps.taps import Tapped
from edgekd.train.loop import Fitted, Trainable, TrainedNetworks, fit, score

X = torch.zeros(1, 3, 16, 16)
FACTS = Facts(classes=4, samples=72)
DML = ({"kind": "task"}, {"kind": "kd", "temperature": 1})
LABELS = torch.tensor([0, 3, 1, 1, 2])
Array = NDArray[np.float64]


class Says(nn.Module):
    """Its parameter is what it says about each image."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(3 * torch.randn(5, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return self.logits * 1.0


class Plain(nn.Module):
    """Another architecture than ``small``, with a batch norm of a slow average and dropout."""

    def __init__(self, seed: int = 0, dropout: float = 0.5, size: float = 1.0) -> None:
        torch.manual_seed(seed)
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 6, 5, 4), nn.BatchNorm2d(6, momentum=0.001), nn.Tanh(), nn.Flatten(), nn.Dropout(dropout),
            nn.Linear(54, 4),
        )  # fmt: skip
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        return self.size * self.layers(x)


def losses(*kinds: Any) -> Any:
    return Distill.model_validate({"epochs": 1, "losses": kinds}).losses


def networks_of(count: int, kinds: Any = DML, combine: Any = "losses") -> tuple[TrainedNetworks, list[Says]]:
    networks = [Says(seed) for seed in range(count)]
    untrained = {f"peer.n{index}": UntrainedPeer(network, index) for index, network in enumerate(networks) if index}
    terms, peers = mutual.cohort(losses(*kinds), networks[0], untrained, combine, X, FACTS)
    return TrainedNetworks(Tapped(networks[0]), terms, peers), networks


def values(made: TrainedNetworks) -> Tensor:
    return made({"image": torch.zeros(5, 3, 16, 16)}, None, LABELS, torch.arange(5), 0.0)[0]


def softmax(z: Array) -> Array:
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


# --- the equation -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 3, 4])
def test_the_paper_s_loss_and_its_gradient(count: int) -> None:
    """L_k = CE(y, p_k) + 1 / (K - 1) Σ KL(p_l ‖ p_k), a mean over the images, and dL_k / dz_k with the others constant."""
    made, networks = networks_of(count)
    found = values(made)
    assert found.shape == (count, 2)
    found.sum().backward()
    said = [softmax(network.logits.detach().numpy()) for network in networks]
    truth = np.eye(4)[LABELS.numpy()]
    for k, p in enumerate(said):
        others = [q for index, q in enumerate(said) if index != k]
        task = -np.log((p * truth).sum(1)).mean()
        kd = np.mean([(q * np.log(q / p)).sum(1).mean() for q in others])
        assert found[k].tolist() == pytest.approx([task, kd], rel=1e-6)
        gradient = ((p - truth) + (p - np.mean(others, axis=0))) / 5
        grad = networks[k].logits.grad
        assert grad is not None
        np.testing.assert_allclose(grad.numpy(), gradient, rtol=1e-5, atol=1e-8)


def test_the_ensemble_of_the_others() -> None:
    """DML_e: KL(mean of p_l ‖ p_k). Its value is smaller, and its gradient is that of the mean of the divergences."""
    (together, networks), (apart, same) = networks_of(3, combine="probabilities"), networks_of(3)
    found, other = values(together), values(apart)
    p, *others = (softmax(network.logits.detach().numpy()) for network in networks)
    mean = np.mean(others, axis=0)
    assert found[0, 1].item() == pytest.approx((mean * np.log(mean / p)).sum(1).mean(), rel=1e-6)
    assert found[0, 1] < other[0, 1]
    found.sum().backward()
    other.sum().backward()
    for one, two in zip(networks, same, strict=True):
        assert one.logits.grad is not None
        assert two.logits.grad is not None
        torch.testing.assert_close(one.logits.grad, two.logits.grad, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("kind", ["kd", "dkd", "dist", "mse_logits"])
def test_any_loss_on_logits_is_a_mean_over_the_others(kind: str) -> None:
    three, networks = networks_of(3, ({"kind": kind},))
    expected = []
    for other in (1, 2):
        untrained = {"peer.n1": UntrainedPeer(networks[other], 0)}
        terms, peers = mutual.cohort(losses({"kind": kind}), networks[0], untrained, "losses", X, FACTS)
        expected.append(values(TrainedNetworks(Tapped(networks[0]), terms, peers))[0, 0].item())
    assert values(three)[0, 0].item() == pytest.approx(np.mean(expected), rel=1e-6)


def test_the_rules_differ_where_a_loss_is_no_divergence() -> None:
    gradients = []
    for combine in ("losses", "probabilities"):
        made, networks = networks_of(3, ({"kind": "mse_logits"},), combine)
        values(made)[0].sum().backward()
        assert networks[0].logits.grad is not None
        gradients.append(networks[0].logits.grad)
    assert not torch.allclose(*gradients, rtol=0.01)


@pytest.mark.parametrize("learner", [0, 1, 2])
def test_each_gradient_stays_at_home(learner: int) -> None:
    made, networks = networks_of(3)
    values(made)[learner].sum().backward()
    reached = [network.logits.grad is not None and bool(network.logits.grad.any()) for network in networks]
    assert reached == [index == learner for index in range(3)]


def test_two_that_begin_alike_are_refused() -> None:
    with pytest.raises(ModelError, match=r"peer\.b starts from the same weights as the student; both would stay identical"):
        mutual.cohort(
            losses(*DML),
            Plain(3),
            {"peer.a": UntrainedPeer(Plain(1), 1), "peer.b": UntrainedPeer(Plain(3), 2)},
            "losses",
            X,
            FACTS,
        )
    with pytest.raises(ModelError, match=r"peer\.b starts from the same weights as peer\.a"):
        mutual.cohort(
            losses(*DML),
            Plain(3),
            {"peer.a": UntrainedPeer(Plain(1), 1), "peer.b": UntrainedPeer(Plain(1), 2)},
            "losses",
            X,
            FACTS,
        )


# --- trained together -------------------------------------------------------------------------------------------------


@pytest.fixture
def section(npz: Callable[..., str]) -> Data:
    """72 images to train on, 8 to validate, 16 to test."""
    return Data(source=npz(), image_size=16, augment=("flip",))


@pytest.fixture
def run(fabric: Fabric, section: Data) -> Callable[..., Fitted]:
    """Train a network, with peers by their names or alone, for two epochs."""

    def call(network: nn.Module, peers: Any = None, kinds: Any = DML, *, progress: Any = None, combine: Any = "losses",
             **budget: Any) -> Fitted:  # fmt: skip
        settings = Distill.model_validate({"epochs": 2, "batch_size": 16, "warmup_epochs": 0, "losses": kinds, **budget})
        torch.manual_seed(5)
        untrained = {
            f"peer.{name}": UntrainedPeer(peer, 7 + index) for index, (name, peer) in enumerate((peers or {}).items())
        }
        beside: tuple[mutual.Peer, ...] = ()
        terms = Terms(settings.losses, network, None, X, FACTS) if not peers else None
        if terms is None:
            terms, beside = mutual.cohort(settings.losses, network, untrained, combine, X, FACTS)
        trainable = Trainable.tapped("net", network, terms, settings, 0, beside)
        return fit(fabric, trainable, dataset.load(section), section, progress or Silent())

    return call


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def same(one: Fitted, other: Fitted) -> bool:
    return (
        equal(one.last, other.last)
        and equal(one.best, other.best)
        and replace(one.curve, seconds=0) == replace(other.curve, seconds=0)
        and len(one.peers) == len(other.peers)
        and all(same(a, b) for a, b in zip(one.peers, other.peers, strict=True))
    )


def test_peers_of_other_architectures_learn_with_the_student(run: Callable[..., Fitted], small: Any) -> None:
    alone = run(small(), kinds=DML[:1])
    wide, plain = small(1, width=6), Plain(2)
    before = {name: value.clone() for name, value in plain.state_dict().items()}
    fitted = run(small(), {"wide": wide, "plain": plain})
    assert [peer.curve.model for peer in fitted.peers] == ["peer.wide", "peer.plain"]
    assert not equal(fitted.last, alone.last)
    assert not equal(fitted.peers[1].last, before)
    assert equal(fitted.peers[1].last, dict(plain.state_dict()))
    for each in (fitted, *fitted.peers):
        assert list(each.curve.terms) == ["task", "kd"]
        assert all(np.isfinite(row).all() and row[-1] > 0 for row in each.curve.terms.values())
        assert len(each.curve.val["top1"]) == 2
    assert len({fitted.curve.terms["task"], *(peer.curve.terms["task"] for peer in fitted.peers)}) == 3


def test_one_seed_one_result(run: Callable[..., Fitted], small: Any) -> None:
    first = run(small(dropout=0.3), {"wide": small(1, width=6), "plain": Plain(2)})
    torch.rand(100)
    second = run(small(dropout=0.3), {"wide": small(1, width=6), "plain": Plain(2)})
    assert same(first, second)


@pytest.mark.parametrize("budget", [{}, {"ema": 0.8}, {"clip_grad_norm": 0.05}, {"optimizer": "sgd"}], ids=str)
def test_peers_that_teach_nothing_change_nothing(run: Callable[..., Fitted], small: Any, budget: Any) -> None:
    """Bit by bit: the student's dropout, its clipped gradient, its average and its optimizer are its own."""
    alone = run(small(dropout=0.5), kinds=DML[:1], **budget)
    silent = ({"kind": "task"}, {"kind": "kd", "weight": 0})
    beside = run(small(dropout=0.5), {"loud": Plain(1, size=50.0), "plain": Plain(2)}, silent, **budget)
    assert same(alone, replace(beside, peers=()))


def test_a_peer_is_clipped_by_itself(run: Callable[..., Fitted], small: Any) -> None:
    """With a limit far below any gradient sgd moves a network by at most lr × limit a step, whatever the others do."""
    budget = {"optimizer": "sgd", "nesterov": False, "clip_grad_norm": 1e-3, "lr": 1.0, "weight_decay": 0.0, "epochs": 1}
    loud, start = Plain(1, size=50.0), Plain(1, size=50.0).state_dict()
    fitted = run(small(), {"loud": loud}, **budget)

    def moved(end: dict[str, Tensor], begin: dict[str, Tensor]) -> float:
        names = [name for name in begin if name.endswith(("weight", "bias"))]
        return float(torch.stack([(end[name] - begin[name]).pow(2).sum() for name in names]).sum().sqrt())

    # four steps, with momentum 0.9: 1 + 1.9 + 2.71 + 3.439 times the limit if all gradients agree
    for distance in (moved(fitted.last, small().state_dict()), moved(fitted.peers[0].last, dict(start))):
        assert 1e-3 < distance < 9.1e-3


def test_what_is_kept_of_a_peer_is_its_average(run: Callable[..., Fitted], small: Any, section: Data) -> None:
    fitted = run(small(), {"plain": Plain(2)}, ema=0.9, lr=0.05)
    raw = run(small(), {"plain": Plain(2)}, lr=0.05)
    kept = Plain()
    kept.load_state_dict(fitted.peers[0].last)
    images = dataset.load(section)
    assert (
        score(kept, images.val, Prepare(images), torch.device("cpu"), images.purpose)
        == fitted.peers[0].curve.val["top1"][-1]
    )
    assert not equal(fitted.peers[0].last, raw.peers[0].last)


def test_a_loss_on_a_network_s_own_stages_is_each_one_s_own(run: Callable[..., Fitted], small: Any) -> None:
    kinds = (*DML, {"kind": "byot"})
    fitted = run(small(), {"wide": small(1, width=6)}, kinds)
    assert any(pair.endswith("(16 ch) at 8×8 and 4×4") for pair in fitted.curve.pairs)
    assert any(pair.endswith("(24 ch) at 8×8 and 4×4") for pair in fitted.peers[0].curve.pairs)
    assert fitted.adapters.keys() == fitted.peers[0].adapters.keys()
    assert equal(fitted.peers[0].last, {**small(1, width=6).state_dict(), **fitted.peers[0].last})


def test_slow_averages_of_a_peer_are_hastened(
    run: Callable[..., Fitted], small: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    run(small(), {"plain": Plain(2)}, progress=Lines(), epochs=1)
    assert "peer.plain: batch norm momentum 0.001 → 0.1" in capsys.readouterr().err


def test_a_loss_that_is_not_finite_names_its_network(run: Callable[..., Fitted], small: Any) -> None:
    class Broken(Plain):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * float("nan")

    with pytest.raises(
        TrainingError, match=r"peer\.broken: the loss is nan at step 1 of epoch 1 \(task nan.*forward\(\) of Broken"
    ):
        run(small(), {"fine": Plain(1), "broken": Broken(2)}, kinds=({"kind": "task"}, {"kind": "kd", "weight": 0}))


def test_what_networks_say_alike_after_training_together(run: Callable[..., Fitted], small: Any) -> None:
    """The point of it: trained together they agree more than trained side by side without a word."""

    def apart(weight: float) -> float:
        one, other = small(), small(1)
        run(one, {"other": other}, ({"kind": "task"}, {"kind": "kd", "temperature": 1, "weight": weight}), epochs=6, lr=0.01)
        x = torch.randn(64, 3, 16, 16, generator=torch.Generator().manual_seed(0))
        p, q = (F.log_softmax(network.eval()(x), 1) for network in (one, other))
        return F.kl_div(p, q, reduction="batchmean", log_target=True).item()

    assert apart(5.0) < 0.5 * apart(0.0)
