"""A student with the teacher's classifier, as the stages build it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from edgekd.assembly import networks
from edgekd.assembly.context import Context
from edgekd.assembly.stage import perform
from edgekd.errors import LayerError
from edgekd.loading.conflicts import conflicts
from edgekd.models import build
from edgekd.progress import Silent
from edgekd.recipe import Recipe
from edgekd.stages import distill
from edgekd.stages.distill import DistillStage
from edgekd.stages.teacher import TeacherStage
from edgekd.task.image_classification import purpose


@pytest.fixture(autouse=True)
def _global_state() -> Iterator[None]:
    """Stages make the whole process deterministic; other tests need not be."""
    yield
    torch.use_deterministic_algorithms(False)


def make(source: str, *losses: dict[str, Any]) -> Recipe:
    return Recipe.model_validate(
        {
            "edgekd": 1,
            "data": {"source": source, "image_size": 16},
            "teacher": {"model": "edgekd:resnet10", "args": {"width": 4}, "train": {"epochs": 1, "batch_size": 16}},
            "student": {"model": "edgekd:resnet10", "args": {"width": 2}, "rewrite": {}},
            "distill": {"epochs": 1, "batch_size": 16, "losses": losses},
        }
    )


def test_every_stage_builds_the_student_with_the_teachers_classifier(npz: Callable[..., str], tmp_path: Path) -> None:
    recipe = make(npz(), {"kind": "simkd"})
    said: list[str] = []

    class Saying(Silent):
        def say(self, text: str) -> None:
            said.append(text)

    def run(stage: Any, name: str, **inputs: Path) -> Path:
        out = tmp_path / name
        out.mkdir()
        context = Context(
            recipe=recipe, name=name, out=out, inputs=inputs, log=tmp_path / "log", progress=Saying(), processes=1, threads=1
        )  # fmt: skip
        perform(stage, context)
        return out

    taught = run(TeacherStage(), "teacher")
    out = run(DistillStage(), "distill", teacher=taught)
    written, head = load_file(out / "weights.safetensors"), load_file(taught / "weights.safetensors")
    assert torch.equal(written["classifier.head.weight"], head["head.weight"])
    assert torch.equal(written["classifier.head.bias"], head["head.bias"])
    student = networks.student(recipe, purpose(recipe.data, 4), out / "weights.safetensors").eval()
    assert all(torch.equal(value, written[name]) for name, value in student.state_dict().items())
    plain = build.parameters(networks.student(distill.alone(recipe), purpose(distill.alone(recipe).data, 4)))
    cost = json.loads((out / "output.json").read_text())["structure"]["reused"]
    assert f"  reused: {cost}" in said
    projector = 16 * 16 + 9 * 16 * 16 + 16 * 32 + 2 * (16 + 16 + 32)
    assert cost == f"{projector:,} parameters of a projector and 132 of the teacher's classifier, shipped with it"
    assert build.parameters(student) == plain - (16 * 4 + 4) + projector + (32 * 4 + 4)
    assert "  simkd: projector (32 ch) ← layer4 (32 ch) at 2×2" in said


def test_without_its_weight_the_student_is_its_own(npz: Callable[..., str]) -> None:
    names = networks.student(
        make(npz(), {"kind": "kd"}, {"kind": "simkd", "weight": 0}),
        purpose(make(npz(), {"kind": "kd"}, {"kind": "simkd", "weight": 0}).data, 4),
    ).state_dict()
    assert not any(name.startswith("backbone") for name in names)


def test_it_starts_as_the_student_alone(npz: Callable[..., str]) -> None:
    recipe = make(npz(), {"kind": "simkd"})
    states = []
    for each in (recipe, distill.alone(recipe)):
        torch.manual_seed(recipe.seed)
        states.append(networks.student(each, purpose(each.data, 4)).state_dict())
    assert all(torch.equal(states[0][f"backbone.{name}"], value) for name, value in states[1].items() if "head" not in name)


def test_one_end_is_enough(npz: Callable[..., str]) -> None:
    found = list(conflicts(make(npz(), {"kind": "simkd"}, {"kind": "simkd"})))
    assert found == [("distill.losses", "simkd and simkd both copy the teacher's classifier", "keep one of them")]


def test_a_teacher_whose_classifier_cannot_be_taken_is_told_with_the_loss(npz: Callable[..., str], tmp_path: Path) -> None:
    file = tmp_path / "net.py"
    file.write_text(
        "from torch import nn\n"
        "def net(num_classes):\n"
        "    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(1024, num_classes))\n"
    )
    recipe = make(npz(), {"kind": "kd"}, {"kind": "simkd"})
    assert recipe.teacher is not None
    flat = recipe.teacher.model_copy(update={"model": f"{file}:net", "args": {}})
    with pytest.raises(LayerError, match=r"^distill\.losses\[1\] \(simkd\): the teacher has no pooling over height and wid"):
        networks.student(
            recipe.model_copy(update={"teacher": flat}), purpose(recipe.model_copy(update={"teacher": flat}).data, 4)
        )
