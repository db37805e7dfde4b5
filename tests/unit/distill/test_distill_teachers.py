"""Several teachers: how their logits are combined, and what each loss is given."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from edgekd.distill.outputs import Batch, Facts
from edgekd.distill.teachers import Combination, Ensemble, confidences, tapped
from edgekd.distill.terms import Terms
from edgekd.loading.conflicts import conflicts
from edgekd.recipe import Recipe
from edgekd.recipe.distill import Distill
from edgekd.taps.taps import Tapped

RANDOM = np.random.default_rng(3)
Z = RANDOM.normal(size=(6, 3, 4)) * 3  # images, teachers, classes
Y = RANDOM.integers(0, 4, 6)
X = torch.from_numpy(RANDOM.normal(size=(6, 3, 16, 16)).astype(np.float32))
BATCH = Batch(torch.from_numpy(Y), torch.arange(6))


def softmax(z: np.ndarray, axis: int) -> np.ndarray:
    return np.exp(z) / np.exp(z).sum(axis, keepdims=True)


def weights() -> np.ndarray:
    """CA-MKD's weights as they are written."""
    loss = np.array([[-np.log(softmax(Z[n, k], 0)[Y[n]]) for k in range(3)] for n in range(6)])
    return np.array([[(1 - np.exp(loss[n, k]) / np.exp(loss[n]).sum()) / 2 for k in range(3)] for n in range(6)])


def combined(rule: Any, temperature: float, labels: Tensor | None) -> np.ndarray:
    return Combination(rule, temperature)(torch.from_numpy(Z), labels).double().numpy()


@pytest.mark.parametrize("t", [1.0, 4.0])
def test_combinations_by_their_formulas(t: float) -> None:
    labels = torch.from_numpy(Y)
    np.testing.assert_allclose(combined("logits", t, labels), Z.mean(1), atol=1e-5)
    mean = softmax(Z / t, 2).mean(1)
    np.testing.assert_allclose(softmax(combined("probabilities", t, labels) / t, 1), mean, atol=1e-6)
    weighted = (weights()[:, :, None] * softmax(Z / t, 2)).sum(1)
    np.testing.assert_allclose(softmax(combined("confidence", t, labels) / t, 1), weighted, atol=1e-6)
    np.testing.assert_allclose(confidences(torch.from_numpy(Z), labels).numpy(), weights(), atol=1e-12)


def test_without_labels_all_teachers_weigh_the_same() -> None:
    np.testing.assert_allclose(combined("confidence", 2.0, None), combined("probabilities", 2.0, None))


def test_a_teacher_that_is_certainly_wrong_has_no_weight() -> None:
    """exp(L) overflows: of two teachers one gives the label no chance at all."""
    z = torch.tensor([[[1e4, 0.0], [0.0, 5.0]]])
    assert confidences(z, torch.tensor([1])).tolist() == [[0.0, 1.0]]
    assert bool(Combination("confidence", 4.0)(z, torch.tensor([1])).isfinite().all())


def test_each_loss_gets_the_teachers_it_names(small: Any) -> None:
    student, one, two = small(0).eval(), small(1).eval(), small(2, width=8).eval()
    ensemble = Ensemble({"one": one, "two": two}, Combination("confidence", 4.0)).eval()
    chosen: Any = ({"kind": "kd"}, {"kind": "kd", "teacher": "two"}, {"kind": "fitnet", "teacher": "two"},
                   {"kind": "attention_transfer", "teacher": "one"})  # fmt: skip
    terms = Terms(Distill(epochs=1, losses=chosen).losses, student, ensemble, X[:1], Facts(4, 6))
    assert {path.partition(".")[0] for path in terms.teacher_paths} == {"one", "two"}
    lesson = tapped(ensemble, terms.teacher_paths).eval()(X)
    assert lesson[0].shape == (6, 2, 4)
    got = terms(Tapped(student, terms.student_paths).eval()(X), lesson, BATCH, 0.0)

    def alone(teacher: Any, *kinds: str) -> list[float]:
        plain: Any = [{"kind": kind} for kind in kinds]
        single = Terms(Distill(epochs=1, losses=plain).losses, student, teacher, X[:1], Facts(4, 6))
        single.adapters.load_state_dict(
            {n: v for n, v in terms.adapters.state_dict().items() if n.partition(".")[0] in kinds}
        )
        theirs = Tapped(teacher, single.teacher_paths).eval()(X)
        return [v.item() for v in single(Tapped(student, single.student_paths).eval()(X), theirs, BATCH, 0.0)]

    assert [v.item() for v in got[1:3]] == pytest.approx(alone(two, "kd", "fitnet"), rel=1e-5)
    assert got[3].item() == pytest.approx(alone(one, "attention_transfer")[0], rel=1e-5)
    # combined: KL from the weighted mean of the softened probabilities, times T²
    w = confidences(lesson[0], BATCH.target).detach().numpy()[:, :, None]
    p = (w * softmax(lesson[0].detach().double().numpy() / 4, 2)).sum(1)
    q = softmax(student(X).detach().double().numpy() / 4, 1)
    assert got[0].item() == pytest.approx(16 * (p * (np.log(p) - np.log(q))).sum(1).mean(), rel=1e-4)


def test_an_ensemble_is_evaluated_as_one_network(small: Any) -> None:
    one, two = small(1).eval(), small(2).eval()
    ensemble = Ensemble({"one": one, "two": two}, Combination("logits")).eval()
    torch.testing.assert_close(ensemble(X), (one(X) + two(X)) / 2)


def test_a_loss_on_layers_names_its_teacher() -> None:
    net = {"model": "edgekd:resnet10", "weights": "w.pt"}
    recipe = Recipe.model_validate({
        "edgekd": 1, "data": {"source": "fashion-mnist-mini"}, "teacher": {"ensemble": [net, net]},
        "student": {"model": "edgekd:resnet10"}, "distill": {"epochs": 1, "losses": [{"kind": "kd"}, {"kind": "fitnet"}]},
    })  # fmt: skip
    assert list(conflicts(recipe)) == [
        ("distill.losses[1].kind", "fitnet compares layers with one teacher, and there are 2",
         "add teacher: resnet10, or another of resnet10, resnet10_2"),
    ]  # fmt: skip
