from __future__ import annotations

import copy
from typing import Any, ClassVar

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from edgekd.distill.outputs import Batch, Facts, Outputs
from edgekd.distill.terms import Terms
from edgekd.errors import LayerError, ModelError
from edgekd.recipe.distill import Distill
from edgekd.recipe.loss import FeatureLoss, Loss
from edgekd.taps.taps import Tapped

X = torch.randn(6, 3, 16, 16, generator=torch.Generator().manual_seed(0))
BATCH = Batch(torch.tensor([0, 1, 2, 3, 0, 1]), torch.arange(6))


def losses(*values: dict[str, Any]) -> Any:
    return Distill(epochs=1, losses=values).losses


def make(student: nn.Module, teacher: nn.Module | None, *values: dict[str, Any]) -> Terms:
    torch.manual_seed(0)
    return Terms(losses(*values), student, teacher, X[:1], Facts(4, 6))


def evaluate(terms: Terms, student: nn.Module, teacher: nn.Module, epoch: float = 0) -> tuple[Tensor, ...]:
    theirs = Tapped(teacher, terms.teacher_paths).eval()(X)
    return terms(Tapped(student, terms.student_paths).eval()(X), theirs, BATCH, epoch)


def test_terms_are_weighted_in_their_order(small: Any) -> None:
    student, teacher = small(0).eval(), small(1).eval()
    values = evaluate(
        make(student, teacher, {"kind": "task", "weight": 0.25}, {"kind": "kd", "weight": 3}), student, teacher
    )
    plain = losses({"kind": "task"}, {"kind": "kd"})
    ours, theirs = Outputs(student(X)), Outputs(teacher(X))
    torch.testing.assert_close(values[0], 0.25 * plain[0](ours, theirs, BATCH, None))
    torch.testing.assert_close(values[1], 3 * plain[1](ours, theirs, BATCH, None))


def test_a_weight_of_zero_costs_nothing(small: Any) -> None:
    terms = make(small(), small(1, width=8), {"kind": "task"}, {"kind": "fitnet", "weight": 0}, {"kind": "kd", "weight": 0})
    assert terms.names == ("task",)
    assert terms.student_paths == ()
    assert not list(terms.parameters())
    assert not terms.needs_teacher


def test_without_a_weight_there_is_nothing_to_learn(small: Any) -> None:
    with pytest.raises(ModelError) as caught:
        make(small(), None, {"kind": "task", "weight": 0}, {"kind": "kd", "weight": 0})
    assert str(caught.value) == "distill.losses: all weights are 0\n  → give at least one loss a weight above 0"


def test_needs_teacher(small: Any) -> None:
    assert make(small(), small(), {"kind": "task"}, {"kind": "kd"}).needs_teacher
    with pytest.raises(LayerError) as caught:
        make(small(), None, {"kind": "fitnet"})
    assert str(caught.value) == "distill.losses[0] (fitnet): needs a teacher\n  → add teacher:"


def test_what_a_network_lacks_names_the_loss_and_its_place(small: Any) -> None:
    values = {"kind": "task"}, {"kind": "fitnet", "weight": 0}, {"kind": "fitnet", "layers": {"down3": "down1"}}
    missing = "the student has no layer 'down3' that gives a feature map"
    with pytest.raises(LayerError) as caught:
        make(small(), small(1), *values)
    assert str(caught.value) == f"distill.losses[2] (fitnet): {missing}\n  → did you mean down2?"
    with pytest.raises(LayerError) as caught:
        Terms(losses(*values), small(), small(1), X[:1], Facts(4, 6), key="teacher.distill")
    assert caught.value.message == f"teacher.distill.losses[2] (fitnet): {missing}"


