"""The search for the values of a distillation, for real, on few images."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from tests.conftest import make_arrays

from edgekd import cache
from edgekd.assembly import search
from edgekd.assembly.context import OUTPUT, Context
from edgekd.assembly.outputs import TrialOutput
from edgekd.assembly.stage import perform
from edgekd.data import fingerprint
from edgekd.engine import plan, runner
from edgekd.errors import EdgekdError, ModelError, StageError, StorageError, TrainingError
from edgekd.loading import load, tuned
from edgekd.loading.loaded import Loaded
from edgekd.loading.tuned import at, with_values
from edgekd.metrics.base import facts
from edgekd.metrics.classification import Top1
from edgekd.progress import Lines, Silent
from edgekd.report import findings
from edgekd.results import codec
from edgekd.results.run import Curve, RunResult, read_run
from edgekd.results.tuning import TrialRecord, TuningRecord
from edgekd.stages import tune
from edgekd.stages.distill import DistillStage
from edgekd.stages.teacher import TeacherStage
from edgekd.stages.tune import TuneStage

KD, WEIGHT, LAYERS, LR = (
    "distill.losses[1].temperature",
    "distill.losses[1].weight",
    "distill.losses[2].layers",
    "distill.lr",
)
NET: dict[str, Any] = {"model": "edgekd:resnet10", "args": {"width": 4, "stem_stride": 2}}
SEARCH = {KD: {"low": 1, "high": 8}, WEIGHT: {"low": 0.1, "high": 10, "log": True}, LAYERS: ["early", "late"]}
SHORT = {"batch_size": 16, "warmup_epochs": 0}


@pytest.fixture(autouse=True)
def _global_state() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(threads)


def maker(source: str, folder: Path) -> Callable[..., Loaded]:
    """Write a recipe into the folder and load it."""

    def make(search: dict[str, Any] = SEARCH, *overrides: str, **options: Any) -> Loaded:
        value = {
            "edgekd": 1,
            "data": {"source": source, "image_size": 16},
            "teacher": NET | {"train": SHORT | {"epochs": 1}},
            "student": NET | {"args": {"width": 2, "stem_stride": 2}},
            "distill": SHORT | {"epochs": 2, "losses": [{"kind": "task"}, {"kind": "kd"}, {"kind": "fitnet"}]},
            "tune": {"epochs": 1, "search": search} | options,
        }
        path = folder / "searched.yaml"
        path.write_text(yaml.safe_dump(value, sort_keys=False))
        return load(path, overrides)

    return make


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("images") / "data.npz"
    np.savez(file, **make_arrays())
    return f"npz:{file}"


@pytest.fixture
def recipe(tmp_path: Path, source: str) -> Callable[..., Loaded]:
    return maker(source, tmp_path)


def run(loaded: Loaded, out: Path, progress: Any = None) -> RunResult:
    return runner.run(loaded, runner.Options(out, progress or Silent(), threads=1)).result


@dataclass(frozen=True)
class Whole:
    """A search from its beginning to its end, in a cache of its own."""

    result: RunResult
    cache: Path
    teacher: Path
    """The teacher's output, in this cache."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, source: str) -> Whole:
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEKD_CACHE", str(folder / "cache"))
        loaded = maker(source, folder)(SEARCH, "baselines=[]", trials=4)
        result = run(loaded, folder / "reports")
        (key,) = [step.key for step in plan.make(loaded) if step.name == "teacher"]
        entry, why = cache.lookup(key)
        assert entry is not None, why
        return Whole(result, folder / "cache", entry.path)


@pytest.fixture
def taught(whole: Whole) -> Path:
    """Put the teacher into this test's cache, and nothing else; its output is returned."""
    copy = cache.root() / whole.teacher.relative_to(whole.cache)
    shutil.copytree(whole.teacher, copy)
    return copy


def record(number: int, score: float | None, **values: Any) -> TrialRecord:
    return TrialRecord(number, values, "failed" if score is None else "done", 1.0, score)


# --- which values are tried -------------------------------------------------------------------------------------------


