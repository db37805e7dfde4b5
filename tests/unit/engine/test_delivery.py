"""A format that cannot be written, a file that does not run, a side figure that fails: the rest is delivered."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from rich.console import Console
from tests.words import lacking, notes

from edgekd import cache
from edgekd.assembly import figures, networks
from edgekd.assembly.context import Context, read_output
from edgekd.assembly.outputs import ExportOutput
from edgekd.assembly.stage import perform
from edgekd.engine import plan, runner
from edgekd.errors import DeviceError, ExitCode, StageError, worst
from edgekd.exporting.exporter import Exported, Options, Source
from edgekd.loading import load
from edgekd.loading.loaded import Loaded
from edgekd.progress import Silent
from edgekd.registry import exporters
from edgekd.report.layouts import terminal
from edgekd.results import codec
from edgekd.results.run import read_run
from edgekd.stages.export import ExportStage

NET = """\
from torch import nn


def Net(num_classes):
    return nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.ReLU(), nn.Flatten(), nn.Linear(128, num_classes))
"""

RECIPE = """\
edgekd: 1
data: {source: npz:data.npz, image_size: 16}
student: {model: net.py:Net, weights: net.safetensors}
quantize: {method: ptq, calibration_images: 8}
export: [onnx, {format: tflite, io: int8}]
gates: {accuracy_drop: off} # a few images of noise
"""
PROFILE = "profile={warmup_runs: 1, warmup_ms: 0, blocks: 3, block_ms: 1, block_runs: 1}"


class Heard(Silent):
    """Keeps what was said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


def refuses(write: Callable[[], Exported]) -> Exported:
    raise RuntimeError("no kernel for Conv2d at features.0\nand more of the library's own words")


def needs_memory(write: Callable[[], Exported]) -> Exported:
    torch.empty(2**50)
    return write()


def misses_a_file(write: Callable[[], Exported]) -> Exported:
    Path("operators.json").read_text()
    return write()


def truncates(write: Callable[[], Exported]) -> Exported:
    exported = write()
    path = exported.paths[0]
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return exported


def fails_on_black(write: Callable[[], Exported]) -> Exported:
    """Add 0 · √(mean + 0.5) to the logits of an ONNX file: NaN on a black image alone."""
    exported = write()
    model = onnx.load(exported.paths[0])
    graph = model.graph
    number = {"half": -0.5, "zero": 0.0}
    graph.initializer.extend(onnx.numpy_helper.from_array(np.float32(value), name) for name, value in number.items())
    for node in graph.node:
        node.output[:] = ["before" if name == "logits" else name for name in node.output]
    graph.node.extend([
        onnx.helper.make_node("ReduceMean", [graph.input[0].name], ["mean"], keepdims=0),
        onnx.helper.make_node("Sub", ["mean", "half"], ["above"]),
        onnx.helper.make_node("Sqrt", ["above"], ["root"]),
        onnx.helper.make_node("Mul", ["root", "zero"], ["nothing"]),
        onnx.helper.make_node("Add", ["before", "nothing"], ["logits"]),
    ])  # fmt: skip
    onnx.save(model, exported.paths[0])
    return exported