def test_one_kind_twice(small: Any) -> None:
    """Each has its own name, layers and regressors."""
    student, teacher = small(0).eval(), small(1, width=8).eval()
    terms = make(
        student, teacher,
        {"kind": "fitnet", "layers": {"stem": "stem"}},
        {"kind": "fitnet", "layers": {"stem": "stem", "down2": "down2"}, "weight": 2},
        {"kind": "kd"}, {"kind": "kd", "temperature": 1},
    )  # fmt: skip
    assert terms.names == ("fitnet", "fitnet_2", "kd", "kd_2")
    assert list(terms.adapters) == ["fitnet", "fitnet_2"]
    assert terms.student_paths == ("stem", "down2")
    values = evaluate(terms, student, teacher)
    seen, taught = Tapped(student, ("stem", "down2")).eval()(X), Tapped(teacher, ("stem", "down2")).eval()(X)
    errors = [
        (terms.adapters[name][pair](seen[at]) - taught[at]).pow(2).mean()
        for name, pair, at in (("fitnet", 0, 1), ("fitnet_2", 0, 1), ("fitnet_2", 1, 2))
    ]
    torch.testing.assert_close(values[0], errors[0])
    torch.testing.assert_close(values[1], errors[1] + errors[2])  # weight 2, mean of two


def test_the_larger_map_is_pooled(small: Any) -> None:
    student, teacher = small(0).eval(), small(1).eval()
    terms = make(student, teacher, {"kind": "attention_transfer", "weight": 1, "layers": {"stem": "down2"}})
    (value,) = evaluate(terms, student, teacher)
    ours, theirs = student.stem(X), teacher.down2(teacher.down1(teacher.stem(X)))
    pooled = nn.functional.avg_pool2d(ours, 4)

    def attention(feature: Tensor) -> Tensor:
        flat = feature.pow(2).sum(1).flatten(1)
        return flat / flat.norm(dim=1, keepdim=True)

    torch.testing.assert_close(value, (attention(pooled) - attention(theirs)).pow(2).mean())


def test_gradients_reach_the_student_and_its_regressors(small: Any) -> None:
    student, teacher = small(0).train(), small(1, width=8).eval().requires_grad_(False)
    terms = make(student, teacher, {"kind": "fitnet"}, {"kind": "kd"}, {"kind": "task"})
    theirs = Tapped(teacher, terms.teacher_paths).eval()(X)
    sum(terms(Tapped(student, terms.student_paths).train()(X), theirs, BATCH, 0), torch.zeros(())).backward()
    for module in (student, terms):
        assert list(module.parameters())
        for parameter in module.parameters():
            assert parameter.grad is not None
            assert parameter.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_automatic_pairs_are_told(small: Any) -> None:
    terms = make(small(), small(1, width=8), {"kind": "fitnet"})
    assert [str(p) for p in terms.terms[0].pairs] == [
        "stem (4 ch) ← stem (8 ch) at 16×16",
        "down1 (8 ch) ← down1 (16 ch) at 8×8",
        "down2 (16 ch) ← down2 (32 ch) at 4×4",
    ]


def test_terms_come_and_go(small: Any) -> None:
    """Weight 2 from epoch 1 to 5, rising for two epochs."""
    student, teacher = small(0).eval(), small(1, width=8).eval()
    times = {"start_epoch": 1, "end_epoch": 5, "warmup_epochs": 2}
    terms = make(student, teacher, {"kind": "task"}, {"kind": "fitnet", "weight": 2, **times})
    plain = make(student, teacher, {"kind": "task"}, {"kind": "fitnet"})
    full = float(evaluate(plain, student, teacher)[1].detach())
    for epoch, factor in ((0, 0), (0.99, 0), (1, 0), (2, 1), (3, 2), (4.99, 2), (5, 0), (9, 0)):
        assert float(evaluate(terms, student, teacher, epoch)[1].detach()) == pytest.approx(factor * full)


def test_a_term_that_rests_still_reaches_its_adapter(small: Any) -> None:
    """Several processes wait for the gradient of every parameter."""
    student, teacher = small(0).train(), small(1, width=8).eval()
    terms = make(student, teacher, {"kind": "task"}, {"kind": "fitnet", "start_epoch": 1})
    sum(evaluate(terms, student, teacher), torch.zeros(())).backward()
    assert all(p.grad is not None and not p.grad.any() for p in terms.parameters())


