"""The shipped recipe ``mobilenet`` with another student: what edgekd says of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import soaks
from edgekd.resources import find
from edgekd.results.run import RunResult, read_run

SETTINGS = ("data.source=npz:data.npz", "distill.epochs=2", "distill.batch_size=16", "baselines=[]", "profile=null")
"""What differs from the recipe, beside the student: less to train on, no baselines, no latency."""
FORMATS = ("onnx", "tflite", "openvino")
"""The int8 files of the recipe, by name."""


@dataclass(frozen=True)
class Student:
    """A network as ``student.model`` and ``student.args`` name it."""

    model: str
    args: Mapping[str, Any] = field(default_factory=dict)


STUDENTS = {
    "mobilenet_v3_small": Student("torchvision:mobilenet_v3_small"),
    "resnet18": Student("torchvision:resnet18"),
    "shufflenet_v2_x1_0": Student("torchvision:shufflenet_v2_x1_0"),
    "regnet_y_400mf": Student("torchvision:regnet_y_400mf"),
}
"""Families that the recipe was not written for: chosen before the first of them was measured."""
SMALL = {"resnet10_small": Student("edgekd:resnet10", {"width": 8, "stem_stride": 2})}
"""One that takes seconds; only if it is asked for."""


@dataclass(frozen=True)
class Row:
    """What edgekd said of one student.

    Attributes:
        student: Its name in ``STUDENTS``.
        train: Training images, of which the recipe holds a tenth for validation.
        test: Test images.
        verdict: Of ``run.json``; ``none`` where there is no run folder.
        code: Exit code.
        gates: Each gate of each file as ``[name, file, limit, measured, verdict]``.
        top1: Of the float network, ``float``, and of each int8 file that was delivered, by its name.
        n: Test images that each of them was measured on, likewise.
        float_ops: Operations that are float in a file, with the reason of each, likewise.
        seconds: That the run took.
        said: Last line of standard error where there is no run folder.
    """

    student: str
    train: int
    test: int
    verdict: str
    code: int
    gates: list[list[Any]]
    top1: dict[str, float]
    n: dict[str, int]
    float_ops: dict[str, list[str]]
    seconds: float
    said: str = ""


def write_data(path: Path, train: int, test: int) -> None:
    """Write the first images of fashion-mnist-mini as an archive."""
    with np.load(find("assets", "fashion-mnist-mini/images.npz")) as file:
        counts = {"train": train, "test": test}
        parts = {f"{kind}_{split}": file[f"{kind}_{split}"][:count] for kind in "xy" for split, count in counts.items()}
        np.savez(path, classes=file["classes"], **parts)


def measured(name: str, train: int, test: int, folder: Path) -> Row:
    """Run the recipe with a student in an empty folder, in a process of its own and with an empty cache."""
    student = (STUDENTS | SMALL)[name]
    folder.mkdir()
    write_data(folder / "data.npz", train, test)
    settings = (*SETTINGS, f"student.model={student.model}", f"student.args={json.dumps(student.args)}")
    command = [sys.executable, "-m", "edgekd", "run", "mobilenet", "--threads", "1"]
    command += [part for value in settings for part in ("--set", value)]
    environment = {**os.environ, "EDGEKD_CACHE": str(folder / "cache"), "COLUMNS": "120", "OMP_NUM_THREADS": "1"}
    began = time.monotonic()
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    seconds = round(time.monotonic() - began, 1)
    latest = folder / "reports" / "mobilenet" / "latest"
    if not (latest / "run.json").is_file():
        return Row(name, train, test, "none", done.returncode, [], {}, {}, {}, seconds, soaks.last_line(done.stderr))
    return _row(Row(name, train, test, "", done.returncode, [], {}, {}, {}, seconds), read_run(latest))


def _row(row: Row, result: RunResult) -> Row:
    found = {"float": result.student(), **{name: result.model(name) for name in FORMATS}}
    models = {name: model for name, model in found.items() if model and (name == "float" or model.path)}
    figures = {name: figure for name, model in models.items() if (figure := model.figure("top1", "labels"))}
    return Row(
        row.student, row.train, row.test, result.verdict, row.code, soaks.gates(result),
        top1={name: round(figure.value, 4) for name, figure in figures.items()},
        n={name: figure.n or 0 for name, figure in figures.items()},
        float_ops={name: [str(one) for one in model.float_ops] for name, model in models.items() if name != "float"},
        seconds=row.seconds,
    )  # fmt: skip
