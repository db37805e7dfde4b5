"""What is said when a converter or a runtime fails: operator, place in the network, reason, way out; from real failures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from edgekd.errors import ExportError, cause_of
from edgekd.exporting.exporter import Exporter, Options, Source
from edgekd.exporting.outputs import run_once
from edgekd.quantization.fold import fold
from edgekd.registry import exporters

X = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
Operation = Callable[[Tensor], Tensor]


class Middle(nn.Module):
    def __init__(self, operation: Operation) -> None:
        super().__init__()
        self.operation = operation

    def forward(self, x: Tensor) -> Tensor:
        return self.operation(x).flatten(1)


# Format, operation; operator, part of the reason, part of the way out.
FAILURES: dict[str, tuple[str, Operation, str, str, str]] = {
    "onnx, median": ("onnx", lambda x: x.flatten(2).median(-1)[0], "median", "ONNX exporter has no median", "remove onnx"),
    "onnx, cummax": ("onnx", lambda x: x.cummax(2)[0], "cummax", "ONNX exporter has no cummax", "remove onnx"),
    "onnx, cumprod": ("onnx", lambda x: x.cumprod(2), "cumprod", "ONNX exporter has no prod", "remove onnx"),
    "tflite, inverse": (
        "tflite", lambda x: torch.linalg.inv(x @ x.transpose(2, 3) + torch.eye(8)), "", "checks values", "remove tflite"
    ),
    "tflite, median": ("tflite", lambda x: x.flatten(2).median(-1)[0], "median", "converter has no median", "remove tflite"),
    "tflite, top-k": ("tflite", lambda x: x.flatten(2).topk(3, -1)[0], "topk", "TensorFlow Lite has no sort", "torch.amax"),
    "tflite, fold": (
        "tflite", lambda x: nn.functional.fold(nn.functional.unfold(x, 2, stride=2), (8, 8), 2, stride=2),
        "", "TensorFlow Lite runtime has no STABLEHLO_SCATTER", "remove tflite",
    ),
    "tflite, one-hot": (
        "tflite", lambda x: nn.functional.one_hot(x.argmax(1), 4).float(), "one_hot", "values are checked", "torch.arange"
    ),
    "tflite, bits": ("tflite", lambda x: ((x * 8).int() & 3).float(), "", "has no BitwiseAnd", "remove tflite"),
    "tflite, Fourier": ("tflite", lambda x: torch.fft.rfft2(x).abs(), "fft_rfft2", "real numbers only", "constant matrix"),
    "openvino, determinant": ("openvino", torch.linalg.det, "linalg_det", "cannot read ONNX's Det", "remove openvino"),
    "openvino, median": (
        "openvino", lambda x: x.flatten(2).median(-1)[0], "median", "ONNX exporter has no median", "remove openvino"
    ),
}  # fmt: skip


def written(exporter: Exporter, source: Source, path: Path, options: Options) -> None:
    run_once(exporter.export(source, path, options), source, options, source.example)


@pytest.mark.parametrize("name", FAILURES)
def test_a_failure_says_operator_place_reason_and_way_out(name: str, tmp_path: Path) -> None:
    format, operation, operator, why, instead = FAILURES[name]
    source = Source(fold(nn.Sequential(nn.Conv2d(3, 4, 1), Middle(operation)), X), X)
    exporter, options = exporters.get(format)(), Options(precision="float32", log=tmp_path / "log")
    with pytest.raises(ExportError) as caught:
        written(exporter, source, tmp_path / f"model{exporter.suffix}", options)
    message = caught.value.message
    assert why in message
    assert instead in caught.value.hint
    if operator:
        assert f": {operator} in 1 (test_causes.py, line " in message


def test_the_log_has_the_rest(tmp_path: Path) -> None:
    source = Source(fold(Middle(lambda x: x.flatten(2).topk(3, -1)[0]), X), X)
    exporter, options = exporters.get("tflite")(), Options(precision="float32", log=tmp_path / "log")
    with pytest.raises(ExportError) as caught:
        written(exporter, source, tmp_path / "model.tflite", options)
    assert str(tmp_path / "log") in caught.value.hint
    assert "Traceback" in (tmp_path / "log").read_text()


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        (
            "Failed to convert the exported program to an ONNX model. \x1b[96mThis is step 3/3\x1b[0m\n\nno topk",
            "no topk",
        ),
        ("Check 'false' failed at src/x.cpp:151:\nFrontEnd API failed with X:\n-- it is bad", "it is bad"),
        ("\n\n", "RuntimeError"),
        ("first line\nsecond line", "first line"),
    ],
)
def test_general_advice_is_not_the_cause(text: str, cause: str) -> None:
    assert cause_of(RuntimeError(text)) == cause


def test_the_innermost_exception_is_the_cause() -> None:
    outer = RuntimeError("export failed, file an issue")
    outer.__cause__ = ValueError("shapes differ")
    assert cause_of(outer) == "shapes differ"
