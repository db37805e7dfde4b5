"""A study run for real, at the smallest size: figures, failures, interruption, reports."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from edgekd import cli
from edgekd.assembly.context import Context
from edgekd.engine import plan
from edgekd.engine.runner import Options
from edgekd.errors import ExitCode, TrainingError
from edgekd.loading import load
from edgekd.progress import Silent
from edgekd.registry import exporters
from edgekd.report.missing import sentence
from edgekd.results.models import MetricFacts
from edgekd.results.run import SeedRecord, read_run
from edgekd.results.study import Row, judged
from edgekd.stages.distill import DistillStage
from edgekd.stages.teacher import TeacherStage
from edgekd.study import runner
from edgekd.study.loading import load_study
from edgekd.task.base import record, task_of

STUDY = """\
study: 1
seeds: 2
recipe:
  edgekd: 1
  data: {source: npz:data.npz, image_size: 16, val_fraction: 0.2}
  teacher: {model: edgekd:resnet10, args: {width: 4}, train: {epochs: 1}}
  student: {model: edgekd:resnet10, args: {width: 2}}
  distill: {epochs: 1, batch_size: 16}
methods:
  fitnet: [{kind: task}, {kind: fitnet}]
  broken: {distill: {lr: 1.0e+30, losses: [{kind: task}, {kind: fitnet}]}}
  long: {distill: {epochs: 2, losses: [{kind: kd}]}}
"""
TOP1 = MetricFacts("top1", "top-1", "%", "higher")


@pytest.fixture
def path(tmp_path: Path, arrays: Callable[..., dict[str, np.ndarray]]) -> Path:
    np.savez(tmp_path / "data.npz", **arrays())
    (tmp_path / "mine.yaml").write_text(STUDY)
    return tmp_path / "mine.yaml"


class Heard(Silent):
    """Keeps what was said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


def run(path: Path, *overrides: str, progress: Heard | None = None) -> runner.Outcome:
    options = Options(path.parent / "reports", progress or Silent())
    return runner.run(load_study(path, overrides), options, "mine.yaml")