def test_a_grid_begins_with_the_recipes_own_values_and_the_last_key_changes_fastest(recipe: Callable[..., Loaded]) -> None:
    grid = {KD: [2, 4], "distill.losses[0].weight": {"low": 0.5, "high": 1.1, "step": 0.5}, LAYERS: ["auto", "late"]}
    found = recipe(grid, sampler="grid").recipe
    done: list[TrialRecord] = []
    tried = []
    for number in range(1, search.count(found) + 1):
        values = search.suggest(found, done)
        tried.append(tuple(values.values()))
        done.append(TrialRecord(number, values, "done", 1.0, 0.5))
    assert tried == [
        (4.0, 1.0, "auto"),
        (2, 0.5, "auto"), (2, 0.5, "late"), (2, 1.0, "auto"), (2, 1.0, "late"),
        (4, 0.5, "auto"), (4, 0.5, "late"), (4, 1.0, "late"),
    ]  # fmt: skip


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_sampled_values_are_of_the_space_and_follow_from_seed_and_trials(
    recipe: Callable[..., Loaded], sampler: str
) -> None:
    space = SEARCH | {
        "distill.batch_size": {"low": 8, "high": 32},
        "distill.losses[0].weight": {"low": 1, "high": 2, "step": 0.5},
    }
    found = recipe(space, sampler=sampler).recipe

    def walk(of: Any) -> list[dict[str, Any]]:
        done: list[TrialRecord] = []
        for number in range(1, 13):
            values = search.suggest(of, done)
            done.append(TrialRecord(number, values, "done", 1.0, -abs(float(values[KD]) - 2)))
        return [dict(trial.values) for trial in done]

    tried = walk(found)
    assert search.count(found) == 12
    assert tried[0] == tuned.own(found)
    for values in tried[1:]:
        assert 1 <= values[KD] <= 8
        assert 0.1 <= values[WEIGHT] <= 10
        assert values[LAYERS] in ("early", "late")
        assert isinstance(values["distill.batch_size"], int)
        assert values["distill.losses[0].weight"] in (1.0, 1.5, 2.0)
        with_values(found, values)
    assert walk(found) == tried
    assert walk(found.model_copy(update={"seed": 1})) != tried


def test_tpe_goes_where_it_was_good_and_away_from_what_failed(recipe: Callable[..., Loaded]) -> None:
    """Against random values with the same seeds: the scores are of a peak at a temperature of 2."""
    nearness: dict[str, float] = {}
    for sampler in ("random", "tpe"):
        found = recipe({KD: {"low": 1, "high": 8}, LR: [1e-3, 1e9]}, sampler=sampler, trials=30).recipe
        done: list[TrialRecord] = []
        for number in range(1, 31):
            values = search.suggest(found, done)
            score = None if values[LR] == 1e9 else 1 - abs(values[KD] - 2) / 10
            done.append(TrialRecord(number, values, "done" if score else "failed", 1.0, score))
        nearness[sampler] = sum(trial.score or 0 for trial in done[-15:]) / 15
    assert nearness["tpe"] > nearness["random"] + 0.1


def test_without_optuna_a_plan_says_so_and_a_grid_still_goes(
    recipe: Callable[..., Loaded], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "find_spec", lambda name: None)
    blocked = {step.name: step.reason for step in plan.make(recipe()) if step.status == "blocked"}
    assert "needs Optuna, which is not installed" in blocked["tune"]
    assert "pip install 'edgekd[tune]'" in blocked["tune"]
    with pytest.raises(StageError, match="needs Optuna"):  # before the teacher is trained
        run(recipe(), tmp_path / "reports")
    assert not (cache.root() / "stages").exists()
    assert not [step for step in plan.make(recipe({KD: [2, 4]}, sampler="grid")) if step.status == "blocked"]


