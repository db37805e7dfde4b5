"""The whole chain for real: recipe in, proven int8 files and a report out."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from selenium import webdriver
from tests.browser import assert_clean, browser  # noqa: F401  # a fixture is used by its name
from tests.e2e.conftest import BLOCKS, Cli, Run

from edgekd.artifacts import against, found
from edgekd.profiling.variant import Variant
from edgekd.results.run import read_run

pytestmark = pytest.mark.e2e

INT8 = ("onnx", "tflite", "openvino")
FLOAT = ("onnx_float", "tflite_float", "openvino_float")


def test_every_network_and_every_file_is_in_the_result(chain: Run) -> None:
    result = read_run(chain.folder)
    assert result.verdict == "pass"
    assert {model.name for model in result.models} == {"teacher", "student_alone", "distilled", "qat", *INT8, *FLOAT}
    assert all(model.measured() is not None for model in result.models)
    assert {profile.model for profile in result.profiles} == {*INT8, *FLOAT}
    assert {profile.images for profile in result.profiles} == {8}, "latency is measured on test images"
    assert [stage.name for stage in result.stages][-2:] == ["profile.host", "package"]


def test_a_run_can_be_compared_with(chain: Run) -> None:
    result = read_run(chain.folder)
    assert {(chain.folder / profile.samples).name for profile in result.profiles} == {"host.jsonl"}
    assert {profile.attempts for profile in result.profiles} == {()}, "tests do not wait until times are steady"
    files = found.files([chain.folder])
    assert all(file.bundle for file in files)
    assert {file.record.name: file.record.content for file in files} == {
        model.name: model.content for model in result.models if model.role == "artifact"
    }
    before = against.find(chain.folder, files, [Variant(file.record.name, file.format, file.path) for file in files])
    assert (before.refusals, before.again, len(before.pairs)) == ({}, {}, len(files))
    for told in against.comparisons(before, result.profiles, chain.folder / "samples", result.devices):
        assert told.verdict == "no difference shown" or told.reasons[-1].code == "not_trusted"


@pytest.mark.parametrize("name", INT8)
def test_an_int8_file_is_the_torch_int8_model(chain: Run, name: str) -> None:
    model = read_run(chain.folder).model(name)
    assert model is not None
    assert model.parity is not None
    assert model.parity.reference == "qat"
    assert model.parity.n == 400
    assert model.parity.agreement >= 0.995
    assert model.parity.p99_lsb is not None
    assert model.parity.p99_lsb <= 2
    assert model.float_ops == ()


def test_tflite_holds_no_float_tensor(chain: Run) -> None:
    model = read_run(chain.folder).model("tflite")
    assert model is not None
    assert model.float_tensors == ()
    assert model.inputs[0].dtype == model.outputs[0].dtype == "int8"


def test_int8_files_are_small(chain: Run) -> None:
    result = read_run(chain.folder)
    float32 = result.model("onnx_float")
    assert float32 is not None
    assert float32.bytes is not None
    for name in INT8:
        model = result.model(name)
        assert model is not None
        assert model.bytes is not None
        assert model.bytes <= 0.30 * float32.bytes


@pytest.mark.parametrize("name", [*INT8, *FLOAT])
def test_a_load_snippet_reproduces_the_accuracy(chain: Run, name: str, tmp_path: Path) -> None:
    """From any folder, with the class of an image of one's own."""
    model = read_run(chain.folder).model(name)
    assert model is not None
    artifacts = chain.folder / "artifacts"
    with np.load(artifacts / "samples.npz", allow_pickle=False) as samples:
        Image.fromarray(samples["images"][7][0]).save(tmp_path / "mine.png")
        first = read_run(chain.folder).data.classes[int(samples[f"logits_{name}"][7].argmax())]
    done = subprocess.run(
        [sys.executable, artifacts / f"load_{name}.py", "mine.png"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == [f"top-1 {model.figure('top1').value:.4f}", first]


def test_the_manifest_hashes_every_file(chain: Run) -> None:
    artifacts = chain.folder / "artifacts"
    manifest = json.loads((artifacts / "manifest.json").read_text())
    files = manifest["files"]
    assert {model["path"] for model in manifest["artifacts"]} <= {*files}, "relative to its own folder"
    assert {*files, "manifest.json", "MODEL_CARD.md"} == {path.name for path in artifacts.iterdir()}
    for name, facts in files.items():
        assert hashlib.sha256((artifacts / name).read_bytes()).hexdigest() == facts["sha256"]


def test_expected_outputs_travel_with_the_samples(chain: Run) -> None:
    with np.load(chain.folder / "artifacts" / "samples.npz", allow_pickle=False) as samples:
        assert samples["images"].shape == (400, 1, 32, 32)
        for name in INT8:
            top1 = float((samples[f"logits_{name}"].argmax(1) == samples["labels"]).mean())
            model = read_run(chain.folder).model(name)
            assert model is not None
            assert top1 == model.figure("top1").value


def test_weights_load_into_the_plain_torchvision_model(chain: Run) -> None:
    """The student comes out clean: no wrapper, no prefix."""
    import torch
    from safetensors.torch import load_file

    from edgekd.models.torchvision import import_torchvision

    model = import_torchvision().models.mobilenet_v2(num_classes=10, inverted_residual_setting=BLOCKS)
    model.load_state_dict(load_file(chain.folder / "artifacts" / "distilled.safetensors"))
    assert model.eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 10)


def test_a_second_run_computes_nothing_and_gives_the_same_files(chain: Run) -> None:
    """Devices are measured again each time: test_api.py."""
    done = chain.cli("run", "small.yaml", "--json", "--set", "profile=null")
    again = json.loads(done.stdout)
    assert (again["ok"], again["exit_code"]) == (True, 0)
    status = {stage["name"]: stage["status"] for stage in again["run"]["stages"]}
    assert {name for name, value in status.items() if value == "ran"} == {"package"}
    first = {model.name: model.sha256 for model in read_run(chain.folder).models}
    assert {model["name"]: model.get("sha256") for model in again["run"]["models"]} == first


def test_the_lock_replays_the_run(chain: Run) -> None:
    steps = json.loads(chain.cli("plan", str(chain.folder / "recipe.lock.yaml"), "--json").stdout)
    keys = {stage.name: stage.key for stage in read_run(chain.folder).stages}
    assert {step["stage"]: step["key"] for step in steps} == keys
    assert {step["status"] for step in steps if step["stage"] not in ("profile.host", "package")} == {"cached"}


def test_a_change_runs_only_what_it_touches(chain: Run) -> None:
    steps = json.loads(chain.cli("plan", "small.yaml", "--set", "quantize.epochs=2", "--json").stdout)
    status = {step["stage"]: step["status"] for step in steps}
    assert status["distill"] == status["teacher"] == status["student_alone"] == status["export.onnx_float"] == "cached"
    assert status["quantize"] == status["export.onnx"] == status["evaluate"] == "run"
    reasons = {step["stage"]: step["reason"] for step in steps}
    assert reasons["quantize"] == "quantize.epochs 1 → 2"
    assert reasons["export.tflite"] == "quantize runs"


def test_nothing_but_lines_when_not_a_terminal(chain: Run) -> None:
    assert "\x1b" not in chain.stderr
    assert "\r" not in chain.stderr
    assert "fitnet: features.1 (16 ch) ← layer1 (8 ch) at 16×16" in chain.stderr
    assert "[1/13] teacher: no earlier result" in chain.stderr


def test_the_same_seed_gives_the_same_bytes(chain: Run, tmp_path: Path) -> None:
    """Another cache, so that everything is trained and exported again."""
    fresh = Cli(chain.cli.folder, tmp_path / "cache")
    parts = ("--set", "baselines=[]", "--set", "profile=null", "--set", "export=[onnx]")
    done = fresh("run", "small.yaml", "--json", "--out", str(tmp_path), *parts)
    first = {model.name: model.sha256 for model in read_run(chain.folder).models}
    again = {model["name"]: model.get("sha256") for model in json.loads(done.stdout)["run"]["models"]}
    assert again.keys() == {"teacher", "distilled", "qat", "onnx", "onnx_float"}
    assert again.items() <= first.items()
    assert sum(sha256 is not None for sha256 in again.values()) == 4


def test_the_gate_decides_the_exit_code(chain: Run) -> None:
    done = chain.cli("run", "small.yaml", "--set", "gates.top1.min=0.999", "--set", "profile=null", code=1)
    assert done.stdout.startswith("✕ FAIL")
    assert "✕ ONNX int8: Top-1 accuracy is" in done.stdout


def test_report_is_written_again_from_run_json(chain: Run) -> None:
    page = chain.folder / "report.html"
    before = page.read_bytes()
    page.unlink()
    chain.cli("report", str(chain.folder))
    assert page.read_bytes() == before


def test_the_report_in_a_browser(chain: Run, browser: webdriver.Chrome) -> None:  # noqa: F811  # the fixture
    page = chain.folder / "report.html"
    assert page.stat().st_size < 500_000
    assert_clean(browser, page)
