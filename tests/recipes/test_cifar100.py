"""The recipes of the published CIFAR-100 comparisons are of one protocol, and every loss goes into them."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekd import loading
from edgekd.engine import plan
from edgekd.recipe.train import Train
from edgekd.registry import losses

RECIPES = sorted((Path(__file__).parents[2] / "recipes" / "cifar100").glob("*.yaml"))
SMALL = ("mobilenet_v2", "shufflenet_v1", "shufflenet_v2")  # the students with the lower learning rate


def test_there_is_one_for_each_published_pair() -> None:
    """All of Tian et al. 2020, tables 1 and 2, but those of the ResNet-50 teacher."""
    assert len(RECIPES) == 11


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_it_is_the_published_protocol(path: Path) -> None:
    recipe = loading.load(path).recipe
    assert recipe.teacher is not None
    assert recipe.teacher.train is not None
    assert recipe.student is not None
    assert recipe.distill is not None
    teacher, student = (part.model.removeprefix("edgekd:") for part in (recipe.teacher, recipe.student))
    assert path.stem == f"{teacher}-{student}"
    assert (recipe.data.source, recipe.data.image_size, recipe.data.augment) == (
        "torchvision:CIFAR100",
        32,
        ("crop", "flip"),
    )
    for budget, lr in ((recipe.teacher.train, 0.05), (recipe.distill, 0.01 if student in SMALL else 0.05)):
        published = Train(
            epochs=240, batch_size=64, optimizer="sgd", nesterov=False, lr=lr, schedule="step", milestones=(150, 180, 210),
            gamma=0.1, weight_decay=5e-4, decay_norms=True, warmup_epochs=0, precision="32-true",
        )  # fmt: skip
        assert {name: getattr(budget, name) for name in Train.model_fields} == published.model_dump()


@pytest.mark.parametrize("kind", [kind for kind in losses.names() if losses.get(kind).needs_teacher])  # type: ignore[attr-defined]
def test_every_loss_is_one_setting_away(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planned without the images, which a run downloads."""
    monkeypatch.setenv("EDGEKD_CACHE", str(tmp_path))
    for path in RECIPES:
        loaded = loading.load(path, [f"distill.losses=[{{kind: task}}, {{kind: {kind}}}]"])
        assert loaded.recipe.distill is not None
        assert [loss.kind for loss in loaded.recipe.distill.losses] == ["task", kind]
        assert {step.status for step in plan.make(loaded)} == {"run"}