def test_a_term_cannot_end_before_it_begins() -> None:
    with pytest.raises(ValidationError, match="this term ends at epoch 1, before it begins at 2"):
        losses({"kind": "kd", "start_epoch": 2, "end_epoch": 1})


def test_embeddings_are_vectors(small: Any) -> None:
    """What a loss on embeddings is given: N×D, whatever the networks put in front of their classifier."""
    seen: list[Outputs] = []

    class Look(FeatureLoss):
        reads = "embedding"

        def __call__(self, student: Outputs, teacher: Outputs, batch: Batch, adapter: None) -> Tensor:
            seen.extend((student, teacher))
            return student.primary.sum()

    convolutional = nn.Sequential(
        nn.Conv2d(3, 5, 3, 2, 1), nn.ReLU(), nn.Conv2d(5, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    terms = Terms([Look(kind="look")], small(), convolutional, X[:1], Facts(4, 6))
    evaluate(terms, small(), convolutional)
    assert [tuple(outputs.features[0].shape) for outputs in seen] == [(6, 16), (6, 4)]


@pytest.mark.parametrize("kind", ["kd", "fitnet"])
def test_all_terms_may_rest(small: Any, kind: str) -> None:
    """The first step of a warm-up, or a gap between two terms, trains nothing and fails nothing."""
    student, teacher = small(0).train(), small(1).eval()
    terms = make(student, teacher, {"kind": kind, "warmup_epochs": 1})
    sum(evaluate(terms, student, teacher), torch.zeros(())).backward()
    assert all(p.grad is None or not p.grad.any() for p in student.parameters())


class OfLabels(Loss):
    """A loss that was written for classes alone."""

    kind: str = "of_labels"
    reads: ClassVar[Any] = "logits"
    where: str = ""

    def adapter(self, pairs: Any, facts: Any) -> Any:
        return nn.Linear(1, len(facts.labels)) if self.where == "facts" else None

    def __call__(self, student: Any, teacher: Any, batch: Any, adapter: Any) -> Any:
        return nn.functional.cross_entropy(student.primary if self.where == "batch" else student.logits, batch.labels)


@pytest.mark.parametrize(
    ("where", "told", "read"),
    [
        ("batch", "the loss of_labels cannot be computed: batch has no labels", "read batch.target: labels (int64, N), or"),
        ("student", "the loss of_labels cannot be computed: student and teacher have no logits", "read primary: logits of"),
        ("facts", "distill.losses[0] (of_labels): facts have no labels", "read facts.targets: labels (int64, N), or values"),
    ],
)
def test_a_loss_that_reads_what_a_task_need_not_have_is_told_what_to_read(where: str, told: str, read: str) -> None:
    student, x = nn.Linear(2, 3), torch.zeros(6, 2)
    with pytest.raises(ModelError) as caught:
        terms = Terms([OfLabels(where=where)], student, student, {"x": x}, Facts(0, 6, torch.zeros(6, 3)))
        terms([student(x)], [student(x)], Batch(torch.zeros(6, 3), torch.arange(6)), 0)
    assert caught.value.message == told
    assert caught.value.hint.startswith(read)
    assert "needs = ('classes',)" in caught.value.hint


def test_outputs_batch_and_facts_are_plain_objects() -> None:
    for record in (Outputs(X), BATCH, Facts(4, 6)):
        assert not hasattr(record, "labels")
        assert not hasattr(record, "logits")
        with pytest.raises(AttributeError, match=f"{type(record).__name__} has no shape"):
            record.shape  # noqa: B018
        copy.deepcopy(record)


def test_a_loss_that_cannot_be_called_is_named(small: Any) -> None:
    class Silent(FeatureLoss):
        reads = "embedding"

    with pytest.raises(LayerError, match=r"distill\.losses\[0\] \(silent\): cannot be called"):
        Terms([Silent(kind="silent")], small(), small(), X[:1], Facts(4, 6))
