"""A task that edgekd does not ship: regression on vectors, in a file of its own, trained and distilled."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgekd import loading, registry
from edgekd.assembly import black_box, wiring
from edgekd.assembly.context import Context
from edgekd.assembly.stage import perform
from edgekd.data import dataset, described
from edgekd.errors import DataError, ModelError, RecipeError
from edgekd.models import build
from edgekd.progress import Silent
from edgekd.recipe.teacher import Teacher
from edgekd.report.findings import sentence
from edgekd.results.codec import from_json
from edgekd.results.run import Curve
from edgekd.stages.distill import DistillStage
from edgekd.stages.teacher import TeacherStage

TASK = """\
import numpy as np
from edgekd.task.base import BATCH, Port, Signature

class Error:
    name, label, unit, better = "mae", "mean error", "", "lower"

    def per_sample(self, outputs, targets, primary):
        return np.abs(outputs[primary] - np.asarray(targets)).mean(axis=1, keepdims=True).astype(np.float64)

    def reduce(self, rows, weights=None):
        return float(np.average(rows[:, 0], weights=weights))

class Regression:
    kind, gives = "vector-regression", ()
    metrics, agreement = (Error(),), Error()

    def signature(self, samples):
        inputs = tuple(
            Port(name, (BATCH, *shape), dtype, "mask" if dtype == "bool" else "features")
            for name, (shape, dtype) in samples.inputs.items()
        )
        return Signature(inputs, (Port("values", (BATCH, *samples.target), kind="values"),), "values")

    def builder_args(self, samples):
        return {"values": samples.target[0]}

    def stratum(self, targets):
        return None

    def criterion(self, primary, target, smoothing):
        from torch.nn import functional as F

        return F.mse_loss(primary, target)
"""
NET = """\
import torch
from torch import nn

def net(values, width):
    return nn.Sequential(nn.Linear(6, width), nn.ReLU(), nn.Linear(width, values))

class Two(nn.Module):
    def __init__(self, values):
        super().__init__()
        self.rest = nn.Linear(6, values)

    def forward(self, features, mask):
        return self.rest(features * mask)
"""
RECIPE = """\
edgekd: 1
task: vector-regression
data: {{source: "npz:d.npz", val_fraction: 0.25}}
teacher:
  model: net.py:net
  args: {{width: 32}}
  train: {{epochs: 6, batch_size: 16, lr: 0.01}}
student: {{model: "net.py:net", args: {{width: 4}}}}
distill: {{epochs: 4, batch_size: 16, lr: 0.01, losses: [{losses}]}}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    info = tmp_path / "lib" / "edgekd_vectors-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: edgekd-vectors\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[edgekd.tasks]\nvector-regression = edgekd_vectors:Regression\n")
    (tmp_path / "lib" / "edgekd_vectors.py").write_text(TASK)
    monkeypatch.syspath_prepend(str(tmp_path / "lib"))
    (tmp_path / "net.py").write_text(NET)
    random = np.random.default_rng(0)
    x = random.normal(size=(200, 6))
    y = np.stack([x[:, 0] - x[:, 1], x[:, 2] * 2], axis=1)
    np.savez(tmp_path / "d.npz", x_train=x[:160], y_train=y[:160], x_test=x[160:], y_test=y[160:])
    yield tmp_path
    registry.tasks._entries.pop("vector-regression", None)


def loaded(folder: Path, losses: str = "{kind: task}, {kind: mse_logits}", **changes: str) -> Any:
    text = RECIPE.format(losses=losses)
    for old, new in changes.items():
        text = text.replace(old, new)
    (folder / "r.yaml").write_text(text)
    return loading.load(folder / "r.yaml").recipe


def test_it_is_trained_and_distilled(folder: Path) -> None:
    recipe = loaded(folder)
    images = dataset.load(recipe.data, task=recipe.task)
    assert (len(images.train), len(images.val), len(images.test)) == (120, 40, 40)
    assert [str(port) for port in images.purpose.signature.inputs] == ["x (N×6 float32)"]
    (line,) = described.described(recipe.data, task=recipe.task)
    assert line.endswith("120 samples for training, 40 for validation, 40 for the test")
    folders: dict[str, Path] = {}
    for name, stage in (("teacher", TeacherStage()), ("distill", DistillStage())):
        out = folders[name] = folder / name
        out.mkdir()
        context = Context(recipe=recipe, name=name, out=out, inputs=dict(folders), log=out / "log", progress=Silent())
        perform(stage, context)
        curve = from_json(Curve, json.loads((out / "output.json").read_text())["curve"])
        assert curve.val["mae"][curve.best_epoch] == min(curve.val["mae"]) < curve.val["mae"][0]
    assert {*curve.terms} == {"task", "mse_logits"}


def test_two_inputs(folder: Path) -> None:
    with np.load(folder / "d.npz") as stored:
        arrays = dict(stored)
    for split in ("train", "test"):
        x = arrays.pop(f"x_{split}")
        arrays |= {f"x_{split}.features": x, f"x_{split}.mask": np.ones_like(x, bool)}
    np.savez(folder / "d.npz", **arrays)
    recipe = loaded(folder, **{"net.py:net": "net.py:Two", "{width: 32}": "{}", "{width: 4}": "{}"})
    images = dataset.load(recipe.data, task=recipe.task)
    network = build.network(recipe.student.model, {}, images.purpose)
    assert network(*build.example(images.purpose.signature, 3).values()).shape == (3, 2)
    out = folder / "teacher"
    out.mkdir()
    perform(TeacherStage(), Context(recipe=recipe, name="teacher", out=out, inputs={}, log=out / "log", progress=Silent()))
    taught = folder / "distill"
    taught.mkdir()
    inputs = {"teacher": out}
    perform(
        DistillStage(),
        Context(recipe=recipe, name="distill", out=taught, inputs=inputs, log=taught / "log", progress=Silent()),
    )
    assert (taught / "weights.safetensors").exists()