@dataclass
class Project:
    """A recipe in a folder with a cache that all tests of this module share: what is finished is finished once."""

    folder: Path
    monkeypatch: pytest.MonkeyPatch
    heard: Heard = field(default_factory=Heard)

    def load(self, *overrides: str) -> Loaded:
        return load(self.folder / "small.yaml", overrides)

    def run(self, *overrides: str, interrupted: Callable[[], bool] = bool, without_devices: bool = False) -> runner.Outcome:
        self.heard.lines.clear()
        options = runner.Options(
            self.folder / "reports", self.heard, interrupted=interrupted, without_devices=without_devices
        )
        return runner.run(self.load(*overrides), options)

    def breaks(self, format: str, fault: Callable[..., Exported], *precisions: str) -> None:
        """Replace a format's exporter by somebody's: ``fault`` happens to its files of these precisions."""
        base: Any = exporters.get(format)

        class Own(base):
            def export(self, source: Source, path: Path, options: Options) -> Exported:
                write = partial(super().export, source, path, options)
                return fault(write) if options.precision in (precisions or ("int8", "float32")) else write()

        self.monkeypatch.setitem(exporters._entries, format, Own)

    def apart(self, name: str, *stages: str, of: Sequence[str] = ()) -> None:
        """From here on, use a copy of the shared cache, without these stages of the recipe with these overrides."""
        copy = self.folder / name
        if not copy.exists() and (self.folder / "cache").exists():
            shutil.copytree(self.folder / "cache", copy)
        self.monkeypatch.setenv("EDGEKD_CACHE", str(copy))
        keys = self.keys(*of)
        for stage in stages:
            if entry := cache.lookup(keys[stage])[0]:
                shutil.rmtree(entry.path)

    def keys(self, *overrides: str) -> dict[str, str]:
        return {step.name: step.key for step in plan.make(self.load(*overrides))}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("delivery")


