"""A small but real run of the whole chain, made once a test session and looked at from all sides."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from tests.e2e import warm
from tests.hurried import EDGEKD

from edgekd.resources import find

BLOCKS = [[1, 16, 1, 1], [6, 24, 1, 2], [6, 32, 2, 2], [6, 96, 1, 1], [6, 192, 1, 2]]
"""Of MobileNetV2 in the small recipe: 6 of 17."""
RECIPE = """\
# yaml-language-server: $schema=./schema.json
# The whole chain in about a minute: every format, and losses of each kind.
edgekd: 1
threads: 1
data: {source: npz:data.npz, image_size: 32, augment: [crop, flip], val_fraction: 0.2}
teacher:
  model: edgekd:resnet10
  args: {width: 8, stem_stride: 2}
  train: {epochs: 2, lr: 0.01}
student: {model: torchvision:mobilenet_v2, args: {inverted_residual_setting: BLOCKS}}
distill:
  epochs: 2
  batch_size: 32
  lr: 0.02
  losses:
    - {kind: task}
    - {kind: kd, temperature: 4, weight: 0.5}
    - {kind: fitnet}
    - {kind: attention_transfer, weight: 10}
quantize: {epochs: 1}
export: [onnx, {format: tflite, io: int8}, openvino]
profile: {devices: [host], warmup_runs: 2, warmup_ms: 0, blocks: 3, block_ms: 1, block_runs: 5}
gates: {size_ratio: {max: 0.30}, accuracy_drop: {level: warn}, lost_classes: {level: warn}}  # few images: chance
"""


@dataclass(frozen=True)
class Cli:
    """The edgekd command in a process of its own, in a folder, with a cache of its own.

    The process is a ``fresh`` Python, as a user's is, or one that has imported torch already.
    """

    folder: Path
    cache: Path

    def __call__(self, *args: str, code: int | None = 0, fresh: bool = False) -> subprocess.CompletedProcess[str]:
        if fresh:
            done = subprocess.run(
                [*EDGEKD, *args],
                cwd=self.folder, env=self.environment(), capture_output=True, text=True, check=False,
            )  # fmt: skip
        else:
            done = warm.ran(args, self.folder, self.environment())
        if code is not None:
            assert done.returncode == code, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        return done

    def environment(self) -> dict[str, str]:
        return {**os.environ, "EDGEKD_CACHE": str(self.cache), "COLUMNS": "120"}


@pytest.fixture(scope="session")
def mini() -> dict[str, np.ndarray]:
    with np.load(find("assets", "fashion-mnist-mini/images.npz")) as file:
        return {name: file[name] for name in file.files}


@pytest.fixture(scope="session")
def small_data(mini: dict[str, np.ndarray]) -> Callable[[Path, int, int], None]:
    def write(path: Path, train: int, test: int) -> None:
        np.savez(
            path, classes=mini["classes"],
            x_train=mini["x_train"][:train], y_train=mini["y_train"][:train],
            x_test=mini["x_test"][:test], y_test=mini["y_test"][:test],
        )  # fmt: skip

    return write


@dataclass(frozen=True)
class Run:
    """A finished run of the small recipe."""

    cli: Cli
    folder: Path
    stdout: str
    stderr: str

    @property
    def result(self) -> dict[str, object]:
        return json.loads((self.folder / "run.json").read_text())


@pytest.fixture(scope="session")
def chain(tmp_path_factory: pytest.TempPathFactory, small_data: Callable[[Path, int, int], None]) -> Run:
    folder = tmp_path_factory.mktemp("chain")
    small_data(folder / "data.npz", 480, 400)
    (folder / "small.yaml").write_text(RECIPE.replace("BLOCKS", str(BLOCKS)))
    cli = Cli(folder, folder / "cache")
    done = cli("run", "small.yaml")
    return Run(cli, (folder / "reports" / "small" / "latest").resolve(), done.stdout, done.stderr)