@pytest.mark.parametrize("kind", ["kd", "dkd", "dist", "tf_kd", "fitnet"])
def test_losses_that_need_more_are_refused(folder: Path, kind: str) -> None:
    with pytest.raises(RecipeError, match=rf"{kind} needs (classes|images as its only input), which vector-regression"):
        loaded(folder, f"{{kind: task}}, {{kind: {kind}}}")


def test_what_is_not_of_the_task_is_refused(folder: Path) -> None:
    recipe = loaded(folder)
    with pytest.raises(DataError, match="values as targets"):
        dataset.load(recipe.data)
    with pytest.raises(RecipeError, match="'vector-regresion' is not a task"):
        loaded(folder, **{"vector-regression": "vector-regresion"})
    with pytest.raises(RecipeError, match="has no classes to smooth"):
        loaded(folder, "{kind: task, label_smoothing: 0.1}")
    arrays = {"x_train": np.zeros((8, 6)), "x_test": np.zeros((2, 6)), "y_test": np.zeros((2, 2))}
    y_train = np.zeros((8, 2))
    y_train[[2, 5], 1] = np.nan
    np.savez(folder / "d.npz", y_train=y_train, **arrays)
    with pytest.raises(DataError, match=r"the targets of train have NaN in 2 of 8 rows, the first is row 2 \(from 0\)"):
        dataset.load(recipe.data, task=recipe.task)
    y_train[:, 1] = 0
    y_train[7, 0] = -np.inf
    np.savez(folder / "d.npz", y_train=y_train, **arrays)
    with pytest.raises(DataError, match=r"the targets of train have infinity in 1 of 8 rows, it is row 7"):
        dataset.load(recipe.data, task=recipe.task)


def test_teachers_of_classes_are_refused(folder: Path) -> None:
    given = "  args: {width: 32}\n  train: {epochs: 6, batch_size: 16, lr: 0.01}\n"
    with pytest.raises(RecipeError, match="onnx files teach classes of images, and vector-regression has no classes"):
        loaded(folder, "{kind: mse_logits}", **{"model: net.py:net\n": "model: onnx:t.onnx\n", given: ""})
    for option in ("outputs: probabilities", "classes: [a, b]"):
        with pytest.raises(RecipeError, match=r"teacher\.\w+: vector-regression has no classes"):
            loaded(folder, **{given: f"  args: {{width: 32}}\n  weights: t.pt\n  {option}\n"})


@pytest.mark.parametrize(
    ("shape", "told"), [((160, 3), r"has shape \(160, 3\), and values"), ((160,), r"is float32 of shape \(160,\)")]
)
def test_stored_outputs_of_another_form_are_refused(folder: Path, shape: tuple[int, ...], told: str) -> None:
    recipe = loaded(folder)
    images = dataset.load(recipe.data, task=recipe.task)
    np.savez(folder / "o.npz", train=np.zeros(shape, np.float32))
    with pytest.raises(ModelError, match=rf"o\.npz: train {told}"):
        black_box.load(Teacher(model=f"outputs:{folder / 'o.npz'}"), recipe.data, images, 1)


def test_a_file_teaches_on_images_alone(folder: Path) -> None:
    recipe = loaded(folder)
    images = dataset.load(recipe.data, task=recipe.task)
    with pytest.raises(ModelError, match="a file teaches on images alone, and a sample here has x"):
        black_box.load(Teacher(model="onnx:t.onnx"), recipe.data, images, 1)


class Told(nn.Module):
    """Gives the targets, of each sample or of the one before it in a batch."""

    def __init__(self, by: int) -> None:
        super().__init__()
        self.by = by

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([x[:, 0] - x[:, 1], x[:, 2] * 2], dim=1).roll(self.by, 0)


def test_a_given_network_is_held_by_the_metric_of_the_task(folder: Path) -> None:
    recipe = loaded(folder)
    images = dataset.load(recipe.data, task=recipe.task)
    taught, teacher = wiring.Role("student", teaches=False), wiring.Role("teacher", teaches=True)
    assert wiring.check(Told(0), images, recipe.data, teacher, Silent()) == ()
    (doubt,) = wiring.check(Told(1), images, recipe.data, taught, Silent())
    assert sentence(doubt).startswith("the network is no better than chance: mean error "), doubt
    with pytest.raises(ModelError, match="teacher is no better than chance: mean error .* on 120 training samples"):
        wiring.check(Told(1), images, recipe.data, teacher, Silent())


def test_a_given_network_on_few_samples_is_only_doubted(folder: Path) -> None:
    with np.load(folder / "d.npz") as stored:
        arrays = {name: value[:40] for name, value in stored.items()}
    np.savez(folder / "d.npz", **arrays)
    recipe = loaded(folder)
    images = dataset.load(recipe.data, task=recipe.task)
    (doubt,) = wiring.check(Told(1), images, recipe.data, wiring.Role("teacher", teaches=True), Silent())
    assert sentence(doubt).endswith("as far as 30 samples can tell")
