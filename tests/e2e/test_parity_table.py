"""The benchmark behind docs/int8.md's table, on a small member of one of its families, with its bounds."""

from __future__ import annotations

import importlib.util
import json
import re
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from edgekd.models.torchvision import import_torchvision


@pytest.fixture
def benchmark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    path = Path(__file__).parents[2] / "benchmarks" / "int8_parity.py"
    spec = importlib.util.spec_from_file_location("int8_parity", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "RESULTS", tmp_path)
    return module


def mobilenet_v3() -> Any:
    """A plain block, and one with squeeze-and-excitation and hard-swish, of the sixteen."""
    v3 = import_torchvision().models.mobilenetv3
    block = partial(v3.InvertedResidualConfig, width_mult=1.0)
    return v3.MobileNetV3(
        [block(16, 3, 16, 16, False, "RE", 2, 1), block(16, 5, 32, 16, True, "HS", 1, 1)], 32, num_classes=100
    )


def test_a_small_member_of_the_table(benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "mobilenet_v3_small"
    monkeypatch.setattr(benchmark, "build", lambda name, size: mobilenet_v3())
    found = benchmark.measure(name, size=64, count=4, bias=1.0, also={})
    assert found["float_ops"] == []
    for run in found["runtimes"].values():
        assert run["p99_lsb"] <= 2.01, found
        assert run["max_lsb"] <= 4.01, found
        assert run["layers"] > 10, "most layers are found in each file"
        assert all(steps == 1 for steps, _, _ in run["apart"]), "no layer by itself is further away than a rounding"
    tflite = found["runtimes"]["tflite"]
    assert tflite["float_tensors"] == ()
    assert re.fullmatch(r"XNNPACK (\d+) of \1 operations in 1 part", tflite["delegate"])
    assert found["others"]["reference kernels"]["top1"] == 1.0
    (benchmark.RESULTS / f"{name}.json").write_text(json.dumps(found), encoding="utf-8")
    assert f"| {name} | tflite | {tflite['mean_lsb']:.2f} |" in benchmark.table()
