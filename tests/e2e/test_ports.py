"""Networks with several inputs and outputs, from data to the report: trained and distilled, and with given weights."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from tests.unit.artifacts.packing import with_lock
from tests.words import lacking

import edgekd
from edgekd import registry
from edgekd.artifacts import pack
from edgekd.artifacts.profile import Settings
from edgekd.errors import DataError
from edgekd.evaluation import device_checks
from edgekd.evaluation.device_checks import Expected
from edgekd.metrics.base import Metric
from edgekd.metrics.classification import CrossEntropy, Top1
from edgekd.recipe.profile import Profile
from edgekd.report.findings import sentence
from edgekd.report.verdict import verdict
from edgekd.results.run import RunResult
from edgekd.task.base import Port, Signature
from edgekd.task.image_classification import ImageClassification

NETS = """
import torch
from torch import nn


class Seen(nn.Module):
    # a picture and facts of it -> classes, and where in the picture
    def __init__(self, num_classes, width=4):
        super().__init__()
        self.stem, self.body = nn.Conv2d(3, width, 3, 2, 1), nn.Conv2d(width, width, 3, 1, 1)
        self.facts, self.head = nn.Linear(5, width), nn.Linear(width, num_classes)

    def forward(self, picture, facts):
        where = self.body(self.stem(picture).relu()).relu()
        return {"logits": self.head(where.mean((2, 3)) + self.facts(facts).relu()), "where": where}


class Read(nn.Module):
    # words, which of them count, and a signal -> values, and a mean
    def __init__(self, values, width=8):
        super().__init__()
        self.words, self.signal = nn.Embedding(20, width), nn.Linear(12, width)
        self.out, self.beside = nn.Linear(width, values), nn.Linear(width, 2)

    def forward(self, ids, mask, signal):
        weights = mask.float().unsqueeze(-1)
        text = (self.words(ids) * weights).sum(1) / weights.sum(1)
        hidden = (text + self.signal(signal.flatten(1))).relu()
        return {"values": self.out(hidden), "beside": self.beside(hidden)}
