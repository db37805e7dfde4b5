"""A teacher that sees the samples in another way than its student: in every stage, in the plan and in what is kept of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.unit.stages.test_stages_black_box import write_onnx

from edgekd import cache
from edgekd.assembly import layers, networks, teacher_outputs, views
from edgekd.assembly.context import Context
from edgekd.assembly.stage import perform
from edgekd.data import dataset, reading, same_samples
from edgekd.data.sources.base import Raw
from edgekd.distill.teachers import BlackBox
from edgekd.engine import plan, runner
from edgekd.errors import DataError, RecipeError
from edgekd.loading import load
from edgekd.progress import Silent
from edgekd.recipe import Recipe
from edgekd.recipe.data import Data
from edgekd.stages.distill import DistillStage
from edgekd.stages.evaluate import EvaluateStage
from edgekd.stages.quantize import QuantizeStage
from edgekd.stages.teacher import TeacherStage

RECIPE = """\
edgekd: 1
data: {source: SOURCE, image_size: 12, channels: 1, augment: [crop, flip]}
teacher:
  data: {image_size: 16, channels: 3}
  model: edgekd:resnet10
  args: {width: 2}
  train: {epochs: 1, batch_size: 24}
student: {model: edgekd:resnet10, args: {width: 2, in_channels: 1}}
distill: {epochs: 1, batch_size: 24, losses: [{kind: task}, {kind: kd}, {kind: fitnet}], teacher_cache: true}
quantize: {epochs: 1}
baselines: []
"""

Write = Callable[..., Any]


@pytest.fixture(autouse=True)
def _global_state() -> Iterator[None]:
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def make(tmp_path: Path, npz: Callable[..., str]) -> Write:
    """A loaded recipe, with changes."""
    file, source = tmp_path / "small.yaml", npz()

    def call(*overrides: str) -> Any:
        file.write_text(RECIPE.replace("SOURCE", source))
        return load(file, overrides)

    return call


@pytest.fixture
def run(tmp_path: Path) -> Write:
    """Run a stage of a recipe and finish it under a key."""

    def call(stage: Any, recipe: Recipe, key: str, name: str = "", processes: int = 1, **inputs: Path) -> Path:
        with cache.scratch() as out:
            perform(stage, Context(recipe, name or key, out, inputs, tmp_path / "log", Silent(), processes=processes))
            return cache.commit(out, key, {}, 0.0).path

    return call


def node(recipe: Recipe, name: str) -> Recipe:
    """The recipe that a stage sees."""
    return next(found.recipe for found in plan.nodes(recipe) if found.name == name)


def same(a: Path, b: Path) -> bool:
    names = ("weights", "last", "adapters")
    return all((a / f"{name}.safetensors").read_bytes() == (b / f"{name}.safetensors").read_bytes() for name in names)


def test_the_student_is_the_same_with_a_cold_a_warm_and_no_cache(make: Write, run: Write) -> None:
    recipe = make().recipe
    taught = run(TeacherStage(), node(recipe, "teacher"), "aa")
    cold = run(DistillStage(), recipe, "cold", teacher=taught)
    assert same(cold, run(DistillStage(), recipe, "warm", teacher=taught))
    live = make("distill.teacher_cache=false").recipe
    assert same(cold, run(DistillStage(), live, "live", teacher=taught))
    qat = run(QuantizeStage(), recipe, "qat", teacher=taught, distill=cold)
    again = run(QuantizeStage(), recipe, "again", teacher=taught.rename(taught.with_name("bb")), distill=cold)
    assert same(qat, again)
    found = run(EvaluateStage(), recipe, "evaluate", teacher=taught.with_name("bb"), distill=cold, quantize=qat)
    metrics = json.loads((found / "output.json").read_text())["models"]
    assert metrics["teacher"]["macs"] > 1.7 * metrics["distilled"]["macs"]  # 16 pixels, and three channels
    told = json.loads((cold / "output.json").read_text())["taught"]
    assert 0 <= told["val_score"] <= 1


def test_the_records_of_a_view_are_of_the_students_size(make: Write) -> None:
    """A crop is drawn in the student's pixels: another student's draws are another view, of the same teacher."""
    own, other = make().recipe, make("data.image_size=14").recipe
    with cache.scratch() as out:
        (out / "weights.safetensors").touch()
        made = {"teacher": cache.commit(out, "aa", {}, 0.0).path}
    places = {teacher_outputs.records_folder(recipe, made, "teacher") for recipe in (own, other)}
    assert len(places) == 2


def test_keys(make: Write) -> None:
    """The teacher depends on what it sees, and the baseline does not."""

    def keys(*overrides: str) -> dict[str, str]:
        return {step.name: step.key for step in plan.make(make("baselines=[student_alone]", *overrides))}

    own = keys()
    larger, colours, smaller = keys("teacher.data.image_size=20"), keys("teacher.data.channels=1"), keys("data.image_size=8")
    for changed in (larger, colours):
        assert [own[name] == changed[name] for name in ("teacher", "student_alone", "distill")] == [False, True, False]
    assert [own[name] == smaller[name] for name in ("teacher", "student_alone", "distill")] == [True, False, False]
    assert keys("teacher.data={image_size: 12, channels: 1}", "teacher.args={width: 2, in_channels: 1}") == keys(
        "teacher.data=null", "teacher.args={width: 2, in_channels: 1}"
    )


def test_layers_are_paired_by_depth(make: Write) -> None:
    (term,) = (term for term in layers.find(make().recipe).terms if term.pairs)
    assert [pair.student.path for pair in term.pairs] == [pair.teacher.path for pair in term.pairs]
    assert [(pair.student.size[0], pair.teacher.size[0]) for pair in term.pairs] == [(12, 16), (6, 8), (3, 4), (2, 2)]


def test_each_of_an_ensemble_and_each_of_a_chain_sees_its_own(make: Write, run: Write) -> None:
    network = "model: edgekd:resnet10"
    members = (
        f"teacher={{ensemble: [{{{network}, name: large, data: {{image_size: 16, channels: 3}}, args: {{width: 2}}, "
        f"distill: {{epochs: 1, batch_size: 24, losses: [{{kind: kd}}]}}, teacher: {{{network}, data: {{image_size: 20}}, "
        f"args: {{width: 2}}, train: {{epochs: 1}}}}}}, "
        f"{{{network}, name: alike, args: {{width: 2, in_channels: 1}}, train: {{epochs: 1}}}}]}}"
    )
    recipe = make(members, "distill.losses=[{kind: kd}, {kind: fitnet, teacher: large}]", "quantize=null").recipe
    assert recipe.teacher is not None
    seen = {name: (view.image_size, view.channels) for name, view in recipe.teacher.views(recipe.data).items()}
    assert seen == {"teacher": (12, 1), "teacher.large": (16, 3), "teacher.large.teacher": (20, 3), "teacher.alike": (12, 1)}
    inputs: dict[str, Path] = {}
    for name in ("teacher.large.teacher", "teacher.large", "teacher.alike"):
        assert node(recipe, name).data.image_size == seen[name][0]
        inputs[name] = run(TeacherStage(), node(recipe, name), name, **inputs)
    inputs["distill"] = run(DistillStage(), recipe, "distill", **inputs)
    live = recipe.model_copy(update={"distill": recipe.distill.model_copy(update={"teacher_cache": False})})
    assert same(inputs["distill"], run(DistillStage(), live, "live", name="distill", **inputs))
    metrics = json.loads((run(EvaluateStage(), recipe, "evaluate", **inputs) / "output.json").read_text())["models"]
    assert metrics.keys() == {"teacher", "teacher.large", "teacher.large.teacher", "teacher.alike", "distilled"}
    together = views.opened(recipe.teacher, recipe.data, dataset.load(recipe.data))
    assert [images.train.images[0].shape for images in together] == [(1, 16, 16), (1, 12, 12)]


def test_a_black_box_sees_its_own_view(tmp_path: Path, npz: Callable[..., str]) -> None:
    """In its own normalization, for that is of the view's images."""
    source, w = npz(channels=3), np.random.default_rng(5).normal(size=(4, 3, 16, 16)).astype(np.float32)
    value = {
        "edgekd": 1, "data": {"source": source, "image_size": 8, "channels": 1}, "student": {"model": "edgekd:resnet10"},
        "teacher": {"model": f"onnx:{write_onnx(tmp_path / 't.onnx', w=w)}", "data": {"image_size": 16, "channels": 3}},
        "distill": {"epochs": 1, "losses": [{"kind": "kd"}]},
    }  # fmt: skip
    recipe = Recipe.model_validate(value)
    assert recipe.teacher is not None
    images = dataset.load(recipe.data)
    context = Context(recipe, "distill", tmp_path, {}, tmp_path / "log", Silent())
    network = networks.teacher(recipe.teacher, "teacher", context, images)
    assert isinstance(network, BlackBox)
    (seen,) = views.opened(recipe.teacher, recipe.data, images)
    x = seen.preprocessing.arrays(np.stack([seen.test.images[i] for i in range(4)]))
    np.testing.assert_allclose(network(torch.from_numpy(x)).numpy(), np.einsum("nchw,kchw->nk", x, w), atol=2e-2)


