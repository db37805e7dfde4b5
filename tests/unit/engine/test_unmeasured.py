"""Gaps of a bundle are listed."""

from __future__ import annotations

from edgekd.engine.unmeasured import not_bundled
from edgekd.results.models import FilePort, ModelRecord


def file(name: str, inputs: int, outputs: int, path: str | None = "a") -> ModelRecord:
    ports = [tuple(FilePort(f"p{number}", (1, 4), "float32") for number in range(count)) for count in (inputs, outputs)]
    return ModelRecord(name, "artifact", "onnx", "int8", path=path, inputs=ports[0], outputs=ports[1])


def test_what_a_bundle_lacks_of_files_with_several_ports_is_listed() -> None:
    assert list(not_bundled([file("onnx", 1, 1), file("lost", 2, 2, None)])) == []
    assert list(not_bundled([file("onnx", 2, 1), file("tflite", 2, 3)])) == [
        "loading of onnx, tflite: no load snippet is written for a file with several inputs",
        "expected outputs of tflite but the primary one: samples.npz has that one alone",
    ]
