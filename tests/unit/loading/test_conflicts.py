"""What of the shipped losses is refused together with the rest of a recipe; the texts are in tests/golden/errors."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekd import loading
from edgekd.errors import RecipeError
from edgekd.recipe.loss import Loss
from edgekd.registry import losses


def refused(terms: str, more: str = "", taught: bool = True) -> str:
    """Why a recipe with these losses, and more in its distill section, cannot be run; empty if it can."""
    teacher = "teacher: {model: edgekd:resnet10, weights: best.pt}\n" if taught else ""
    text = f"edgekd: 1\ndata: {{source: fashion-mnist-mini}}\nstudent: {{model: edgekd:resnet10}}\n{teacher}"
    try:
        loading.load_text(f"{text}distill: {{epochs: 1, losses: [{terms}]{more}}}\n", Path("r.yaml"), "r.yaml")
    except RecipeError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("kind", losses.names())
def test_each_loss_has_its_weight_within_an_epoch_by_default(kind: str) -> None:
    loss = losses.get(kind)
    assert issubclass(loss, Loss)
    assert refused(f"{{kind: {kind}}}", taught=loss.needs_teacher) == ""
    assert "the warm-up ends at epoch 1.1" in refused(f"{{kind: {kind}, warmup_epochs: 1.1}}", taught=loss.needs_teacher)


ALL, LARGEST = "remove top_k, or use kd or dkd there", "remove top_k, or use {} without standardize there"


@pytest.mark.parametrize(
    ("term", "hint"),
    [
        ("kind: mse_logits", ALL),
        ("kind: dist", ALL),
        ("kind: dist, standardize: true", ALL),
        ("kind: kd, standardize: true", LARGEST.format("kd")),
        ("kind: dkd, standardize: true", LARGEST.format("dkd")),
        ("kind: kd", ""),
        ("kind: dkd", ""),
        ("kind: fitnet", ""),
        ("kind: dist, weight: 0", ""),
    ],
)
def test_the_largest_logits_are_not_enough_for_all_losses(term: str, hint: str) -> None:
    said = refused(f"{{kind: task}}, {{kind: kd}}, {{{term}}}", ", teacher_cache: {top_k: 5}")
    assert said.splitlines()[-1:] == ([f"  → {hint}"] if hint else [])
    assert (
        ("distill.teacher_cache.top_k" in said)
        == ("(distill.losses[2]) reads all logits, not only the largest" in said)
        == bool(hint)
    )
    assert refused(f"{{kind: task}}, {{kind: kd}}, {{{term}}}", ", teacher_cache: {draws: 2}") == ""


def test_a_student_that_ends_in_the_teacher_ships_one_output() -> None:
    text = (
        "edgekd: 1\ndata: {source: fashion-mnist-mini}\nstudent: {model: edgekd:resnet10, outputs: all}\n"
        "teacher: {model: edgekd:resnet10, weights: best.pt}\ndistill: {epochs: 1, losses: [{kind: simkd}]}\n"
    )
    with pytest.raises(RecipeError, match=r"with simkd the student ends in the teacher's classifier, which has one output"):
        loading.load_text(text, Path("r.yaml"), "r.yaml")
    loading.load_text(text.replace("outputs: all", "outputs: primary"), Path("r.yaml"), "r.yaml")
