"""A metric that is NaN: named where it decides something, absent and listed where it is a figure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from tests.unit.task.test_named import Distance, Pair
from tests.words import lacking

import edgekd
from edgekd import registry
from edgekd.errors import TrainingError

NET = """
from torch import nn


def net():
    return nn.Linear(6, 2)
"""
TRAIN, TEST = 100, 20


class Undefined(Distance):
    """NaN of a split of ``size`` samples, or where the targets say so."""

    name, label = "undefined", "undefined error"

    def per_sample(self, outputs: Any, targets: Any, primary: str) -> Any:
        rows = super().per_sample(outputs, targets, primary)
        rows[np.asarray(targets[primary] if isinstance(targets, dict) else targets)[:, 0] > 100] = np.nan
        return rows


class Unsafe(Pair):
    """Its first metric may be NaN."""

    kind = "unsafe"
    metrics = (Undefined(), Distance())


def recipe(folder: Path, monkeypatch: pytest.MonkeyPatch, bad: str) -> Path:
    random, arrays = np.random.default_rng(0), {}
    for split, count in (("train", TRAIN), ("test", TEST)):
        x = random.normal(size=(count, 6)).astype(np.float32)
        arrays |= {f"x_{split}": x, f"y_{split}": x[:, :2].copy()}
    arrays[f"y_{bad}"][::2, 0] = 101
    np.savez(folder / "d.npz", **arrays)  # type: ignore[arg-type]
    (folder / "net.py").write_text(NET)
    text = {
        "edgekd": 2,
        "task": "unsafe",
        "data": {"source": "npz:d.npz"},
        "student": {"model": "net.py:net"},
        "distill": {"epochs": 2, "batch_size": 16, "lr": 0.001, "losses": [{"kind": "task"}]},
        "quantize": {"method": "ptq"},
        "export": ["onnx"],
        "gates": {"metric": {"name": "undefined", "max": 5}, "drop": {"metric": "undefined", "max": 1}},
    }
    (folder / "d.yaml").write_text(yaml.safe_dump(text))
    monkeypatch.chdir(folder)
    monkeypatch.setenv("EDGEKD_CACHE", str(folder / "cache"))
    monkeypatch.setitem(registry.tasks._entries, Unsafe.kind, Unsafe)
    return folder / "d.yaml"


def test_a_metric_of_training_that_is_nan_ends_it_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = r"undefined error \(undefined\) of the (validation|training) split is nan after epoch 1"
    with pytest.raises(TrainingError, match=wanted):
        edgekd.run(recipe(tmp_path, monkeypatch, "train"), quiet=True)


def test_a_metric_of_the_test_split_that_is_nan_is_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = edgekd.run(recipe(tmp_path, monkeypatch, "test"), quiet=True)
    result = outcome.result
    assert result is not None
    (file,) = (model for model in result.models if model.name == "onnx")
    assert file.figure("undefined") is None
    assert file.figure("mae") is not None
    assert any("undefined error of onnx: it is nan on the test split" in line for line in lacking(result))
    held = {gate.name: gate.verdict for gate in result.gates if gate.model == "onnx"}
    assert (held["metric"], held["drop"]) == ("not_measured", "not_measured")
    assert (outcome.folder / "report.html").exists()