"""
PROFILE = {"devices": ["host"], "warmup_runs": 1, "warmup_ms": 0, "blocks": 3, "block_ms": 5, "block_runs": 2}
SEEN = {
    "edgekd": 2,
    "threads": 1,
    "task": "picture-with-facts",
    "data": {"source": "npz:seen.npz"},
    "teacher": {"model": "nets.py:Seen", "args": {"width": 8}, "train": {"epochs": 3, "batch_size": 16, "lr": 0.02}},
    "student": {"model": "nets.py:Seen", "outputs": "all"},
    "baselines": [],
    "distill": {"epochs": 3, "batch_size": 16, "lr": 0.02, "losses": [{"kind": "task"}, {"kind": "kd"}]},
    "quantize": {"method": "qat", "epochs": 1},
    "export": [{"format": "tflite", "io": "int8"}, "openvino"],
    "profile": PROFILE,
    "gates": {"parity_lsb_p99": {"max": 2}, "accuracy_drop": {"level": "off"}},  # 30 test samples decide nothing
}
READ = {
    "edgekd": 2,
    "threads": 1,
    "task": "values-of-text",
    "data": {"source": "npz:read.npz"},
    "student": {"model": "nets.py:Read", "weights": "read.pt", "outputs": "all"},
    "baselines": [],
    "quantize": {"method": "ptq"},
    "export": ["onnx", "openvino"],
    "gates": {"parity_lsb_p99": {"max": 2}},
}
UNEVEN = {
    **{key: value for key, value in READ.items() if key != "profile"},
    "student": {"model": "nets.py:Read", "weights": "uneven.pt", "outputs": "all"},
    "export": ["onnx"],
}
TAUGHT = {
    **{key: READ[key] for key in ("edgekd", "threads", "task", "data", "baselines", "gates")},
    "teacher": {"model": "outputs:outputs.npz"},
    "student": {"model": "nets.py:Read"},
    "distill": {"epochs": 3, "batch_size": 16, "lr": 0.02, "losses": [{"kind": "mse_logits"}]},
}
FORMATS = {"seen": ("tflite", "openvino"), "read": ("onnx", "openvino")}
"""Of int8; tests/unit/exporting/test_ports.py has all three for each kind of port."""


class PictureWithFacts:
    """Classes of a picture, N×C×H×W floats, and of facts, N×F."""

    kind = "picture-with-facts"
    gives = ("classes",)
    metrics: tuple[Metric, ...] = (Top1(), CrossEntropy())
    agreement = ImageClassification.agreement
    criterion, builder_args = ImageClassification.criterion, ImageClassification.builder_args
    stratum = ImageClassification.stratum

    def signature(self, samples: Any) -> Signature:
        inputs = _ports(samples, self.kind, picture="image", facts="features")
        return Signature(inputs, (Port("logits", ("N", len(samples.classes) or "classes"), kind="logits"),), "logits")


class MeanSquare:
    """Mean squared error of the values."""

    name, label, unit, better = "mse", "MSE", "", "lower"

    def per_sample(self, outputs: Any, targets: Any, primary: str) -> Any:
        wanted = targets[primary] if isinstance(targets, dict) else targets
        return np.square(outputs[primary].astype(np.float64) - wanted).mean(axis=1)[:, None]

    def reduce(self, rows: Any, weights: Any = None) -> float:
        return float(np.average(rows[:, 0], weights=weights))


class ValuesOfText:
    """Values of words, of a mask over them, and of a signal."""

    kind = "values-of-text"
    gives = ()
    metrics: tuple[Metric, ...] = (MeanSquare(),)  # type: ignore[assignment]
    agreement = MeanSquare()

    def signature(self, samples: Any) -> Signature:
        inputs = _ports(samples, self.kind, ids="tokens", mask="mask", signal="signal")
        return Signature(inputs, (Port("values", ("N", *(samples.target or ("M",)))),), "values")

    def builder_args(self, samples: Any) -> dict[str, Any]:
        return {"values": samples.target[0]} if samples.target else {}

    def stratum(self, targets: Any) -> None:
        return None

    def criterion(self, primary: Any, target: Any, smoothing: float) -> Any:
        from torch.nn import functional as F

        return F.mse_loss(primary, target)


def _ports(samples: Any, kind: str, **kinds: str) -> tuple[Port, ...]:
    if {*samples.inputs} != {*kinds}:
        raise DataError(f"{kind} takes {', '.join(kinds)}", "give these")
    return tuple(
        Port(name, ("N", *samples.inputs[name][0]), samples.inputs[name][1], kinds[name])  # type: ignore[arg-type]
        for name in kinds
    )


def _seen(train: int, test: int) -> dict[str, np.ndarray]:
    """A bright third of a picture, or a fact, says the class."""
    random, arrays = np.random.default_rng(0), {}
    for split, count in (("train", train), ("test", test)):
        y = np.arange(count) % 3
        picture = random.normal(size=(count, 3, 12, 8)).astype(np.float32)
        for one, label in zip(picture, y, strict=True):
            one[:, 4 * label : 4 * label + 4] += 2
        facts = random.normal(size=(count, 5)).astype(np.float32) + np.eye(3, 5, dtype=np.float32)[y]
        # in another order than the network's arguments
        arrays |= {f"x_{split}.facts": facts, f"x_{split}.picture": picture, f"y_{split}": y}
    return arrays


def _read(train: int, test: int) -> dict[str, np.ndarray]:
    random, arrays = np.random.default_rng(1), {}
    for split, count in (("train", train), ("test", test)):
        signal = random.normal(size=(count, 3, 4)).astype(np.float32)
        arrays |= {
            f"x_{split}.ids": random.integers(0, 20, (count, 7)).astype(np.int32),
            f"x_{split}.mask": np.arange(7) < random.integers(1, 8, (count, 1)),
            f"x_{split}.signal": signal,
            f"y_{split}": signal.sum(axis=(1, 2))[:, None] * np.float32([1, -1, 0.5]),
        }
    return arrays


@dataclass(frozen=True)
class Run:
    """A run of one of the recipes."""

    folder: Path
    result: RunResult
    expected: Mapping[str, Expected]
    """Outputs that the files are compared with on devices."""

    def snippet(self, name: str) -> list[str]:
        """Run a load snippet beside the bundle, and return the lines that it prints."""
        done = subprocess.run(
            [sys.executable, f"load_{name}.py"], cwd=self.folder / "artifacts", capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """All recipes, each run once in this process."""
    folder = tmp_path_factory.mktemp("ports")
    read = _read(120, 20)
    np.savez(folder / "seen.npz", **_seen(120, 30))  # type: ignore[arg-type]
    np.savez(folder / "read.npz", **read)  # type: ignore[arg-type]
    np.savez(folder / "outputs.npz", train=read["y_train"], test=read["y_test"])
    (folder / "nets.py").write_text(NETS)
    _trained(folder / "read.pt", read)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("EDGEKD_CACHE", str(folder / "cache"))
        for task in (PictureWithFacts, ValuesOfText):
            patch.setitem(registry.tasks._entries, task.kind, task)
        found, expected = {}, {}
        check = device_checks.check

        def checked(session: Any, variants: Any, device: Any, known: Any, threads: int) -> Any:
            expected.update(known)
            return check(session, variants, device, known, threads)

        patch.setattr(device_checks, "check", checked)
        for name, recipe in {"seen": SEEN, "read": READ, "uneven": UNEVEN, "taught": TAUGHT}.items():
            (folder / f"{name}.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
            outcome = edgekd.run(folder / f"{name}.yaml", quiet=True)
            assert outcome.result is not None
            found[name] = Run(outcome.folder.absolute(), outcome.result, expected)
    return found


def _trained(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Weights of a network that is better than chance."""
    import torch

    names: dict[str, Any] = {}
    exec(NETS, names)
    torch.manual_seed(0)
    net = names["Read"](3)
    x = [torch.from_numpy(arrays[f"x_train.{name}"]) for name in ("ids", "mask", "signal")]
    y, optimizer = torch.from_numpy(arrays["y_train"]), torch.optim.Adam(net.parameters(), 0.03)
    for _ in range(60):
        optimizer.zero_grad()
        (net(*x)["values"] - y).square().mean().backward()
        optimizer.step()
    torch.save(net.state_dict(), path)
    net.beside.weight.data[0] *= 3000  # one value is in thousands, the other about 1
    torch.save(net.state_dict(), path.with_name("uneven.pt"))


