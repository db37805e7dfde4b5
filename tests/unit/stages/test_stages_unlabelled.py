"""Training without labels, and without images: what the stages see, write and measure."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from edgekd import cache
from edgekd.assembly import networks
from edgekd.assembly.context import Context
from edgekd.assembly.stage import perform
from edgekd.data import dataset
from edgekd.engine import gates, plan
from edgekd.errors import ModelError
from edgekd.progress import Silent
from edgekd.recipe import Recipe
from edgekd.recipe.data import Data
from edgekd.results.fidelity import Fidelity, Figure
from edgekd.results.models import Estimate, Metrics, ModelRecord
from edgekd.stages import evaluate, synthesize
from edgekd.stages.distill import DistillStage
from edgekd.stages.evaluate import EvaluateStage
from edgekd.stages.quantize import QuantizeStage
from edgekd.stages.student import StudentStage
from edgekd.stages.synthesize import SynthesizeStage
from edgekd.stages.teacher import TeacherStage
from edgekd.task.image_classification import purpose


@pytest.fixture(autouse=True)
def _global_state() -> Iterator[None]:
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def stage(tmp_path: Path) -> Callable[..., Path]:
    """Run a stage into a folder of its own."""

    def call(module: Any, recipe: Recipe, name: str, **inputs: Path) -> Path:
        out = tmp_path / name
        out.mkdir()
        perform(module, Context(recipe, name, out, inputs, tmp_path / "log", Silent(), threads=1))
        return out

    return call


@pytest.fixture
def weights(tmp_path: Path) -> str:
    """A teacher's checkpoint."""
    from edgekd.models.build import network

    torch.manual_seed(1)
    model = network("edgekd:resnet10", {"width": 4}, purpose(Data(source="fashion-mnist-mini"), 4))
    model.train()
    for _ in range(5):
        model(torch.randn(16, 3, 16, 16))
    networks.save(model.state_dict(), tmp_path / "teacher.safetensors")
    return str(tmp_path / "teacher.safetensors")


def make(data_section: dict[str, Any], weights: str, **changes: Any) -> Recipe:
    return Recipe.model_validate({
        "edgekd": 1,
        "data": {"image_size": 16, "augment": ["flip"], **data_section},
        "teacher": {"model": "edgekd:resnet10", "args": {"width": 4}, "weights": weights},
        "student": {"model": "edgekd:resnet10", "args": {"width": 2}},
        "distill": {"epochs": 2, "batch_size": 16, "losses": [{"kind": "kd"}, {"kind": "fitnet"}, {"kind": "crd"}]},
        **changes,
    })  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> str:
    random = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for index in range(60):
        Image.fromarray(random.integers(0, 256, (16, 16, 3), np.uint8)).save(tmp_path / "photos" / f"{index}.png")
    return f"images:{tmp_path / 'photos'}"


def _models(folder: Path) -> dict[str, Any]:
    """Figures of each network, as the stage evaluate leaves them."""
    return json.loads((folder / "output.json").read_text())["models"]


def test_a_student_learns_from_a_folder_and_is_judged_by_its_teacher(
    stage: Callable[..., Path], folder: str, weights: str
) -> None:
    recipe = make({"source": folder, "classes": 4, "val_fraction": 0.25}, weights, quantize={"method": "qat", "epochs": 1})
    taught = stage(TeacherStage(), recipe, "teacher")
    out = stage(DistillStage(), recipe, "distill", teacher=taught)
    curve = json.loads((out / "output.json").read_text())["curve"]
    assert curve["of"] == "teacher"
    assert curve["train"] == {}
    assert json.loads((out / "output.json").read_text())["taught"].get("val_score") is None

    images = dataset.load(recipe.data)
    network = networks.student(recipe, purpose(recipe.data, 4), out / "weights.safetensors").eval()
    judge = networks.student(recipe.model_copy(update={"student": recipe.student.model_copy(  # type: ignore[union-attr]
        update={"args": {"width": 4}})}), purpose(recipe.model_copy(update={"student": recipe.student.model_copy(  # type: ignore[union-attr]
        update={"args": {"width": 4}})}).data, 4), taught / "weights.safetensors").eval()  # fmt: skip
    stacked = np.stack([images.val.images[i] for i in range(len(images.val))])
    x = torch.from_numpy(images.preprocessing.arrays(stacked).copy())
    with torch.no_grad():
        agreement = float((network(x).argmax(1) == judge(x).argmax(1)).float().mean())
    assert curve["val"]["top1"][curve["best_epoch"]] == pytest.approx(agreement)

    int8 = stage(QuantizeStage(), recipe, "quantize", distill=out, teacher=taught)
    assert json.loads((int8 / "output.json").read_text())["curve"]["of"] == "teacher"
    found = _models(stage(EvaluateStage(), recipe, "evaluate", teacher=taught, distill=out, quantize=int8))
    assert found["teacher"]["metrics"] == []
    for name in ("distilled", "qat"):
        (metrics,) = found[name]["metrics"]
        assert (metrics["of"], metrics["split"], metrics["n"]) == ("teacher", "test", 12)


