"""Several seeds of a recipe: what is planned, what is trained, what the reports say."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tests.words import lacking

from edgekd.assembly import search
from edgekd.engine import plan, runner
from edgekd.loading import load
from edgekd.progress import Silent
from edgekd.report.layouts import markdown
from edgekd.results.run import read_run
from edgekd.stages import tune
from edgekd.statistics import paired

RECIPE = """\
edgekd: 1
data: {source: npz:data.npz, image_size: 16, val_fraction: 0.2}
teacher: {model: edgekd:resnet10, args: {width: 4}, train: {epochs: 1}}
student: {model: edgekd:resnet10, args: {width: 2}}
distill: {epochs: 2, batch_size: 16, losses: [{kind: task, weight: 0.5}, {kind: kd, temperature: 2, weight: 3, end_epoch: 1}, {kind: fitnet}]}
"""  # noqa: E501


@pytest.fixture
def recipe(tmp_path: Path, arrays: Callable[..., dict[str, np.ndarray]]) -> Path:
    np.savez(tmp_path / "data.npz", **arrays())
    path = tmp_path / "small.yaml"
    path.write_text(RECIPE)
    return path


def keys(recipe: Path, *overrides: str) -> dict[str, str]:
    return {step.name: step.key for step in plan.make(load(recipe, overrides))}


def test_each_seed_is_a_stage_of_its_own(recipe: Path) -> None:
    assert list(keys(recipe, "seeds=3", "baselines=[student_alone, kd]")) == [
        "teacher",
        *(f"{stage}{seed}" for stage in ("student_alone", "kd", "distill") for seed in ("", ".seed1", ".seed2")),
        "evaluate",
        "package",
    ]


def test_more_seeds_reuse_what_was_trained(recipe: Path) -> None:
    one, three = keys(recipe), keys(recipe, "seeds=3")
    assert {name: three[name] for name in ("teacher", "student_alone", "distill")} == {
        name: one[name] for name in ("teacher", "student_alone", "distill")
    }
    assert len({three[name] for name in ("distill", "distill.seed1", "distill.seed2")}) == 3


def test_a_seed_is_the_same_stage_wherever_it_is_asked_for(recipe: Path) -> None:
    """With the same teacher, whose seed is its own."""
    second = keys(recipe, "seed=1", "teacher.seed=0")
    assert keys(recipe, "seeds=2")["distill.seed1"] == second["distill"]


def test_int8_and_files_are_of_the_first_seed(recipe: Path) -> None:
    overrides = ("quantize={epochs: 1}", "export=[onnx]")
    one, two = keys(recipe, *overrides), keys(recipe, "seeds=2", *overrides)
    same = ("quantize", "export.onnx", "export.onnx_float")
    assert {name: one[name] for name in same} == {name: two[name] for name in same}


def test_baselines_left_out_have_no_seeds_either(recipe: Path) -> None:
    assert list(keys(recipe, "seeds=2", "baselines=[]"))[1:3] == ["distill", "distill.seed1"]


def test_kd_is_the_recipes_own_without_the_other_losses(recipe: Path) -> None:
    found = next(node for node in plan.nodes(load(recipe, ["baselines=[kd]"]).recipe) if node.name == "kd")
    assert found.recipe.distill is not None
    task, kd = found.recipe.distill.losses
    assert (task.kind, task.weight) == ("task", 0.5)
    assert (kd.kind, kd.weight, kd.temperature, kd.end_epoch) == ("kd", 3.0, 2.0, None)  # type: ignore[attr-defined]


def test_kd_has_its_defaults_where_the_recipe_has_none(recipe: Path) -> None:
    loaded = load(recipe, ["baselines=[kd]", "distill.losses=[{kind: fitnet}]"])
    found = next(node for node in plan.nodes(loaded.recipe) if node.name == "kd")
    assert found.recipe.distill is not None
    assert [(loss.kind, loss.weight) for loss in found.recipe.distill.losses] == [("task", 1.0), ("kd", 1.0)]


def test_kd_that_is_distilled_anyway_is_trained_once(recipe: Path) -> None:
    found = keys(recipe, "baselines=[kd]", "distill.losses=[{kind: task}, {kind: kd}]")
    assert found["kd"] == found["distill"]


def test_tuned_kd_is_searched_as_the_recipe_searches_or_in_a_grid(recipe: Path) -> None:
    own = "tune={sampler: random, trials: 5, epochs: 1, metric: last_val_top1, search: {distill.lr: [0.1, 0.01]}}"
    temperature, weight = "distill.losses[1].temperature", "distill.losses[1].weight"
    for overrides, sampler, count in (([], "grid", 13), ([own], "random", 5)):
        loaded = load(recipe, ["baselines=[tuned_kd]", *overrides])
        found = {node.name: node for node in plan.nodes(loaded.recipe)}
        assert found["tuned_kd"].inputs == ("teacher", "tune.kd")
        searched = found["tune.kd"].recipe
        assert searched.tune is not None
        assert (searched.tune.sampler, list(searched.tune.search)) == (sampler, [temperature, weight])
        assert search.count(searched) == count  # of the grid twelve, and the recipe's own values
        assert ("tune" in found) == bool(overrides)
        assert found["distill"].inputs == (("teacher", "tune") if overrides else ("teacher",))
    assert searched.tune.epochs == 1
    assert searched.tune.metric == "last"


def test_tuned_kd_has_its_best_values_and_stands_in_the_comparison(recipe: Path) -> None:
    own = "tune={sampler: random, trials: 3, search: {distill.lr: [0.001, 0.0001]}}"
    loaded = load(recipe, ["seeds=2", "baselines=[tuned_kd]", own])
    outcome = runner.run(loaded, runner.Options(recipe.parent / "reports", Silent()))
    found = {step.name: step.entry.path for step in plan.make(loaded) if step.entry is not None}
    curves = {curve.model: curve.val["top1"] for curve in outcome.result.curves}
    for stage, model in (("tune.kd", "tuned_kd"), ("tune", "distilled")):
        assert curves[model] == tune.read(found[stage]).chosen.val
    assert outcome.result.model("tuned_kd") is not None
    assert [row.seed for row in outcome.result.seeds if row.model == "tuned_kd"] == [0, 1]
    text = (outcome.folder / "report.md").read_text("utf-8")
    assert "− Tuned kd" in text
    assert "The baseline tuned_kd: tuned on 16 validation images: kd temperature" in text
    assert "Not tuned" not in text


def test_a_run_tells_what_the_seeds_have_in_common(recipe: Path) -> None:
    loaded = load(recipe, ["seeds=2", "baselines=[student_alone, kd]"])
    outcome = runner.run(loaded, runner.Options(recipe.parent / "reports", Silent()))
    rows = outcome.result.seeds
    assert [(row.model, row.seed) for row in rows] == [
        (model, seed) for model in ("student_alone", "kd", "distilled") for seed in (0, 1)
    ]
    first = next(row for row in rows if row.model == "distilled")
    student = outcome.result.student()
    assert student is not None
    assert first.test_kept == student.figure("top1", split="test").value
    assert first.val_kept == student.figure("top1", split="val").value
    assert outcome.result.model("kd") is not None
    assert {curve.model for curve in outcome.result.curves} == {"teacher", "student_alone", "kd", "distilled"}
    assert read_run(outcome.folder) == outcome.result
    assert not any("one seed" in text for text in lacking(outcome.result))
    assert any("same teacher" in text for text in lacking(outcome.result))

    ours, theirs = ([row.test_last for row in rows if row.model == name] for name in ("distilled", "student_alone"))
    mean = 100 * paired(ours, theirs).gain.mean
    text = (outcome.folder / "report.md").read_text("utf-8")
    line = next(line for line in text.splitlines() if "− Student alone" in line and "last" in line)
    assert f"{mean:+.2f}".replace("-", "−").replace("+0.00", "0.00") in line
    assert f"± {100 * np.std(theirs, ddof=1):.2f}" in text
    assert text == markdown.render(outcome.result)


def test_a_second_run_trains_the_new_seed_alone(recipe: Path) -> None:
    options = runner.Options(recipe.parent / "reports", Silent())
    runner.run(load(recipe, ["seeds=2", "baselines=[]"]), options)
    again = runner.run(load(recipe, ["seeds=3", "baselines=[]"]), options)
    status = {stage.name: stage.status for stage in again.result.stages}
    assert status["distill"] == status["distill.seed1"] == status["teacher"] == "cached"
    assert status["distill.seed2"] == "ran"


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core")
def test_all_seeds_of_the_baseline_train_beside_the_others(recipe: Path) -> None:
    """In a process of their own, with the same result."""
    loaded = load(recipe, ["seeds=2"])
    beside = runner.run(loaded, runner.Options(recipe.parent / "reports", Silent(), threads=2))
    assert [row.seed for row in beside.result.seeds if row.model == "student_alone"] == [0, 1]
    status = {stage.name: stage.status for stage in beside.result.stages}
    assert status["student_alone"] == status["student_alone.seed1"] == "ran"