@pytest.fixture
def project(shared: Path, arrays: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.setenv("EDGEKD_CACHE", str(shared / "cache"))
    if not (shared / "small.yaml").exists():
        images = arrays()
        images["x_test"][3] = 0  # one black image
        np.savez(shared / "data.npz", **images)
        (shared / "net.py").write_text(NET)
        names: dict[str, Any] = {}
        exec(NET, names)
        torch.manual_seed(0)
        networks.save(names["Net"](4).state_dict(), shared / "net.safetensors")
        (shared / "small.yaml").write_text(RECIPE)
    return Project(shared, monkeypatch)


def failed(outcome: runner.Outcome) -> dict[str, str]:
    return {stage.name: stage.reason for stage in outcome.result.stages if stage.status == "failed"}


def status(outcome: runner.Outcome) -> dict[str, str]:
    return {stage.name: stage.status for stage in outcome.result.stages}


def verdicts(outcome: runner.Outcome, model: str) -> set[str]:
    return {gate.verdict for gate in outcome.result.gates if gate.model == model and gate.level != "off"}


def files(outcome: runner.Outcome) -> set[str]:
    return {path.name for path in (outcome.folder / "artifacts").iterdir() if path.suffix in (".onnx", ".tflite", ".xml")}


def pages(outcome: runner.Outcome) -> dict[str, str]:
    console = Console(width=300, record=True, file=io.StringIO())
    terminal.show(outcome.result, console)
    names = ("report.html", "report.md", "artifacts/MODEL_CARD.md")
    return {name: (outcome.folder / name).read_text() for name in names} | {"terminal": console.export_text()}


def test_boards_that_do_not_answer_leave_this_machine(project: Project) -> None:
    """Both are asked at once, one of them in a process of its own, after this machine; nothing is lost with them."""
    (project.folder / "devices").mkdir(exist_ok=True)
    for name, port in (("pi4", 1), ("pi5", 2)):  # where nothing listens
        text = f"transport: ssh\nhost: nobody@127.0.0.1\nport: {port}\narch: aarch64\nisa: [asimd]\n"
        (project.folder / "devices" / f"{name}.yaml").write_text(text)
    recipe = PROFILE, "profile.devices=[host, pi4, pi5]", "quantize=null", "export=[onnx]"
    with pytest.raises(DeviceError, match=r"(?s)2 of 3 devices are not ready:\n  pi4: .*\n  pi5: "):
        project.run(*recipe)
    outcome = project.run(*recipe, without_devices=True)
    assert outcome.exit_code == ExitCode.DEVICE_FAILED
    assert {profile.device for profile in outcome.result.profiles} == {"host"}
    assert set(failed(outcome)) == {"profile.pi4", "profile.pi5"}
    assert all("cannot be reached" in reason for reason in failed(outcome).values())
    assert [(device.name, device.answered) for device in outcome.result.devices] == [
        ("host", True), ("pi4", False), ("pi5", False),
    ]  # fmt: skip
    assert any("profile.pi5: measured anew in every run; beside profile.pi4" in line for line in project.heard.lines)


def test_a_file_that_fails_on_a_device_is_told_and_the_others_stand(project: Project) -> None:
    """Its runtime is there and cannot be imported."""
    project.apart("whole")  # the others' exports are to fail
    for name in ("ai_edge_litert", "tflite_runtime", "tensorflow"):
        (project.folder / "broken" / name).mkdir(parents=True)
        (project.folder / "broken" / name / "__init__.py").write_text("raise SystemError('no')")
    (project.folder / "devices").mkdir(exist_ok=True)
    text = f"transport: host\nenv: {{PYTHONPATH: {project.folder / 'broken'}}}\nretries: 0\n"
    (project.folder / "devices" / "half.yaml").write_text(text)
    outcome = project.run(PROFILE, "profile.devices=[half]", without_devices=True)
    assert (outcome.exit_code, outcome.result.verdict) == (ExitCode.DEVICE_FAILED, "fail")
    assert {profile.model for profile in outcome.result.profiles} == {"onnx", "onnx_float"}
    assert [failure.model for failure in outcome.result.failures] == ["tflite", "tflite_float"]
    for page in pages(outcome).values():
        assert "failed on half" in page
    assert "2 files failed on a device" in pages(outcome)["terminal"]
    html = pages(outcome)["report.html"]
    assert html.count("SystemError: no") >= 4, "a line and a row each"


def test_a_format_that_fails_leaves_the_others(project: Project) -> None:
    """Stages after a failure have the keys of what they read: evaluated was what a recipe without the format has."""
    whole, rest = project.keys(), project.keys("export=[onnx]")
    assert whole["evaluate"] != rest["evaluate"]
    project.breaks("tflite", refuses)
    outcome = project.run(PROFILE)
    assert outcome.exit_code == ExitCode.STAGE_FAILED
    assert outcome.result.verdict == "fail"
    assert files(outcome) == {"onnx.onnx", "onnx_float.onnx"}
    assert {profile.model for profile in outcome.result.profiles} == {"onnx", "onnx_float"}
    assert verdicts(outcome, "onnx") == {"pass"}
    assert verdicts(outcome, "tflite") == {"not_measured"}
    assert set(failed(outcome)) == {"export.tflite", "export.tflite_float"}
    reason = failed(outcome)["export.tflite"]
    assert reason == (
        "RuntimeError: no kernel for Conv2d at features.0 → the full log is in logs/export.tflite.log; "
        "--set 'export=[onnx]' leaves it out"
    )
    assert "more of the library's own words" in (outcome.folder / "logs" / "export.tflite.log").read_text()
    for name, page in pages(outcome).items():
        assert "no kernel for Conv2d at features.0" in page, name
        assert "TFLite float32" in page or name.endswith("CARD.md"), name
    written = read_run(outcome.folder)
    assert written == outcome.result
    manifest = json.loads((outcome.folder / "artifacts" / "manifest.json").read_text())
    assert [model["name"] for model in manifest["artifacts"]] == ["onnx_float", "onnx"]
    told = runner.result_of(outcome)
    assert told["exit_code"] == 3
    assert told["failures"] == [{"stage": name, "reason": text} for name, text in failed(outcome).items()]
    student = outcome.result.model("student")
    assert student is not None
    assert student.macs == 16 * 8 * 48 + 128 * 4
    assert {stage.name: stage.key for stage in outcome.result.stages}["evaluate"] == rest["evaluate"]
    assert cache.lookup(whole["evaluate"])[0] is None
    assert cache.lookup(whole["export.tflite"])[0] is None
    again = project.run()  # the failure is tried again, and the rest is there
    assert {stage.name: stage.key for stage in again.result.stages}["package"] == rest["package"]
    assert status(again) == {
        "student": "cached", "quantize": "cached", "export.onnx_float": "cached", "export.onnx": "cached",
        "export.tflite": "failed", "export.tflite_float": "failed", "evaluate": "cached", "package": "ran",
    }  # fmt: skip


def test_a_companion_that_fails_is_a_row_and_no_failure(project: Project) -> None:
    project.breaks("openvino", refuses, "float32")
    outcome = project.run("export=[onnx, openvino]")
    assert set(failed(outcome)) == {"export.openvino_float"}
    assert outcome.exit_code == ExitCode.OK
    assert outcome.result.verdict == "pass"
    assert files(outcome) == {"onnx.onnx", "onnx_float.onnx", "openvino.xml"}
    for name, page in pages(outcome).items():
        assert "openvino_float: RuntimeError: no kernel for Conv2d" in page.replace("\\_", "_"), name


def test_a_companion_that_was_asked_for_is_no_companion(project: Project) -> None:
    project.breaks("tflite", refuses, "float32")
    outcome = project.run("export=[onnx, {format: tflite, precision: float32}]")
    assert outcome.exit_code == ExitCode.STAGE_FAILED
    assert "--set 'export=[onnx]' leaves it out" in failed(outcome)["export.tflite_float"]


def test_what_the_same_command_helps_is_said(project: Project) -> None:
    """Where memory was short; a failure that comes again the same way is not said to go on."""
    project.breaks("tflite", needs_memory, "int8")
    project.breaks("tflite", misses_a_file, "float32")
    reasons = failed(project.run())
    assert reasons["export.tflite"].startswith("export.tflite ran out of memory → end other programs")
    assert "run the same command: finished stages are kept" in reasons["export.tflite"]
    reason = reasons["export.tflite_float"]
    assert reason.startswith("FileNotFoundError: [Errno 2] No such file or directory: 'operators.json' → the full log is in")
    assert "same command" not in reason


def test_a_file_that_its_runtime_rejects_is_not_kept(project: Project) -> None:
    recipe = ("export=[onnx, openvino]",)
    project.apart("other", "export.onnx", "evaluate", of=recipe)
    project.breaks("onnx", truncates, "int8")
    outcome = project.run(*recipe)
    assert outcome.exit_code == ExitCode.STAGE_FAILED
    assert set(failed(outcome)) == {"export.onnx"}
    assert failed(outcome)["export.onnx"].startswith("running onnx.onnx failed: ")
    assert "INVALID_PROTOBUF" in failed(outcome)["export.onnx"]
    assert "openvino.xml" in files(outcome)
    assert verdicts(outcome, "openvino") == {"pass"}
    assert cache.lookup(project.keys(*recipe)["export.onnx"])[0] is None


def test_a_file_that_fails_on_a_later_image_does_not_stop_the_others(project: Project) -> None:
    recipe = ("export=[onnx, openvino]",)
    project.apart("other", "export.onnx", "evaluate", of=recipe)
    project.breaks("onnx", fails_on_black, "int8")
    outcome = project.run(*recipe)
    assert outcome.exit_code == ExitCode.STAGE_FAILED
    (reason,) = failed(outcome).values()
    assert reason.startswith("onnx.onnx gives NaN or infinity on sample 4 of 16, where torch does not")
    assert files(outcome) == {"onnx_float.onnx", "openvino.xml", "openvino_float.xml"}
    assert verdicts(outcome, "openvino") == {"pass"}
    assert verdicts(outcome, "onnx") == {"not_measured"}
    assert cache.lookup(project.keys(*recipe)["evaluate"])[0] is None
    assert status(project.run(*recipe))["evaluate"] == "cached"


def test_when_nothing_can_be_delivered_the_report_says_why(project: Project) -> None:
    project.apart("nothing", "export.onnx", "export.onnx_float", "evaluate")
    project.breaks("onnx", refuses)
    project.breaks("tflite", refuses)
    outcome = project.run(PROFILE)
    assert outcome.exit_code == ExitCode.STAGE_FAILED
    assert files(outcome) == set()
    assert outcome.result.profiles == ()
    assert "profile.host" not in status(outcome)
    for name, page in pages(outcome).items():
        assert "no kernel for Conv2d at features.0" in page, name
    assert not (outcome.folder / "artifacts" / "samples.npz").exists()


def test_an_interruption_is_not_a_format_that_fails(project: Project) -> None:
    project.breaks("tflite", refuses)
    with pytest.raises(StageError):
        project.run(interrupted=lambda: True)


def test_an_interruption_that_a_side_figure_swallowed_keeps_nothing(project: Project) -> None:
    signals: list[int] = []

    def interrupted(*_: object) -> None:
        signals.append(2)
        raise RuntimeError("a library's word for an interruption")

    project.monkeypatch.setattr("edgekd.models.build.macs", interrupted)
    project.apart("side", "evaluate", of=["export=[onnx]"])
    with pytest.raises(KeyboardInterrupt):
        project.run("export=[onnx]", interrupted=lambda: bool(signals))
    assert signals
    assert cache.lookup(project.keys("export=[onnx]")["evaluate"])[0] is None


def test_a_failed_device_and_a_missing_file_are_3_together() -> None:
    codes = ExitCode.GATE_FAILED, ExitCode.DEVICE_FAILED, ExitCode.STAGE_FAILED, ExitCode.INTERRUPTED
    assert [worst(codes[:count]) for count in range(5)] == [ExitCode.OK, *codes]
    assert worst(reversed(codes)) == ExitCode.INTERRUPTED


def test_side_figures_that_cannot_be_measured_end_no_run(project: Project) -> None:
    """MACs that cannot be counted, and layers that cannot be looked at."""

    def uncounted(*_: object) -> None:
        raise AssertionError("no rule for an operator")

    def unseen(*_: object, **__: object) -> None:
        raise NotImplementedError("no rule")

    project.monkeypatch.setattr("edgekd.models.build.macs", uncounted)
    project.monkeypatch.setattr("edgekd.quantization.sensitivity.measure", unseen)
    project.monkeypatch.setattr("edgekd.exporting.inside.look", unseen)
    project.apart("unseen", "quantize", "export.onnx", "evaluate", of=["export=[onnx]"])
    outcome = project.run("export=[onnx]")
    assert outcome.exit_code == ExitCode.OK
    student = outcome.result.model("student")
    assert student is not None
    assert student.macs is None
    assert files(outcome) == {"onnx.onnx", "onnx_float.onnx"}
    assert "MACs of student: AssertionError: no rule for an operator" in lacking(outcome.result)
    assert outcome.result.layers == ()
    assert "what int8 does to each layer: NotImplementedError: no rule" in lacking(outcome.result)
    assert any(line.startswith("layers in onnx: ") for line in lacking(outcome.result))


def test_a_repaired_file_without_its_like_all_in_int8_is_delivered(project: Project, tmp_path: Path) -> None:
    project.run("export=[onnx]")
    loaded = project.load("export=[onnx]")
    done = {step.name: step.entry.path for step in plan.make(loaded) if step.entry}
    shutil.copytree(done["quantize"], tmp_path / "quantize")
    (tmp_path / "quantize" / "all_int8.safetensors").write_bytes(b"damaged")
    (tmp_path / "out").mkdir()
    inputs = {"student": done["student"], "quantize": tmp_path / "quantize"}
    perform(ExportStage(), Context(loaded.recipe, "export.onnx", tmp_path / "out", inputs, tmp_path / "log", Silent()))
    assert read_output(ExportOutput, tmp_path / "out").all_int8 is None
    (line,) = notes(codec.read(figures.NotMeasured, tmp_path / "out" / figures.FILE).found)
    assert line.startswith("what keep_float costs in onnx: ")
    assert (tmp_path / "out" / "onnx.onnx").read_bytes() == (done["export.onnx"] / "onnx.onnx").read_bytes()


def test_the_lock_holds_what_the_machine_has_decided(project: Project) -> None:
    """Whoever replays it decides nothing again, and finds every stage."""
    project.apart("whole")
    lock = project.run().folder / "recipe.lock.yaml"
    replayed = load(lock)
    assert replayed.recipe.quantize is not None
    assert replayed.recipe.quantize.weight_bits in (7, 8)
    assert {step.status for step in plan.make(replayed) if step.node.stage.reused} == {"cached"}