def test_agreement_counts_the_images_of_the_same_class() -> None:
    ours = np.array([[3, 1, 0], [0, 2, 1], [5, 6, 7], [1, 0, 0]], np.float32)
    theirs = np.array([[9, 8, 7], [1, 0, 0], [0, 0, 1], [0, 1, 0]], np.float32)
    found = evaluate.agreement(ours, theirs, purpose(Data(source="random"), 2))
    assert (found.split, found.n, found.of, found.values["top1"].value) == ("test", 4, "teacher", 0.5)


def test_labels_of_the_test_split_alone(stage: Callable[..., Path], npz: Callable[..., str], weights: str) -> None:
    recipe = make({"source": npz(), "labels": "test"}, weights)
    images = dataset.load(recipe.data)
    assert (images.train.labelled, images.val.labelled, images.test.labelled) == (False, False, True)
    taught = stage(TeacherStage(), recipe, "teacher")
    out = stage(DistillStage(), recipe, "distill", teacher=taught)
    found = _models(stage(EvaluateStage(), recipe, "evaluate", teacher=taught, distill=out))
    assert [m["of"] for m in found["distilled"]["metrics"]] == ["labels", "teacher"]
    assert [m["of"] for m in found["teacher"]["metrics"]] == ["labels"]


def test_hidden_labels_do_not_choose_the_validation_images(npz: Callable[..., str]) -> None:
    """Else the same share of each class would be held out, which without labels nobody can do."""

    found = {
        labels: dataset.load(Data(source=npz(), image_size=16, labels=labels, val_fraction=0.2))
        for labels in ("all", "none")
    }
    assert not set(found["none"].val.labels.tolist()) - {-1}
    stratified = found["all"].val.labels
    assert np.bincount(stratified).tolist() == [4, 4, 4, 4]
    assert dataset.numbers(found["none"].val).tolist() != dataset.numbers(found["all"].val).tolist()


def free(weights: str, **changes: Any) -> Recipe:
    section = {"source": "synthetic", "classes": 4, "mean": [0.5], "std": [0.25], "val_fraction": 0.2,
               "synthetic": {"images": 60, "steps": 3, "batch_size": 32}}  # fmt: skip
    return make(section | changes.pop("data", {}), weights, **changes)


def test_a_student_learns_from_synthesized_images(stage: Callable[..., Path], weights: str) -> None:
    recipe = free(weights, quantize={"method": "ptq"})
    taught = stage(TeacherStage(), recipe, "teacher")
    made = stage(SynthesizeStage(), recipe, "synthesize", teacher=taught)
    pixels = np.load(made / "images.npy")
    assert (pixels.shape, pixels.dtype) == ((60, 3, 16, 16), np.uint8)
    assert np.bincount(np.load(made / "labels.npy")).tolist() == [15, 15, 15, 15]
    assert 0 < (made / "sheet.jpg").stat().st_size <= synthesize.SHEET_BYTES

    images = dataset.load(recipe.data, made=made)
    seen = {images.train.images[i].tobytes() for i in range(len(images.train))}
    assert (len(images.train), len(images.val), len(images.test)) == (38, 10, 12)
    assert seen < {image.tobytes() for image in pixels}
    assert not seen & {images.test.images[i].tobytes() for i in range(12)}

    out = stage(DistillStage(), recipe, "distill", teacher=taught, synthesize=made)
    assert json.loads((out / "output.json").read_text())["curve"]["of"] == "teacher"
    int8 = stage(QuantizeStage(), recipe, "quantize", distill=out, synthesize=made)
    assert json.loads((int8 / "output.json").read_text())["graph"]["val_score"] is not None


def test_synthesized_images_are_the_same_bytes_twice(stage: Callable[..., Path], weights: str) -> None:
    recipe = free(weights)
    taught = stage(TeacherStage(), recipe, "teacher")
    first, again = (stage(SynthesizeStage(), recipe, name, teacher=taught) for name in ("first", "again"))
    for name in ("images.npy", "sheet.jpg", "output.json"):
        assert (first / name).read_bytes() == (again / name).read_bytes()


