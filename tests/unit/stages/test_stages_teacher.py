"""Who teaches: chains of teachers, for real, on few images."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from edgekd.assembly.context import OUTPUT, Context, read_output
from edgekd.assembly.outputs import DistillOutput, TeacherOutput
from edgekd.assembly.stage import perform
from edgekd.engine import plan
from edgekd.progress import Lines, Silent
from edgekd.recipe import Recipe
from edgekd.report.findings import sentence
from edgekd.results import codec
from edgekd.stages import distill, package
from edgekd.stages.teacher import TeacherStage
from edgekd.task.base import record, task_of

STAGES = ("teacher", "distill", "quantize", "evaluate")
TRAIN = {"epochs": 1, "batch_size": 16, "warmup_epochs": 0}
NET: dict[str, Any] = {"model": "edgekd:resnet10", "args": {"width": 4, "stem_stride": 2}}
TAUGHT = TRAIN | {"losses": [{"kind": "task"}, {"kind": "kd"}, {"kind": "fitnet"}]}


@pytest.fixture(autouse=True)
def _global_state() -> Iterator[None]:
    yield
    torch.use_deterministic_algorithms(False)


def make(source: str, section: dict[str, Any], **changes: Any) -> Recipe:
    value: dict[str, Any] = {
        "edgekd": 1,
        "data": {"source": source, "image_size": 16},
        "teacher": section,
        "student": NET | {"args": {"width": 2, "stem_stride": 2}},
        "distill": TAUGHT,
    }
    return Recipe.model_validate(value | changes)


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., dict[str, Path]]:
    """Run all stages of a recipe that are in STAGES; returns their folders."""

    def call(recipe: Recipe, progress: Any = None, until: str = "") -> dict[str, Path]:
        done: dict[str, Path] = {}
        root = tmp_path / str(len(list(tmp_path.iterdir())))
        for node in plan.nodes(recipe):
            if node.stage.name not in STAGES:
                continue
            out = done[node.name] = root / node.name
            out.mkdir(parents=True)
            inputs = {name: done[name] for name in node.inputs}
            context = Context(node.recipe, node.name, out, inputs, tmp_path / "log", progress or Silent())
            perform(node.stage, context)
            if node.name == until:
                break
        return done

    return call


def first_layer(folder: Path) -> torch.Tensor:
    return load_file(folder / "weights.safetensors")["stem.0.weight"]


def test_an_assistant_is_taught_and_then_teaches(run: Callable[..., dict[str, Path]], npz: Callable[..., str],
                                                capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    large = NET | {"args": {"width": 10, "stem_stride": 2}, "train": TRAIN}
    recipe = make(npz(), NET | {"distill": TAUGHT, "teacher": large})
    done = run(recipe, Lines())
    said = capsys.readouterr().err
    assert list(done) == ["teacher.teacher", "teacher", "student_alone", "distill", "evaluate"]
    curve = json.loads((done["teacher"] / "output.json").read_text())["curve"]
    assert curve["model"] == "teacher"
    assert list(curve["terms"]) == ["task", "kd", "fitnet"]
    assert curve["pairs"][0] == "fitnet: layer1 (4 ch) ← layer1 (10 ch) at 8×8"
    learnt = json.loads((done["distill"] / "output.json").read_text())["curve"]
    assert learnt["pairs"][0] == "fitnet: layer1 (2 ch) ← layer1 (4 ch) at 8×8"  # from the assistant
    # the teacher's file is as it was, and each network stands in the accuracy table, in the order of training
    measured = json.loads((done["evaluate"] / "output.json").read_text())["models"]
    assert list(measured) == ["teacher.teacher", "teacher", "student_alone", "distilled"]
    assert measured["teacher.teacher"]["params"] > measured["teacher"]["params"] > measured["distilled"]["params"]
    assert "small_student: share" in said
    context = Context(recipe, "package", done["distill"].parent, done, done["distill"].parent / "log", Silent())
    assert any("assistant" in sentence(line) for line in package.teaching(context))
    soft = json.loads((done["distill"] / "output.json").read_text())["taught"]["softness"]
    assert [(term["term"], term["temperature"]) for term in soft] == [("kd", 4.0)]
    assert 0 < soft[0]["entropy"] <= 1
    assert [record["model"] for record in json.loads((done["evaluate"] / "output.json").read_text())["copied"]] == [
        "student_alone", "distilled",
    ]  # fmt: skip


def test_a_temperature_that_washes_out_is_told(run: Callable[..., dict[str, Path]], npz: Callable[..., str],
                                              capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    losses = [{"kind": "kd", "temperature": 1000}, {"kind": "dkd", "temperature": 1e-6}, {"kind": "fitnet"}]
    recipe = make(npz(), NET | {"train": TRAIN}, distill=TRAIN | {"losses": losses, "lr": 1e-9}, baselines=())
    done = run(recipe, Lines(), until="distill")
    said = capsys.readouterr().err
    assert "flat_temperature: temperature 1000" in said
    assert "sharp_temperature: temperature 1e-06" in said
    context = Context(recipe, "package", done["distill"].parent, done, done["distill"].parent / "log", Silent())
    assert sum("temperature" in sentence(line) for line in package.teaching(context)) == 2


@pytest.mark.parametrize("method", ["qat", "none"])
def test_several_teachers(run: Callable[..., dict[str, Path]], npz: Callable[..., str], method: str) -> None:
    """Three members, one of them taught by a teacher of its own; the ensemble has a row, and no stage."""
    section = {"combine": "confidence", "ensemble": [
        NET | {"train": TRAIN}, NET | {"train": TRAIN},
        NET | {"name": "taught", "distill": TRAIN | {"losses": [{"kind": "kd"}]}, "teacher": NET | {"train": TRAIN}},
    ]}  # fmt: skip
    losses = [{"kind": "kd"}, {"kind": "kd", "teacher": "resnet10"}, {"kind": "fitnet", "teacher": "taught"}]
    quantize = {"method": "qat", "epochs": 1} if method == "qat" else None
    recipe = make(npz(), section, distill=TRAIN | {"losses": losses}, quantize=quantize, baselines=())
    done = run(recipe)
    trained = ["teacher.resnet10", "teacher.resnet10_2", "teacher.taught.teacher", "teacher.taught"]
    assert [name for name in done if name.startswith("teacher")] == trained
    assert not torch.equal(first_layer(done["teacher.resnet10"]), first_layer(done["teacher.resnet10_2"]))
    curve = json.loads((done["distill"] / "output.json").read_text())["curve"]
    assert list(curve["terms"]) == ["kd", "kd_2", "fitnet"]
    assert curve["pairs"][0] == "fitnet: layer1 (2 ch) ← taught.layer1 (4 ch) at 8×8"
    if method == "qat":
        assert list(json.loads((done["quantize"] / "output.json").read_text())["curve"]["terms"]) == ["kd", "kd_2", "fitnet"]
        return
    measured = json.loads((done["evaluate"] / "output.json").read_text())["models"]
    assert list(measured) == [*trained, "teacher", "distilled"]
    assert measured["teacher"]["params"] == 3 * measured["teacher.resnet10"]["params"]


def test_how_teachers_are_combined_decides_the_lessons(npz: Callable[..., str]) -> None:
    section = {"ensemble": [NET | {"train": TRAIN}, NET | {"train": TRAIN}]}
    plain, sure = (make(npz(), section | {"combine": rule}) for rule in ("probabilities", "confidence"))
    assert distill.config(plain) != distill.config(sure)
    assert distill.config(distill.alone(plain)) == distill.config(distill.alone(sure))
    assert TeacherStage().config(
        make(npz(), NET | {"distill": TAUGHT, "teacher": section}), "teacher"
    ) != TeacherStage().config(make(npz(), NET | {"distill": TAUGHT, "teacher": section | {"combine": "logits"}}), "teacher")


def test_a_weak_teacher_is_told(run: Callable[..., dict[str, Path]], npz: Callable[..., str]) -> None:
    recipe = make(npz(), NET | {"train": TRAIN})
    done = run(recipe, until="distill")
    context = Context(recipe, "package", done["distill"], done, done["distill"] / "log", Silent())
    for name, top1 in (("student_alone", 0.5), ("teacher", 0.25)):
        kind = DistillOutput if name == "student_alone" else TeacherOutput
        found = read_output(kind, done[name])
        codec.write(replace(found, curve=replace(found.curve, val={"top1": (top1,)})), done[name] / OUTPUT)
    found = read_output(DistillOutput, done["distill"])
    codec.write(replace(found, taught=replace(found.taught, val_score=0.25)), done["distill"] / OUTPUT)
    metrics = record(task_of(recipe.task)).metrics
    assert any("the student alone top-1 50.0 %" in sentence(line, metrics) for line in package.teaching(context))


def test_generations_of_one_network_start_from_other_weights(
    run: Callable[..., dict[str, Path]], npz: Callable[..., str]
) -> None:
    still = TRAIN | {"lr": 1e-30, "weight_decay": 0.0}
    taught = {"distill": still | {"losses": [{"kind": "kd"}]}}
    recipe = make(npz(), NET | taught | {"teacher": NET | taught | {"teacher": NET | {"train": still}}})
    done = run(recipe, until="teacher")
    generations = [first_layer(done[name]) for name in ("teacher.teacher.teacher", "teacher.teacher", "teacher")]
    assert not any(torch.allclose(a, b, atol=1e-3) for a, b in ((generations[0], generations[1]), generations[1:]))
    seeded = run(make(npz(), NET | {"train": still, "seed": 2}), until="teacher")
    assert torch.allclose(first_layer(seeded["teacher"]), generations[2], atol=1e-6)


def test_the_same_bytes_twice(run: Callable[..., dict[str, Path]], npz: Callable[..., str]) -> None:
    recipe = make(npz(), NET | {"distill": TAUGHT, "teacher": NET | {"train": TRAIN}})
    first, second = run(recipe, until="teacher"), run(recipe, until="teacher")
    assert (first["teacher"] / "last.safetensors").read_bytes() == (second["teacher"] / "last.safetensors").read_bytes()
