"""What is refused without labels, and without images: before anything is trained, with what to write instead."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekd import loading
from edgekd.engine import plan
from edgekd.errors import RecipeError
from edgekd.loading.loaded import Loaded
from edgekd.registry import losses

TEACHER = "teacher: {model: edgekd:resnet10, weights: edgekd:fashion-mnist-resnet10}"
FOLDER = 'data: {source: "images:photos", classes: 4}'
FREE = "data: {source: synthetic, classes: 4, mean: [0.5], std: [0.25]}"
READING = {"task", "dkd", "tf_kd", "byot"}


def text(data: str = FOLDER, teacher: str = TEACHER, terms: str = "{kind: kd}", more: str = "quantize: {epochs: 1}") -> str:
    student = "student: {model: edgekd:resnet10}"
    return f"edgekd: 1\n{data}\n{teacher}\n{student}\ndistill: {{epochs: 1, losses: [{terms}]}}\n{more}\nexport: [onnx]\n"


def loaded(recipe: str) -> Loaded:
    return loading.load_text(recipe, Path("r.yaml"), "r.yaml")


def refused(recipe: str) -> str:
    with pytest.raises(RecipeError) as caught:
        loaded(recipe)
    return str(caught.value)


@pytest.mark.parametrize("data", [FOLDER, FREE, "data: {source: fashion-mnist-mini, labels: none}"])
def test_distillation_without_labels_is_a_recipe(data: str) -> None:
    names = [node.name for node in plan.nodes(loaded(text(data)).recipe)]
    assert "student_alone" not in names
    assert {"teacher", "distill", "quantize", "export.onnx", "evaluate"} <= set(names)
    assert ("synthesize" in names) == (data == FREE)


def test_the_losses_that_read_labels_say_so() -> None:
    reading = {name for name in losses.names() if losses.get(name).reads_labels}
    assert reading >= READING
    source = {
        name: Path(__import__(losses.get(name).__module__, fromlist=["x"]).__file__).read_text() for name in losses.names()
    }
    for name in losses.names():
        if "batch.target" not in source[name]:
            assert name not in reading


@pytest.mark.parametrize("kind", sorted(READING))
@pytest.mark.parametrize("data", [FOLDER, FREE, "data: {source: fashion-mnist-mini, labels: test}"])
def test_a_loss_that_reads_labels_is_refused(kind: str, data: str) -> None:
    told = refused(text(data, terms=f"{{kind: kd}}, {{kind: {kind}}}"))
    assert f"distill.losses[1].kind: {kind} reads labels, and these training images have none" in told
    assert "use {kind: kd}" in told


def test_one_that_weighs_nothing_is_not() -> None:
    assert loaded(text(terms="{kind: kd}, {kind: task, weight: 0}"))


def test_an_ensemble_is_not_weighted_by_labels() -> None:
    one = "{model: edgekd:resnet10, weights: edgekd:fashion-mnist-resnet10}"
    assert "teacher.combine: confidence reads labels" in refused(
        text(teacher=f"teacher: {{combine: confidence, ensemble: [{one}, {one}]}}")
    )


def test_a_teacher_that_learns_from_labels_is_refused() -> None:
    told = refused(text(teacher="teacher: {model: edgekd:resnet10, train: {epochs: 1}}"))
    assert "teacher.train: training with hard labels needs labels" in told


def test_gates_of_accuracy() -> None:
    assert loaded(text(more="gates: {accuracy_drop: {max: 0.1}}\nquantize: {method: ptq}"))
    assert "gates.top1: accuracy needs labels" in refused(text(more="gates: {top1: {min: 0.5}}"))
    hidden = "data: {source: fashion-mnist-mini, labels: test}"
    assert loaded(text(hidden, more="gates: {top1: {min: 0.5}}"))


@pytest.mark.parametrize(
    ("data", "teacher", "told"),
    [
        ("data: {source: synthetic, classes: 4}", TEACHER, "data.mean: there is no image to compute mean and std from"),
        ("data: {source: synthetic, mean: [0.5], std: [0.2]}", TEACHER, "data.classes: these images have no labels"),
        (FREE, "", "data.source: images are made from a trained network, and the recipe has none"),
        (FREE, "teacher: {model: onnx:t.onnx}", "teacher.model: images are made from a network's layers"),
        (FREE, "teacher: {model: edgekd:resnet10, train: {epochs: 1}}", "teacher.train: images are made"),
        (FREE.replace("std", "labels: none, std"), TEACHER, "data.labels: these images have no labels"),
        (
            "data: {source: synthetic, classes: 4, mean: [0.5, 0.5, 0.5], std: [0.2], synthetic: {grey: true}}",
            TEACHER, "data.synthetic.grey: grey images have one mean and one std",
        ),
        ('data: {source: random, classes: 4}', TEACHER, "distill: noise cannot teach a student"),
    ],
)  # fmt: skip
def test_what_images_cannot_be_made_from(data: str, teacher: str, told: str) -> None:
    assert told in refused(text(data, teacher, more=""))


def test_int8_of_a_given_student_without_any_image() -> None:
    recipe = (
        f"edgekd: 1\n{FREE}\nstudent: {{model: edgekd:resnet10, weights: edgekd:fashion-mnist-resnet10}}\n"
        "quantize: {method: ptq}\nexport: [onnx]\n"
    )
    names = [node.name for node in plan.nodes(loaded(recipe).recipe)]
    assert names[:3] == ["student", "synthesize", "quantize"]