def test_the_teacher_is_asked_about_other_synthesized_images(weights: str, tmp_path: Path) -> None:
    """The second of two seeds learns from the first one's images; a run of that seed alone has images of its own."""
    distilled = {"epochs": 2, "batch_size": 16, "losses": [{"kind": "kd"}], "teacher_cache": True}
    changes: dict[str, Any] = {"distill": distilled, "baselines": []}
    two, alone = free(weights, seeds=2, **changes), free(weights, seed=1, **changes)
    said: list[list[str]] = []

    def finish(module: Any, recipe: Recipe, key: str, **inputs: Path) -> Path:
        progress = Silent()
        said.append([])
        progress.say = said[-1].append  # type: ignore[method-assign]
        with cache.scratch() as out:
            perform(module, Context(recipe, key, out, inputs, tmp_path / "log", progress))
            return cache.commit(out, key, {}, 0.0).path

    taught = finish(TeacherStage(), two, "teacher")
    seeds = {"distill.seed1": finish(SynthesizeStage(), two, "images0", teacher=taught),
             "distill": finish(SynthesizeStage(), alone, "images1", teacher=taught)}  # fmt: skip
    for name, recipe in (("distill.seed1", two), ("distill", alone), ("distill", alone)):
        own = next(node.recipe for node in plan.nodes(recipe) if node.name == name)
        assert own.seed == 1
        finish(DistillStage(), own, name, teacher=taught, synthesize=seeds[name])
    asked = [lines[-1].split(", ", 1)[1] for lines in said if lines and "teacher cache" in lines[-1]]
    assert asked == ["64 computed", "64 computed", "0 computed"]


def test_real_test_images_beside_synthesized_ones(npz: Callable[..., str], stage: Callable[..., Path], weights: str) -> None:
    synthetic = {"images": 60, "steps": 3, "batch_size": 32, "grey": True}
    recipe = free(weights, data={"source": npz(), "classes": None, "synthetic": synthetic})
    made = stage(SynthesizeStage(), recipe, "synthesize", teacher=stage(TeacherStage(), recipe, "teacher"))
    images = dataset.load(recipe.data, made=made)
    assert len(images.test) == 16
    assert images.test.labelled
    assert not images.train.labelled
    assert len(images.train) + len(images.val) == 60


def test_a_given_student_makes_its_own_calibration_images(stage: Callable[..., Path], weights: str) -> None:
    student = {"model": "edgekd:resnet10", "args": {"width": 4}, "weights": weights}
    recipe = free(weights, teacher=None, distill=None, student=student, quantize={"method": "ptq"})

    own = stage(StudentStage(), recipe, "student")
    made = stage(SynthesizeStage(), recipe, "synthesize", student=own)
    int8 = stage(QuantizeStage(), recipe, "quantize", student=own, synthesize=made)
    assert json.loads((int8 / "output.json").read_text())["graph"].get("val_score") is None


def test_a_teacher_without_batch_norm_is_refused_before_anything_is_made(
    stage: Callable[..., Path], weights: str, tmp_path: Path
) -> None:
    (tmp_path / "net.py").write_text(
        "from torch import nn\n\ndef Plain(num_classes):\n"
        "    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.Flatten(), nn.Linear(784, num_classes))\n"
    )
    from torch import nn

    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.Flatten(), nn.Linear(784, 4))
    networks.save(dict(plain.state_dict()), tmp_path / "plain.safetensors")
    recipe = free(weights, teacher={"model": f"{tmp_path / 'net.py'}:Plain", "weights": str(tmp_path / "plain.safetensors")})
    taught = stage(TeacherStage(), recipe, "teacher")
    with pytest.raises(ModelError, match="this network has only GroupNorm"):
        stage(SynthesizeStage(), recipe, "synthesize", teacher=taught)


def test_a_drop_is_of_agreement_where_there_are_no_labels(weights: str) -> None:
    def model(name: str, role: Any, top1: float, of: Any) -> ModelRecord:
        drop = Figure(0.9 - top1, 100, 0.9 - top1 - 0.03, 0.9 - top1 + 0.03)
        close = Fidelity("distilled", Figure(20.0, 100, 19.0, 21.0), Figure(0.9, 100, 0.8, 0.95), drop, {"top1": drop})
        metrics = (Metrics("test", 100, {"top1": Estimate(top1)}, of),)
        return ModelRecord(name, role, "onnx", "int8", metrics=metrics, fidelity=close)

    recipe = make({"source": "images:x", "classes": 4}, weights, gates={"accuracy_drop": {"max": 0.01}})
    for of, name in (("teacher", "agreement_drop"), ("labels", "accuracy_drop")):
        models = (model("distilled", "student", 0.9, of), model("onnx", "artifact", 0.85, of))
        drop = next(gate for gate in gates.judge(recipe, models, ()) if gate.name.endswith("drop"))
        assert (drop.name, drop.verdict) == (name, "fail")
        assert drop.measured == pytest.approx(0.05)


def test_accuracy_comes_before_agreement() -> None:
    both = (Metrics("test", 9, {"top1": Estimate(0.8)}, "teacher"), Metrics("test", 9, {"top1": Estimate(0.6)}))
    record = ModelRecord("onnx", "artifact", "onnx", "int8", metrics=both)
    assert record.figure("top1") == Figure(0.6, 9)
    assert record.figure("top1", "teacher") == Figure(0.8, 9)