class WellFormed(HTMLParser):
    """Fails where an element is not closed in its order."""

    VOID = frozenset({"meta", "link", "br", "hr", "input", "img"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: dict[str, int] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen[tag] = self.seen.get(tag, 0) + 1
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen[tag] = self.seen.get(tag, 0) + 1

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def row(method: str, values: list[float], role: str = "method") -> Row:
    seeds = tuple(SeedRecord("distilled", seed, 0.5, 0.5, value, value - 0.1) for seed, value in enumerate(values))
    return Row("pair", method, role, seeds=seeds)  # type: ignore[arg-type]  # roles are literals


def test_rows_are_ranked_and_compared_with_the_baselines() -> None:
    alone, kd = row("student_alone", [0.70, 0.72, 0.71], "baseline"), row("kd", [0.74, 0.75, 0.77], "baseline")
    good, bad = row("good", [0.90, 0.91, 0.93]), row("bad", [0.72, 0.71, 0.73])
    failed = Row("pair", "failed", "method", reason="the loss is nan")
    found = judged([alone, kd, failed, bad, good], TOP1)
    assert [own.method for own in found] == ["good", "kd", "bad", "student_alone", "failed"]
    assert [own.rank for own in found] == [(1, 1), (2, 4), (2, 4), (2, 4), None]
    best = found[0]
    assert best.last is not None
    assert best.last.mean == pytest.approx(np.mean([0.80, 0.81, 0.83]))
    assert best.gains is not None
    assert best.gains["kd"].gain.mean == pytest.approx(np.mean([0.16, 0.16, 0.16]))
    # Three rows are compared with the student alone: the smallest p is tripled.
    pairs = [stats.ttest_rel([s.test_kept for s in own.seeds], [0.70, 0.72, 0.71]).pvalue for own in (good, kd, bad)]
    assert best.gains["student_alone"].p == pytest.approx(pairs[0])
    assert min(pairs) == pairs[0]
    assert best.gains["student_alone"].p_holm == pytest.approx(3 * pairs[0])
    assert found[1].gains is not None
    assert set(found[1].gains) == {"student_alone"}, "kd is not compared with itself"
    assert found[3].gains == {}


def test_seeds_that_agree_leave_every_rank_open() -> None:
    """No interval is no certainty: rows whose seeds agree to the image are not told apart by it."""
    found = judged([row("a", [0.2, 0.2]), row("b", [0.21, 0.21]), row("c", [0.9, 0.9])], TOP1)
    assert [own.rank for own in found] == [(1, 3)] * 3


def test_methods_are_compared_with_the_one_that_is_a_baseline() -> None:
    alone, tuned = row("student_alone", [0.70, 0.72, 0.71], "baseline"), row("searched", [0.74, 0.75, 0.77], "baseline")
    found = {own.method: own for own in judged([alone, row("good", [0.90, 0.91, 0.93]), tuned], TOP1)}
    assert {name: set(own.gains or {}) for name, own in found.items()} == {
        "good": {"student_alone", "searched"}, "searched": {"student_alone"}, "student_alone": set(),
    }  # fmt: skip


def test_a_tuned_method_is_what_the_others_are_compared_with(path: Path) -> None:
    pytest.importorskip("optuna")
    kd = "distill: {losses: [{kind: task}, {kind: kd}]}"
    tune = "tune: {trials: 2, search: {'distill.losses[1].temperature': [2, 8]}}"
    outcome = run(path, f"methods={{searched: {{{kd}, {tune}}}, fitnet: [{{kind: fitnet}}]}}", "baselines=[searched]")
    assert outcome.exit_code == ExitCode.OK
    found = {own.method: own for own in outcome.result.rows}
    assert set(found) == {"searched", "fitnet"}
    assert set(found["fitnet"].gains or {}) == {"searched"}
    assert read_run(outcome.folder / found["searched"].folder).tuning is not None
    assert re.fullmatch(r"2 trials chose kd temperature [248]", found["searched"].other)
    page = (outcome.folder / "report.md").read_text()
    assert "Over searched" in page
    assert "searched: those that its own search found" in page


def test_tuned_kd_is_a_baseline_of_every_pair(path: Path) -> None:
    overrides = ("baselines=[tuned_kd]", "methods={fitnet: [{kind: fitnet}]}")
    outcome = run(path, *overrides)
    assert outcome.exit_code == ExitCode.OK
    rows = {own.method: own for own in outcome.result.rows}
    assert set(rows["fitnet"].gains or {}) == {"tuned_kd"}
    assert re.fullmatch(r"12 trials chose kd temperature [248], kd weight [\d.]+", rows["tuned_kd"].other)
    page = (outcome.folder / "report.md").read_text()
    assert "Over tuned kd" in page
    assert "tuned_kd: those that its own search found" in page
    loaded = load_study(path, overrides)
    found = {cell.name: cell for cell in runner.cells(loaded)}
    assert found["tuned_kd"].role == "baseline"
    searched = found["tuned_kd"].loaded.recipe
    assert searched.tune is not None
    assert searched.tune.sampler == "grid"
    assert "kd" not in found
    assert [step.name for step in plan.make(found["tuned_kd"].loaded)][:3] == ["teacher", "tune", "distill"]


def test_without_labels_no_student_learns_alone(path: Path) -> None:
    """As in a recipe; what top-1 is then stands among what was not measured."""
    given = "recipe.teacher={model: edgekd:resnet10, weights: given.safetensors}"
    losses = ["recipe.distill.losses=[{kind: kd}]", "methods={hints: [{kind: fitnet}]}"]
    loaded = load_study(path, ["recipe.data.labels=none", given, *losses])
    assert [cell.name for cell in runner.cells(loaded)] == ["teacher", "kd", "hints"]
    metrics = record(task_of("image-classification")).metrics
    limits = [sentence(limit, metrics) for limit in runner._limits(loaded)]
    assert [said for said in limits if "top-1 is agreement with the teacher" in said]
    assert [said for said in limits if said.startswith("the student alone:")]


def test_a_study_has_a_row_for_each_method_and_a_failed_one_does_not_end_it(path: Path) -> None:
    outcome = run(path, progress=(heard := Heard()))
    result = outcome.result
    assert "[3/5] distill.seed1, training 11 of 11: no earlier result" in heard.lines
    assert outcome.exit_code == ExitCode.STAGE_FAILED
    assert {own.method for own in result.rows} == {"student_alone", "kd", "fitnet", "broken", "long"}
    assert [own.method for own in result.failed] == ["broken"]
    assert re.fullmatch(r"distilled: the loss is .* → lower the learning rate \(now 1e\+30\) or .*", result.failed[0].reason)
    assert result.rows[-1].method == "broken"
    means = [own.test.mean for own in result.rows if own.test]
    assert means == sorted(means, reverse=True)
    long = next(own for own in result.rows if own.method == "long")
    assert long.other == "distill.epochs 1 → 2"
    assert (outcome.folder / long.folder / "recipe.lock.yaml").is_file()
    assert result.teachers[0].test is not None

    written = json.loads((outcome.folder / "study.json").read_text("utf-8"))
    assert [own["method"] for own in written["rows"]] == [own.method for own in result.rows]
    html, markdown = ((outcome.folder / name).read_text("utf-8") for name in ("report.html", "report.md"))
    page = WellFormed()
    page.feed(html)
    assert page.open == []
    assert page.seen["circle"] >= 2 * 4, "a dot for each row with figures, on a screen and on a phone"
    identifiers = re.findall(r' id="([^"]+)"', html)
    assert len(identifiers) == len(set(identifiers))
    for text in (html, markdown):
        assert "do not separate rows" in text
        assert "Holm" in text
        assert "lower the learning rate (now 1e+30)" in text
        assert "edgekd study mine.yaml" in text
    kd = next(own for own in result.rows if own.method == "kd")
    assert kd.test is not None
    assert kd.test.sd is not None
    assert f"{100 * kd.test.mean:.2f} ± {100 * kd.test.sd:.2f}" in markdown


def test_layers_that_are_not_there_are_told_together_before_anything_is_trained(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trained: list[object] = []
    for stage in (TeacherStage, DistillStage):
        monkeypatch.setattr(stage, "run", lambda stage, context: trained.append(context))
    monkeypatch.chdir(path.parent)
    pairs = "{one: {}, flat: {student: {model: 'net.py:flat', args: {}}}}"
    methods = (
        "{lost: [{kind: task}, {kind: fitnet, layers: {leyer1: layer1}}], fine: [{kind: kd}], minilm: [{kind: minilm}]}"
    )
    (path.parent / "net.py").write_text(
        "from torch import nn\n"
        "def flat(num_classes):\n"
        "    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(784, num_classes))\n"
    )
    with pytest.raises(SystemExit) as caught:
        cli.main(["study", "mine.yaml", "--set", f"pairs={pairs}", "--set", f"methods={methods}"])
    assert caught.value.code == ExitCode.USAGE
    said = capsys.readouterr().err
    lost, none = "the student has no layer 'leyer1' that gives a feature map", "the student has no self-attention that can"
    assert [line.partition(" be read")[0] for line in said.splitlines() if not line.startswith("  →")] == [
        f"mine.yaml: methods.lost: in the pair one, distill.losses[1] (fitnet): {lost}",
        f"mine.yaml: methods.minilm: in the pair one, distill.losses[0] (minilm): {none}",
        f"mine.yaml: methods.lost: in the pair flat, distill.losses[1] (fitnet): {lost}",
        f"mine.yaml: methods.minilm: in the pair flat, distill.losses[0] (minilm): {none}",
    ]
    assert "\n  → did you mean layer1?\n" in said
    assert trained == []
    assert not (path.parent / "reports").exists()


def test_what_else_is_wrong_with_a_method_does_not_keep_the_others_from_running(path: Path) -> None:
    (path.parent / "net.py").write_text("")
    methods = "{absent: {student: {model: 'net.py:net'}, distill: {losses: [{kind: fitnet}]}}, fine: [{kind: fitnet}]}"
    found = run(path, f"methods={methods}", "baselines=[]").result
    assert [(own.method, bool(own.reason)) for own in found.rows] == [("fine", False), ("absent", True)]


def test_an_interrupted_study_goes_on_where_it_stopped(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[int] = []
    whole = DistillStage.run

    def interrupted(stage: DistillStage, context: Context) -> object:
        if len(trained) == 3:
            raise KeyboardInterrupt
        trained.append(1)
        return whole(stage, context)

    monkeypatch.setattr(DistillStage, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(path, "methods={fitnet: [{kind: fitnet}]}")
    monkeypatch.setattr(DistillStage, "run", lambda stage, context: (trained.append(2), whole(stage, context))[1])
    again = run(path, "methods={fitnet: [{kind: fitnet}]}")
    assert trained == [1] * 3 + [2] * 3, "two seeds of two baselines and a method"
    assert again.exit_code == ExitCode.OK
    assert len([own for own in again.result.rows if own.test]) == 3


def test_an_interruption_that_a_library_made_a_failure_of_ends_the_study(path: Path) -> None:
    loaded = load_study(path, ["methods={broken: {distill: {lr: 1e30, losses: [{kind: kd}]}}}", "baselines=[]"])
    options = Options(path.parent / "reports", Silent())
    with pytest.raises(TrainingError, match="the loss is"):
        runner.run(loaded, options, "mine.yaml", interrupted=lambda: True)


def test_a_teacher_that_fails_is_trained_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []
    whole = TeacherStage.run
    monkeypatch.setattr(TeacherStage, "run", lambda stage, context: (tried.append(context.name), whole(stage, context))[1])
    result = run(path, "teacher.train={epochs: 2, batch_size: 16, lr: 1e30}").result
    reasons = {own.method: own.reason for own in result.rows}
    assert reasons.pop("student_alone") == ""
    assert all(reason.startswith("the teacher failed: teacher: the loss is ") for reason in reasons.values())
    assert tried == ["teacher"]


def test_the_student_alone_is_the_one_of_a_run(path: Path) -> None:
    """So a study reuses what runs have trained, and the other way round."""
    value = "\n".join(line[2:] for line in STUDY.splitlines() if line.startswith("  ") and "fitnet" not in line)
    recipe = path.parent / "one.yaml"
    recipe.write_text(
        re.sub(r"\n(broken|long):.*", "", value).replace("batch_size: 16}", "batch_size: 16, losses: [{kind: kd}]}")
    )
    of_run = {step.name: step.key for step in plan.make(load(recipe, ["baselines=[student_alone, kd]"]))}
    of_study = {cell.name: steps for cell, steps in runner.planned(load_study(path))}
    keys = {name: next(s.key for s in steps if s.name in ("distill", "teacher")) for name, steps in of_study.items()
            if name in ("student_alone", "teacher")}  # fmt: skip
    assert keys == {"student_alone": of_run["student_alone"], "teacher": of_run["teacher"]}


def test_a_study_that_ships_its_students(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each row is a whole run, to the file and its gates; it keeps its figures when one of its files is missing."""
    parts = ("artifacts=true", "recipe.quantize={method: ptq, calibration_images: 16}", "recipe.export=[onnx]",
             "recipe.gates={size_ratio: {max: 2}, accuracy_drop: off}")  # fmt: skip
    only = ("baselines=[]", "methods={fitnet: [{kind: task}, {kind: fitnet}]}")
    found = run(path, *only, *parts)
    assert found.exit_code == ExitCode.OK
    (fitnet,) = found.result.rows
    assert fitnet.folder
    folder = found.folder / fitnet.folder
    result = read_run(folder)
    assert result.verdict == "pass"
    assert {model.name for model in result.models} >= {"teacher", "distilled", "onnx", "onnx_float"}
    assert (folder / "artifacts" / "onnx.onnx").exists()

    class Refuses(exporters.get("openvino")):  # type: ignore[misc]  # a class by its name
        def export(self, *_: object) -> None:
            raise RuntimeError("no such operator")

    monkeypatch.setitem(exporters._entries, "openvino", Refuses)
    found = run(path, *only, *parts, "recipe.export=[onnx, openvino]")
    assert found.exit_code == ExitCode.STAGE_FAILED
    (own,) = found.result.rows
    assert own.test is not None
    assert own.reason == ""
    (missing,) = own.missing
    assert missing.startswith("OpenVINO int8 was not delivered: RuntimeError: no such operator")
    assert (found.folder / own.folder / "artifacts" / "onnx.onnx").exists()
    assert "RuntimeError: no such operator" in (found.folder / "report.md").read_text()


def test_on_the_command_line(path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(path.parent)
    only = ["--set", "methods={fitnet: [{kind: fitnet}]}", "--set", "baselines=[student_alone]"]

    def edgekd(*args: str) -> int:
        with pytest.raises(SystemExit) as caught:
            cli.main(args)
        assert isinstance(caught.value.code, int)
        return caught.value.code

    assert edgekd("check", "mine.yaml") == 0
    assert "ok, a study (pairs: 1, methods: 3, seeds: 2)" in capsys.readouterr().out
    assert edgekd("plan", "mine.yaml", *only) == 0
    assert "5 trainings to do, 0 in the cache" in capsys.readouterr().out
    assert edgekd("study", "mine.yaml", "--json", *only) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["ok"], said["exit_code"], len(said["study"]["rows"])) == (True, 0, 2)
    assert edgekd("plan", "mine.yaml", *only, "--json") == 0
    assert {step["status"] for step in json.loads(capsys.readouterr().out)} == {"cached"}
    assert edgekd("run", "mine.yaml") == 2
    assert "edgekd study mine.yaml" in capsys.readouterr().err