# --- the stage --------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("taught")
def test_a_run_uses_the_best_values_and_tells_all_trials(
    recipe: Callable[..., Loaded], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loaded = recipe({LR: [1e-12, 4e-3], KD: [2, 4]}, "distill.lr=1e-12", sampler="grid")
    assert [(step.name, step.note) for step in plan.make(loaded) if step.name == "tune"] == [("tune", "4 trials")]
    result = run(loaded, tmp_path / "reports", Lines())
    said = capsys.readouterr().err
    found = result.tuning
    assert found is not None
    assert [stage.name for stage in result.stages][:4] == ["teacher", "student_alone", "tune", "distill"]
    assert [dict(trial.values) for trial in found.trials] == [
        {LR: 1e-12, KD: 4.0}, {LR: 1e-12, KD: 2}, {LR: 4e-3, KD: 2}, {LR: 4e-3, KD: 4},
    ]  # fmt: skip
    assert found.chosen.values[LR] == 4e-3
    assert found.chosen.score == max(trial.score or 0 for trial in found.trials) > (found.trials[0].score or 0)
    assert all(len(trial.val) == found.epochs == 1 for trial in found.trials)
    assert found.images == result.data.val
    # the distilled student has the values that were chosen, the one alone those of the recipe
    rates = {curve.model: curve.lr[0] for curve in result.curves}
    assert rates["distilled"] > 1e-3
    assert rates["student_alone"] < 1e-11
    assert "trial 4/4: lr 0.004, kd temperature 4:" in said
    assert re.search(r"chosen: lr 0\.004, kd temperature [24] \(", said)
    # run.json, both reports and the card tell it
    folder = next((tmp_path / "reports" / "searched").glob("0001-*"))
    assert read_run(folder).tuning == found
    report = (folder / "report.md").read_text()
    assert "Not tuned: Student alone, with the recipe's own values." in report
    assert f"| {found.best} (chosen) | 0.004 |" in report
    assert 'id="trials-w-t"' in (folder / "report.html").read_text()
    # the lock replays: all from the cache
    again = run(load(folder / "recipe.lock.yaml"), tmp_path / "reports")
    assert {stage.status for stage in again.stages if stage.name not in ("package",)} == {"cached"}
    assert again.tuning == found


@pytest.mark.usefixtures("taught")
def test_an_interrupted_search_goes_on_with_the_next_trial(
    recipe: Callable[..., Loaded], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: Whole
) -> None:
    loaded = recipe(SEARCH, "baselines=[]", trials=4)
    assert whole.result.tuning is not None
    expected = whole.result.tuning.trials
    trained: list[dict[str, Any]] = []
    train = DistillStage.run

    def interrupted(stage: DistillStage, context: Any) -> object:
        if context.name == "trial":
            if len(trained) == 2:
                raise KeyboardInterrupt
            trained.append(tuned.own(context.recipe.model_copy(update={"tune": loaded.recipe.tune})))
        return train(stage, context)

    monkeypatch.setattr(DistillStage, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(loaded, tmp_path / "half")
    assert not list((cache.root() / "scratch").iterdir())
    (step,) = [step for step in plan.make(loaded) if step.name == "tune"]
    assert (step.status, step.note) == ("run", "4 trials, 2 of them done")
    trained.append({})  # past the interruption
    found = run(loaded, tmp_path / "half").tuning
    assert found is not None
    assert trained == [dict(t.values) for t in expected[:2]] + [{}] + [dict(t.values) for t in expected[2:]]
    assert [replace(t, seconds=0) for t in found.trials] == [replace(t, seconds=0) for t in expected]
    # a longer search begins where this one ended
    (step,) = [step for step in plan.make(recipe(SEARCH, "baselines=[]", trials=6)) if step.name == "tune"]
    assert step.note == "6 trials, 4 of them done"


@pytest.mark.usefixtures("taught")
@pytest.mark.parametrize("failure", [StorageError("the disk is full"), ModelError("net.py cannot be imported")])
def test_what_the_values_did_not_cause_ends_the_search_and_the_same_command_goes_on(
    recipe: Callable[..., Loaded], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: EdgekdError
) -> None:
    loaded = recipe({KD: [2, 8]}, "baselines=[]", sampler="grid")
    train, trained = DistillStage.run, list[str]()

    def fails_at_the_second_trial(stage: DistillStage, context: Any) -> object:
        trained.append(context.name)
        if trained == ["trial", "trial"]:
            raise failure
        return train(stage, context)

    monkeypatch.setattr(DistillStage, "run", fails_at_the_second_trial)
    with pytest.raises(type(failure), match=failure.message):
        run(loaded, tmp_path / "reports")
    found = run(loaded, tmp_path / "reports").tuning
    assert trained == ["trial", "trial", "trial", "trial", "distill"], "the second trial again, and the third"
    assert found is not None
    assert [trial.state for trial in found.trials] == ["done"] * 3


@pytest.mark.usefixtures("taught")
def test_a_trial_of_layers_that_are_not_there_fails_and_the_run_does_not(
    recipe: Callable[..., Loaded], tmp_path: Path
) -> None:
    losses = "distill.losses=[{kind: task}, {kind: kd}, {kind: minilm, weight: 0}]"
    found = run(
        recipe({"distill.losses[2].weight": [0, 1]}, losses, "baselines=[]", sampler="grid"), tmp_path / "out"
    ).tuning
    assert found is not None
    assert [trial.state for trial in found.trials] == ["done", "failed"]
    assert found.trials[1].reason.startswith("distill.losses[2] (minilm): the student has no self-attention")


@pytest.mark.usefixtures("taught")
def test_values_that_cannot_be_together_are_a_trial_that_fails_untried(
    recipe: Callable[..., Loaded], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin, end, other = "distill.losses[1].start_epoch", "distill.losses[1].end_epoch", "distill.losses[2].weight"
    space = {begin: [0, 1], end: [1, 2], "distill.losses[0].weight": [0, 1], WEIGHT: [0, 1], other: [0, 1]}
    losses = "distill.losses=[{kind: task}, {kind: kd, end_epoch: 2}, {kind: attention_transfer}]"
    trained: list[str] = []
    train = DistillStage.run

    def counted(stage: DistillStage, context: Any) -> object:
        trained.append(context.name)
        return train(stage, context)

    monkeypatch.setattr(DistillStage, "run", counted)
    found = run(recipe(space, losses, "baselines=[]", sampler="random", epochs=2, trials=12), tmp_path / "reports").tuning
    assert found is not None
    impossible = {
        "distill.losses[1].end_epoch: this term ends at epoch 1, before it begins at 1",
        "distill.losses: all weights are 0",
        "distill.losses: there is a teacher but no loss uses it",
    }
    assert {trial.reason for trial in found.trials if trial.state == "failed"} == impossible
    tried = {tuple(trial.values.values()) for trial in found.trials if trial.state == "done"}
    assert trained == ["trial"] * len(tried) + ["distill"]
    longer = recipe(space, losses, sampler="random", epochs=2, trials=40)
    (step,) = [step for step in plan.make(longer) if step.name == "tune"]
    done = re.fullmatch(r"40 trials, (\d+) of them done", step.note)
    assert done
    assert int(done[1]) >= 12


def test_the_same_seed_gives_the_same_bytes(recipe: Callable[..., Loaded], tmp_path: Path, whole: Whole) -> None:
    """Each run trains its teacher, too."""
    found = []
    for result in (whole.result, run(recipe(SEARCH, "baselines=[]", trials=4), tmp_path / "again")):
        assert {stage.status for stage in result.stages} == {"ran"}
        assert result.tuning is not None
        sha256 = next(model.sha256 for model in result.models if model.name == "distilled")
        found.append((sha256, [replace(trial, seconds=0) for trial in result.tuning.trials], result.tuning.best))
    assert found[0] == found[1]


@pytest.mark.usefixtures("taught")
def test_a_trial_that_diverges_fails_and_the_run_does_not(recipe: Callable[..., Loaded], tmp_path: Path) -> None:
    result = run(recipe({LR: [1e30, 4e-3]}, "baselines=[]", sampler="grid"), tmp_path / "reports")
    assert result.tuning is not None
    failed = result.tuning.trials[1]
    assert (failed.state, failed.score) == ("failed", None)
    assert "the loss is" in failed.reason
    assert result.tuning.chosen.values[LR] < 1
    assert any("1 of 3 trials could not be trained: 2" in line for line in findings.sentences(result))
    report = next((tmp_path / "reports" / "searched").glob("0001-*")) / "report.md"
    assert "✕ failed (the loss is" in report.read_text()


@pytest.mark.usefixtures("taught")
def test_a_search_of_which_nothing_can_be_trained_fails(recipe: Callable[..., Loaded], tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="none of 3 trials could be trained; the first: the loss is"):
        run(recipe({LR: [1e30, 1e31]}, "distill.lr=1e32", "baselines=[]", sampler="grid"), tmp_path / "reports")


SMALL = "model: edgekd:resnet10, args: {width: 3, stem_stride: 2}"
ONE = "train: {epochs: 1, batch_size: 16, warmup_epochs: 0}"
TEACHERS = {
    "peers": ("teacher=null", f"distill.peers=[{{{SMALL}}}]"),
    "another view": ("teacher.data={image_size: 24}",),
    "ensemble": (f"teacher={{ensemble: [{{name: a, {SMALL}, {ONE}}}, {{name: b, {SMALL}, {ONE}}}]}}",),
}


@pytest.mark.parametrize("parts", TEACHERS.values(), ids=TEACHERS)
def test_a_search_whoever_teaches(recipe: Callable[..., Loaded], tmp_path: Path, parts: tuple[str, ...]) -> None:
    losses = "distill.losses=[{kind: task}, {kind: kd}]"
    result = run(recipe({KD: [2, 8]}, losses, "baselines=[]", *parts, trials=2, sampler="random"), tmp_path / "reports")
    assert result.tuning is not None
    assert [trial.state for trial in result.tuning.trials] == ["done", "done"]
    student = result.student()
    assert student is not None
    assert student.measured() is not None


def test_the_search_decides_the_student_and_not_the_one_alone(recipe: Callable[..., Loaded]) -> None:
    def keys(loaded: Loaded) -> dict[str, str]:
        return {step.name: step.key for step in plan.make(loaded)}

    before = keys(recipe())
    now = keys(recipe(trials=5))
    same = {name for name in before if before[name] == now[name]}
    assert same == {"teacher", "student_alone"}
    assert {"tune", "distill", "evaluate"} <= before.keys() - same


def test_what_a_recipe_declares_decides_a_trial(recipe: Callable[..., Loaded], tmp_path: Path) -> None:
    (tmp_path / "native.bin").write_text("1")
    found = recipe(SEARCH, f"reads=[{tmp_path}/native.bin]").recipe
    values = search.suggest(found, [])
    before = tune._material(found, values, {}, "", 1)
    (tmp_path / "native.bin").write_text("2")
    assert tune._material(found, values, {}, "", 1) != before


@pytest.mark.parametrize(("metric", "expected"), [("best_val_top1", 0.75), ("last_val_top1", 0.5)])
def test_what_decides(recipe: Callable[..., Loaded], tmp_path: Path, metric: str, expected: float) -> None:
    curve = Curve("distilled", {}, {}, {"top1": (0.25, 0.75, 0.5)}, (), 1, 1.0)
    codec.write(TrialOutput(curve), tmp_path / OUTPUT)
    found = tune._read(cache.Entry(tmp_path, 1.0), recipe(metric=metric).recipe, 1, {})
    assert (found.score, found.val) == (expected, (0.25, 0.75, 0.5))


def test_trials_in_several_processes(recipe: Callable[..., Loaded], tmp_path: Path) -> None:
    """As the stage that follows them: with the values and the epochs of a trial it learns what that has learnt."""
    found = recipe({KD: [2, 6]}, "distill.epochs=1", sampler="random", trials=1).recipe
    done: dict[str, Path] = {}
    for name, stage, processes in (("teacher", TeacherStage(), 1), ("tune", TuneStage(), 2), ("distill", DistillStage(), 2)):
        out = tmp_path / name
        out.mkdir()
        perform(stage, Context(found, name, out, done, tmp_path / "log", Silent(), processes=processes))
        done = {**done, name: out}
    (trial,) = tune.read(done["tune"]).trials
    assert trial.state == "done"
    inputs, data_key = {"teacher": "teacher"}, fingerprint.of(found.data)
    assert [tune.finished(found, inputs, data_key, processes) for processes in (1, 2)] == [0, 1], "one learns another"
    assert list(trial.val) == json.loads((done["distill"] / "output.json").read_text())["curve"]["val"]["top1"]


def test_torchrun_is_refused_before_anything_is_trained(
    recipe: Callable[..., Loaded], monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = recipe()
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    (reason,) = [step.reason for step in plan.make(loaded) if step.name == "tune"]
    assert "torchrun" in reason


# --- what is said -----------------------------------------------------------------------------------------------------


def test_how_sure_the_choice_is() -> None:
    """√(0.8 · 0.2 / 400) = 0.02: 0.785 is near, 0.77 is not."""
    trials = (
        record(1, 0.77, a=1.0, b="x"),
        record(2, 0.8, a=2.0, b="x"),
        record(3, 0.785, a=5.0, b="y"),
        record(4, None, a=9.0, b="y"),
    )
    found = TuningRecord("tpe", facts(Top1()), "best", 2, 400, {"a": "kd temperature", "b": "layers"}, (), trials, 2)
    assert found.error == pytest.approx(0.02)
    assert [trial.number for trial in found.near] == [3]
    assert list(findings.search(found)) == [
        "tuned on 400 validation images: kd temperature 2, layers x (80.0 % in trial 2 of 4, "
        "77.0 % with the values as written)",
        "one other trial is within one standard error (2.0 points) of the best, with kd temperature 2 to 5; layers x or y: "
        "the choice between them is mostly chance",
        "1 of 4 trials could not be trained: 4",
    ]


def test_values_reach_the_recipe_as_the_schema_has_them(recipe: Callable[..., Loaded]) -> None:
    found = recipe().recipe
    changed = with_values(found, {KD: 2, LAYERS: "late"})
    assert (at(changed, KD), at(changed, LAYERS), at(changed, WEIGHT)) == (2.0, "late", 1.0)
    assert with_values(found, tuned.own(found)) == found
