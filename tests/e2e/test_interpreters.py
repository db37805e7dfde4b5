"""One int8 TFLite file, every interpreter that people load it with: the same answer, at most one step apart."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tests.unit.exporting.nets import images, make_source
from torch import Tensor, nn

from edgekd.exporting.exporter import Options
from edgekd.exporting.formats.tflite import TfliteExporter

pytestmark = pytest.mark.e2e

Logits = NDArray[np.float32]
RUNTIME = "tflite-runtime==2.14.0"
LAST_PYTHON = (3, 11)
"""Of which there is a wheel of tflite-runtime."""

WORKER = Path(__file__).parents[2] / "benchmarks" / "tflite_worker.py"


class Net(nn.Module):
    """The operators of mobile networks: depthwise, squeeze-and-excite, hard-swish, SiLU, pools, sum, concatenation."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.Hardswish())
        self.depthwise = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.BatchNorm2d(16), nn.ReLU6())
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(16, 4, 1), nn.ReLU(), nn.Conv2d(4, 16, 1))
        self.project = nn.Sequential(nn.Conv2d(16, 16, 1, bias=False), nn.BatchNorm2d(16))
        self.side = nn.Sequential(nn.Conv2d(16, 8, 1), nn.SiLU(), nn.AvgPool2d(2))
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 10))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.depthwise(x)
        x = x + self.project(y * nn.functional.hardsigmoid(self.gate(y)))
        out: Tensor = self.head(torch.cat([nn.functional.max_pool2d(x, 2), self.side(x)], 1))
        return out


@dataclass(frozen=True)
class File:
    """The exported model, inputs (N, H, W, C), and the logits (N, classes) of the int8 graph run by torch."""

    path: Path
    inputs: NDArray[np.float32]
    reference: Logits
    step: float

    def check(self, logits: Logits, reference: Logits | None = None) -> None:
        wanted = self.reference if reference is None else reference
        assert np.abs(logits - wanted).max() / self.step <= 1.01
        np.testing.assert_array_equal(logits.argmax(1), wanted.argmax(1))


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> File:
    folder = tmp_path_factory.mktemp("interpreters")
    torch.manual_seed(0)
    source = make_source(Net(), size=32)
    exported = TfliteExporter().export(source, folder / "model.tflite", Options(log=folder / "log"))
    assert exported.float_tensors == ()
    assert exported.output_scale
    inputs = images(64, 32, seed=9)
    with torch.no_grad():
        reference = source.int8(fold_weights=True)(inputs).numpy()
    return File(exported.paths[0], inputs.numpy().transpose(0, 2, 3, 1).copy(), reference, exported.output_scale)


@pytest.fixture(scope="module")
def xnnpack(file: File) -> Logits:
    return litert(file, reference_kernels=False)


def litert(file: File, *, reference_kernels: bool) -> Logits:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    kind = OpResolverType.BUILTIN_REF if reference_kernels else OpResolverType.AUTO
    interpreter = Interpreter(model_path=str(file.path), experimental_op_resolver_type=kind, num_threads=1)
    interpreter.allocate_tensors()
    delegated = any(node["op_name"] == "DELEGATE" for node in interpreter._get_ops_details())
    assert delegated != reference_kernels, "XNNPACK must run the one and not the other"
    first, last = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]
    found = []
    for row in file.inputs:
        interpreter.set_tensor(first, row[None])
        interpreter.invoke()
        found.append(interpreter.get_tensor(last)[0])
    return np.stack(found)


def elsewhere(python: Path | str, package: str, file: File, folder: Path) -> Logits:
    """Run the file in another Python."""
    np.save(folder / "inputs.npy", file.inputs)
    command = [str(python), str(WORKER), package, str(file.path), str(folder / "inputs.npy"), str(folder / "outputs.npy")]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    logits: Logits = np.load(folder / "outputs.npy")
    return logits


@pytest.fixture(scope="session")
def old_runtime(pytestconfig: pytest.Config) -> Path:
    """A Python with tflite-runtime and the old numpy it was built for; kept between test runs."""
    if sys.version_info[:2] > LAST_PYTHON:
        pytest.skip(f"{RUNTIME} has no wheel for Python {sys.version_info.major}.{sys.version_info.minor}")
    assert pytestconfig.cache
    folder = pytestconfig.cache.mkdir(re.sub(r"\W+", "-", RUNTIME))
    python, ready = folder / "bin" / "python", folder / "ready"
    if not ready.exists():
        venv.create(folder, with_pip=True, clear=True)
        command = [str(python), "-m", "pip", "install", "--quiet", "--retries", "1", RUNTIME, "numpy<2"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        unreachable = re.search(r"NewConnectionError|NameResolutionError|ConnectTimeout|Connection refused", done.stderr)
        if done.returncode and unreachable and "CI" not in os.environ:
            pytest.skip(f"no package registry can be reached to install {RUNTIME}")
        assert done.returncode == 0, done.stderr
        ready.touch()
    return python


def test_xnnpack_computes_what_torch_computes(file: File, xnnpack: Logits) -> None:
    file.check(xnnpack)


def test_reference_kernels(file: File, xnnpack: Logits) -> None:
    file.check(litert(file, reference_kernels=True), xnnpack)


def test_tflite_runtime(file: File, xnnpack: Logits, old_runtime: Path, tmp_path: Path) -> None:
    file.check(elsewhere(old_runtime, "tflite_runtime", file, tmp_path), xnnpack)


@pytest.mark.skipif(importlib.util.find_spec("tensorflow") is None, reason="pip install -e '.[tensorflow]' to run it")
def test_tensorflow(file: File, xnnpack: Logits, tmp_path: Path) -> None:
    file.check(elsewhere(sys.executable, "tensorflow", file, tmp_path), xnnpack)
