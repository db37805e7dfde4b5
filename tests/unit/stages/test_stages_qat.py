"""Distillation goes on in quantization-aware training: with every loss that lasts, and with each kind of teacher."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.unit.stages.test_stages_black_box import write_onnx

from edgekd.assembly.context import Context
from edgekd.assembly.stage import perform
from edgekd.progress import Lines
from edgekd.recipe import Recipe
from edgekd.registry import losses
from edgekd.stages.distill import DistillStage
from edgekd.stages.quantize import QuantizeStage
from edgekd.stages.teacher import TeacherStage

BUDGET = {"epochs": 1, "batch_size": 16, "warmup_epochs": 0, "lr": 1e-6}  # all papers' weights together are large
KINDS = {name: losses.get(name) for name in losses.names()}
ON_MAPS = [name for name, kind in KINDS.items() if kind.reads != "attention" and not kind.reuses_teacher]
ON_TOKENS = ["task", *(name for name, kind in KINDS.items() if kind.reads == "attention")]
ON_LOGITS = [name for name, kind in KINDS.items() if kind.reads == "logits"]
VIT = """\
from edgekd.models.torchvision import import_torchvision


def vit(num_classes, width=8):
    return import_torchvision().models.VisionTransformer(
        image_size=16, patch_size=4, num_layers=2, num_heads=2, hidden_dim=width, mlp_dim=2 * width, num_classes=num_classes
    )
"""


@pytest.fixture(autouse=True)
def _global_state() -> Iterator[None]:
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize(
    ("network", "kinds"),
    [
        ("edgekd:resnet10", ON_MAPS),
        ("edgekd:resnet10", ["simkd"]),
        ("vit.py:vit", ON_TOKENS),
        ("", ON_LOGITS),
    ],
    ids=["convolutional", "the teacher's classifier", "transformer", "black box"],
)
def test_every_loss_stays_on(
    tmp_path: Path, npz: Callable[..., str], capsys: pytest.CaptureFixture[str], network: str, kinds: list[str]
) -> None:
    (tmp_path / "vit.py").write_text(VIT)
    model = network.replace("vit.py", str(tmp_path / "vit.py")) or "edgekd:resnet10"
    taught: dict[str, Any] = {"model": model, "args": {"width": 16}, "train": BUDGET}
    if not network:
        taught = {"model": f"onnx:{write_onnx(tmp_path / 'teacher.onnx')}"}
    recipe = Recipe.model_validate({
        "edgekd": 1,
        "data": {"source": npz(), "image_size": 16},
        "teacher": taught,
        "student": {"model": model, "args": {"width": 8}},
        "distill": BUDGET | {"losses": [{"kind": kind} for kind in kinds]},
        "quantize": {"epochs": 1},
    })  # fmt: skip
    done: dict[str, Path] = {}
    for name, stage in (("teacher", TeacherStage()), ("distill", DistillStage()), ("quantize", QuantizeStage())):
        out = tmp_path / name
        out.mkdir()
        perform(stage, Context(recipe, name, out, done, tmp_path / "log", Lines()))
        done = {**done, name: out}
    float_, int8 = (json.loads((done[name] / "output.json").read_text())["curve"] for name in ("distill", "quantize"))
    assert list(float_["terms"]) == kinds
    resting = [kind for kind in kinds if KINDS[kind].reads == "preactivations"]
    assert list(int8["terms"]) == [kind for kind in kinds if kind not in resting]
    said = capsys.readouterr().err
    assert all(
        f"{kind}: switched off in int8 training: what stands before an activation is no tensor of an int8 graph" in said
        for kind in resting
    )
    assert said.count("switched off in int8 training") == len(resting)
    assert [line for line in float_["pairs"] if line.split(":")[0] in int8["terms"]] == list(int8["pairs"])
    for kind, values in int8["terms"].items():
        assert all(map(math.isfinite, values))
        assert values[0] != 0, kind