OUTPUTS = {"seen": ("logits", "where"), "read": ("values", "beside")}
INPUTS = {"seen": ("picture", "facts"), "read": ("ids", "mask", "signal")}


@pytest.mark.parametrize("name", OUTPUTS)
def test_every_output_of_every_file_is_held_against_torch(runs: dict[str, Run], name: str) -> None:
    result = runs[name].result
    assert result.verdict == "pass", [(gate.name, gate.model, gate.verdict) for gate in result.gates]
    assert not result.failures
    files = {model.name: model for model in result.models if model.role == "artifact"}
    assert {*FORMATS[name]} < {*files}
    for model in files.values():
        assert tuple(port.name for port in model.inputs) == INPUTS[name]
        assert tuple(port.name for port in model.outputs) == OUTPUTS[name]
        assert model.parity is not None
        assert tuple(model.parity.outputs) == OUTPUTS[name]
        assert model.figure({"seen": "top1", "read": "mse"}[name]) is not None


@pytest.mark.parametrize("name", OUTPUTS)
def test_the_bundle_holds_every_output_and_its_snippets_compare_them(runs: dict[str, Run], name: str) -> None:
    run, (primary, other) = runs[name], OUTPUTS[name]
    first = {"seen": "logits", "read": "output"}[name]
    files = [model for model in run.result.models if model.role == "artifact"]
    with np.load(run.folder / "artifacts" / "samples.npz") as stored:
        assert {key for key in stored if key.startswith("input_")} == {f"input_{port}" for port in INPUTS[name]}
        for model in files:
            assert model.parity is not None
            reference = stored[f"torch_{model.parity.reference}.{other}"]
            given = stored[f"output_{model.name}.{other}"]
            assert given.shape == reference.shape
            assert f"{first}_{model.name}" in stored
            assert np.abs(given - reference).max() == pytest.approx(model.parity.outputs[other].max_abs_error, abs=1e-6)
    for model in files:
        lines = run.snippet(model.name)
        if name == "seen":
            top1 = model.figure("top1")
            assert top1 is not None
            assert lines.pop(0) == f"top-1 {top1.value:.4f}"
        else:
            assert lines.pop(0).startswith(f"{primary}: largest difference 0,")
        (line,) = lines
        assert line.startswith(f"{other}: largest difference 0,")
    assert not [line for line in lacking(run.result) if "load snippet" in line or line.startswith("loading of")]
    assert [line for line in lacking(run.result) if line.startswith("C++ and Kotlin for ")]


