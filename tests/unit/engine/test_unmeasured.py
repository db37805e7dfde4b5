"""Gaps of a bundle are listed."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.words import notes

from edgekd.engine.unmeasured import not_bundled
from edgekd.results.models import FilePort, ModelRecord
from edgekd.results.run import DataRecord
from edgekd.runtimes import base

IMAGES = DataRecord("npz:d.npz", "", ("cat", "dog"), 8, 2, 2, 16, 3, (0.5,), (0.5,))
VECTORS = replace(IMAGES, classes=(), image_size=0, channels=0, mean=(), std=(), inputs={"x": (4,)})


def file(name: str, inputs: int = 1, outputs: int = 1, path: str | None = "a", format: str = "onnx") -> ModelRecord:
    ports = [tuple(FilePort(f"p{number}", (1, 4), "float32") for number in range(count)) for count in (inputs, outputs)]
    return ModelRecord(name, "artifact", format, "int8", path=path, inputs=ports[0], outputs=ports[1])


def test_files_of_one_image_lack_nothing_and_lost_ones_are_listed_elsewhere() -> None:
    assert notes(not_bundled([file("onnx"), file("lost", 2, 2, None)], IMAGES)) == []


def test_apps_have_no_programs_for_other_inputs() -> None:
    app = "they are only for files that take one image and give its class"
    assert notes(not_bundled([file("onnx"), file("openvino", format="openvino")], VECTORS)) == [
        f"C++ and Kotlin for onnx, openvino: {app}"
    ]
    assert notes(not_bundled([file("onnx", 2), file("tflite", 1, 2, format="tflite")], IMAGES)) == [
        f"C++ and Kotlin for onnx: {app}"
    ]


def test_a_runtime_without_lines_for_several_ports_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    onnx = type(base.of("onnx"))
    monkeypatch.setattr(onnx, "python", replace(onnx.python, several=""))
    monkeypatch.setattr(onnx, "cpp", None)
    monkeypatch.setattr(onnx, "kotlin", None)
    assert notes(not_bundled([file("one"), file("two", 2), file("three", 2, 3), file("four", 1, 2)], IMAGES)) == [
        "loading of two, three: ONNX Runtime has no lines for a file with several inputs",
        "outputs of four beside the primary one: the load snippet skips them, as ONNX Runtime has no lines for it",
    ]