def test_several_processes_ask_an_ensemble_with_views_and_a_black_box(tmp_path: Path, make: Write, run: Write) -> None:
    """Two processes: what each of them keeps of the teachers is what these say, and the file is read by both."""
    w = np.random.default_rng(5).normal(size=(4, 1, 12, 12)).astype(np.float32)
    members = (
        "teacher={ensemble: [{model: edgekd:resnet10, name: large, data: {image_size: 16, channels: 3}, args: {width: 2}, "
        f"train: {{epochs: 1}}}}, {{model: 'onnx:{write_onnx(tmp_path / 't.onnx', w=w)}', name: file}}]}}"
    )
    recipe = make(members, "distill.losses=[{kind: kd}, {kind: fitnet, teacher: large}]", "quantize=null").recipe
    inputs = {name: run(TeacherStage(), node(recipe, name), name) for name in ("teacher.large", "teacher.file")}
    cold = run(DistillStage(), recipe, "cold", processes=2, **inputs)
    live = recipe.model_copy(update={"distill": recipe.distill.model_copy(update={"teacher_cache": False})})
    assert same(cold, run(DistillStage(), live, "live", processes=2, **inputs))
    assert not same(cold, run(DistillStage(), live, "alone", **inputs)), (
        "two processes see twice as many images at each step"
    )


