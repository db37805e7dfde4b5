"""What the losses compare is known, and wrong, before anything is trained."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from edgekd.assembly import layers
from edgekd.cli import cli
from edgekd.engine import runner
from edgekd.engine.runner import Options
from edgekd.errors import LayerError
from edgekd.loading import load
from edgekd.progress import Silent
from edgekd.stages.teacher import TeacherStage

RECIPE = """\
edgekd: 1
data: {{source: 'npz:{data}', image_size: 32}}
teacher: {{model: 'edgekd:resnet10', args: {{width: 8, stem_stride: 2}}, train: {{epochs: 1}}}}
student: {{model: 'edgekd:resnet10', args: {{width: 4, stem_stride: 2}}}}
distill:
  epochs: 1
  losses:
    - {{kind: task}}
    - {{kind: fitnet}}
    - {{kind: attention_transfer, layers: late}}
"""


@pytest.fixture
def recipe(npz: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGEKD_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "r.yaml"
    path.write_text(RECIPE.format(data=npz().partition(":")[2]))
    return path


def test_plan_shows_pairs_and_what_is_trained_beside_the_student(recipe: Path) -> None:
    done = CliRunner().invoke(cli, ["plan", str(recipe), "--layers"], standalone_mode=False)
    assert done.exception is None
    assert done.stdout.splitlines()[-7:] == [
        "",
        "fitnet: layer1 (4 ch) ← layer1 (8 ch) at 16×16",
        "fitnet: layer2 (8 ch) ← layer2 (16 ch) at 8×8",
        "fitnet: layer3 (16 ch) ← layer3 (32 ch) at 4×4",
        "fitnet: layer4 (32 ch) ← layer4 (64 ch) at 2×2",
        f"fitnet: {sum(2 * n * n + 2 * n for n in (4, 8, 16, 32)):,} extra parameters, used in training only",
        "attention_transfer: layer4 (32 ch) ← layer4 (64 ch) at 2×2",
    ]


def test_plan_without_layers_to_compare(recipe: Path) -> None:
    recipe.write_text(recipe.read_text().partition("    - {kind: fitnet}")[0] + "    - {kind: kd}\n")
    done = CliRunner().invoke(cli, ["plan", str(recipe), "--layers"], standalone_mode=False)
    assert done.stdout.splitlines()[-1] == "no loss compares layers"


def test_plan_as_json(recipe: Path) -> None:
    done = CliRunner().invoke(cli, ["plan", str(recipe), "--layers", "--json"], standalone_mode=False)
    found = json.loads(done.stdout)
    assert [row["stage"] for row in found["stages"]][:3] == ["teacher", "student_alone", "distill"]
    assert found["losses"][2] == {
        "loss": "attention_transfer",
        "pairs": [
            {"student": {"layer": "layer4", "shape": [32, 2, 2]}, "teacher": {"layer": "layer4", "shape": [64, 2, 2]}}
        ],
        "parameters": 0,
    }


@pytest.mark.parametrize(
    ("loss", "text"),
    [
        (
            "{kind: fitnet, layers: {layer9: layer1}}",
            "distill.losses[0] (fitnet): the student has no layer 'layer9' that gives a feature map\n"
            "  → did you mean layer4?",
        ),
        (
            "{kind: minilm}",
            "distill.losses[0] (minilm): the student has no self-attention that can be read: nn.MultiheadAttention, "
            "scaled_dot_product_attention or "
            "softmax(q @ k.transpose(-2, -1)) @ v, without mask or position bias\n"
            "  → fitnet and attention_transfer compare feature maps of any two networks",
        ),
    ],
)
def test_a_run_fails_before_the_teacher_is_trained(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loss: str, text: str
) -> None:
    trained: list[object] = []
    monkeypatch.setattr(TeacherStage, "run", lambda _stage, context: trained.append(context))
    loaded = load(recipe, (f"distill.losses=[{loss}]",))
    with pytest.raises(LayerError) as caught:
        runner.run(loaded, Options(tmp_path / "out", Silent()))
    assert str(caught.value) == text
    assert trained == []


def test_so_does_one_whose_assistant_cannot_be_taught(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[object] = []
    monkeypatch.setattr(TeacherStage, "run", lambda _stage, context: trained.append(context))
    network = "model: 'edgekd:resnet10', args: {width: 8, stem_stride: 2}"
    lesson = "{epochs: 1, losses: [{kind: fitnet, layers: {layer1: leyer1}}]}"
    assistant = f"{{{network}, distill: {lesson}, teacher: {{{network}, train: {{epochs: 1}}}}}}"
    loaded = load(recipe, (f"teacher={assistant}", "distill.losses=[{kind: kd}]"))
    told = r"^teacher\.distill\.losses\[0\] \(fitnet\): the teacher has no layer 'leyer1'.*\n.*did you mean layer1"
    with pytest.raises(LayerError, match=told):
        runner.run(loaded, Options(tmp_path / "out", Silent()))
    assert trained == []


def test_an_assistant_is_built_for_the_images_it_sees(recipe: Path) -> None:
    network = "model: 'edgekd:resnet10', data: {image_size: 64}, args: {width: 8}"
    assistant = (
        f"{{{network}, distill: {{epochs: 1, losses: [{{kind: fitnet}}]}}, teacher: {{{network}, train: {{epochs: 1}}}}}}"
    )
    loaded = load(recipe, (f"teacher={assistant}", "distill.losses=[{kind: kd}]"))
    assert [(name, seen.data.image_size) for name, seen in layers.lessons(loaded.recipe)] == [
        ("teacher", 64),
        ("distill", 32),
    ]


def test_looking_leaves_the_random_state_alone(recipe: Path) -> None:
    """Otherwise a run with feature losses would start from other weights than one without."""
    torch.manual_seed(0)
    layers.find(load(recipe, ()).recipe)
    found = torch.rand(1)
    torch.manual_seed(0)
    assert torch.equal(found, torch.rand(1))