def test_every_output_is_compared_on_a_device(runs: dict[str, Run]) -> None:
    result = runs["seen"].result
    files = {model.name: model for model in result.models if model.role == "artifact"}
    assert {profile.model for profile in result.profiles} == {*files}
    for profile in result.profiles:
        (torch,) = profile.outputs
        assert (torch.reference, torch.differs) == ("torch", ()), profile.model
        expected = runs["seen"].expected[profile.model]
        assert tuple(expected.torch) == tuple(expected.host) == OUTPUTS["seen"]  # type: ignore[arg-type]
        assert {len(values) for values in expected.torch.values()} == {8}


def test_a_bundle_is_measured_again_with_all_of_its_inputs_and_outputs(runs: dict[str, Run], tmp_path: Path) -> None:
    """As on a board that gets the bundle alone; an output beside the primary one that is another is found."""
    protocol = {key: value for key, value in PROFILE.items() if key != "devices"}
    for name, file in (("seen", "tflite.tflite"), ("read", "onnx.onnx")):
        folder = runs[name].folder / "artifacts"
        measured = edgekd.profile(folder / file, out=tmp_path, overrides=protocol, quiet=True).result
        ((torch,),) = [profile.outputs for profile in measured.profiles]
        assert (torch.reference, torch.differs) == ("torch", ())
        assert (torch.agreement is None) == (name == "read")
        assert not [line for line in lacking(measured) if "torch" in line]
    other = shutil.copytree(folder, tmp_path / "other")
    with np.load(other / "samples.npz") as stored:
        arrays = dict(stored)
    np.savez(other / "samples.npz", **{**arrays, "torch_ptq.beside": arrays["torch_ptq.beside"] + 1})  # type: ignore[arg-type]
    measured = edgekd.profile(other / "onnx.onnx", out=tmp_path, overrides=protocol, quiet=True).result
    ((torch,),) = [profile.outputs for profile in measured.profiles]
    assert "lsb" in {found.code for found in torch.differs}


def test_a_pack_knows_the_outputs_and_that_they_have_no_classes(
    runs: dict[str, Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = with_lock(tmp_path / "lock")
    monkeypatch.setattr(pack, "packed", lambda: program)
    protocol = Profile(**{key: value for key, value in PROFILE.items() if key != "devices"})
    board = pack.pack([runs["read"].folder / "artifacts" / "onnx.onnx"], Settings(protocol=protocol), tmp_path / "board")
    done = subprocess.run(
        [sys.executable, "profile.py", "--name", "shed"], cwd=board, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    result = pack.report(board / "edgekd-result.json", tmp_path / "reports").result
    (profile,) = result.profiles
    assert [(row.reference, row.differs, row.agreement) for row in profile.outputs] == [
        ("host", (), None),
        ("torch", (), None),
    ]


def test_given_weights_are_held_by_the_metric_of_their_task(runs: dict[str, Run]) -> None:
    assert runs["read"].result.doubts == ()


def test_stored_outputs_teach_values(runs: dict[str, Run]) -> None:
    result = runs["taught"].result
    curve = next(curve for curve in result.curves if curve.model == "distilled")
    assert curve.val["mse"][-1] < curve.val["mse"][0]
    assert result.doubts == ()


def test_a_value_that_int8_has_lost_in_another_output_is_no_pass(runs: dict[str, Run]) -> None:
    """The output as a whole looks fine, the primary one is, and parity with the int8 graph sees nothing."""
    result = runs["uneven"].result
    failed = [gate for gate in result.gates if gate.verdict not in ("pass", "not_applicable")]
    assert [(gate.name, gate.model, gate.value, gate.verdict) for gate in failed] == [
        ("worst_sqnr_db", "onnx", "beside[1]", "fail")
    ]
    assert failed[0].measured is not None
    assert failed[0].measured < 3
    assert result.verdict == "fail"
    lines = verdict(result).failures
    assert any(line.startswith("ONNX int8: Signal to noise, worst value, beside[1] is ") for line in lines), lines
    assert any(line.startswith("beside[1] is lost in int8") for line in lines), lines


def test_an_output_that_no_loss_has_trained_is_named(runs: dict[str, Run]) -> None:
    found = {finding.code: finding for finding in runs["seen"].result.findings}
    assert found["untrained_outputs"].figures == {"outputs": ["where"]}
    assert "No loss of the distillation reads where" in sentence(found["untrained_outputs"])
    assert "untrained_outputs" not in {finding.code for finding in runs["read"].result.findings}