def test_another_source_has_its_own_normalization() -> None:
    own = Data(source="npz:rgb.npz", mean=(0.5, 0.4, 0.3), std=(0.2,))
    recipe = Recipe.model_validate({"edgekd": 1, "data": own, "teacher": {"model": "edgekd:resnet10", "data": {}}})
    assert recipe.teacher is not None
    for change, mean in (
        ({"image_size": 64}, own.mean), ({"source": "npz:depth.npz"}, None), ({"channels": 1}, None),
        ({"source": "npz:depth.npz", "mean": (0.1,), "std": (0.2,)}, (0.1,)), ({"source": own.source}, own.mean),
    ):  # fmt: skip
        view = Recipe.model_validate(
            {"edgekd": 1, "data": own, "teacher": {"model": "edgekd:resnet10", "data": change}}
        ).teacher
        assert view is not None
        assert view.seen(own).mean == mean
        assert view.seen(view.seen(own)) == view.seen(own)


def shifted(y: np.ndarray) -> np.ndarray:
    changed = y.copy()
    changed[17] = (changed[17] + 1) % 4
    return changed


def test_other_samples_block_the_plan(make: Write, npz: Callable[..., str], arrays: Callable[..., Any]) -> None:
    fewer = npz("fewer.npz", train=76)
    other = npz("other.npz", changes={"y_train": shifted(arrays()["y_train"])})
    alike = npz("alike.npz", channels=3)
    for source, told in ((fewer, "train has 76 images; in"), (other, "train image 17 has label 2; in"), (alike, "")):
        steps = {step.name: step for step in plan.make(make("baselines=[student_alone]", f"teacher.data.source={source}"))}
        assert steps["teacher"].status == ("blocked" if told else "run")
        assert told in steps["teacher"].reason
        assert steps["student_alone"].status == "run"
        if told:
            assert f"{source}: {told} {make().recipe.data.source} it has" in steps["teacher"].reason


def test_image_folders_are_compared_by_their_names(tmp_path: Path) -> None:
    def folder(name: str, files: list[str]) -> Data:
        for file in files:
            path = tmp_path / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.zeros((8, 8), np.uint8)).save(path)
        return Data(source=f"imagefolder:{tmp_path / name}", image_size=8)

    stems = [f"{split}/{label}/{number}" for split in ("train", "test") for label in "ab" for number in range(3)]
    rgb = folder("rgb", [f"{stem}.png" for stem in stems])
    same_samples.same(rgb, folder("depth", [f"{stem}.jpg" for stem in stems]))
    other = folder("other", [f"{stem}.png".replace("train/b/1", "train/b/7") for stem in stems])
    with pytest.raises(DataError) as caught:
        same_samples.same(rgb, other)
    assert str(caught.value).startswith(f"{other.source}: train image 4 is train/b/2; in {rgb.source} it is train/b/1\n")


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("teacher.data.mean=[0.5]", "teacher.data.mean: mean is given without std"),
        ("teacher.data={image_size: 16, mean: [0.5, 0.5], std: [0.5]}", "teacher.data.mean: 2 numbers for 1 channel\n"),
        ("data.augment=[trivial]", "teacher.data.image_size: trivial moves images by whole pixels, which differs at"),
        ("distill.losses=[{kind: simkd}]", "distill.losses[0].kind: simkd copies the teacher's classifier"),
        ("teacher.data.source=images:.", "teacher.data.source: npz has labels and images has none"),
        ("teacher={model: outputs:o.npz, data: {channels: 3}}", "teacher.data: stored outputs take no images"),
    ],
)  # fmt: skip
def test_what_cannot_be(make: Write, override: str, told: str) -> None:
    with pytest.raises(RecipeError) as caught:
        make(override)
    assert told in str(caught.value)


def test_data_sets_of_torchvision_are_compared_before_anything_runs(
    make: Write, monkeypatch: pytest.MonkeyPatch, arrays: Callable[..., Any]
) -> None:
    """The plan does not open them."""
    content = arrays()
    raw = Raw(content["x_train"], shifted(content["y_train"]), content["x_test"], content["y_test"], tuple("abcd"))
    monkeypatch.setattr(reading, "read", lambda section, progress: raw)
    loaded = make("teacher.data.source=torchvision:CIFAR10")
    with pytest.raises(DataError, match="torchvision:CIFAR10: train image 17 has label 2; in npz:"):
        runner._check_views(loaded, plan.make(loaded))
