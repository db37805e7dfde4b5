"""What each runtime really runs: a figure beside the verdict that never ends a run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import openvino
import pytest
import torch
from tests.unit.exporting.nets import Residual, images, make_source
from tests.words import notes

from edgekd.assembly import runtime_figures
from edgekd.assembly.context import OUTPUT, Context
from edgekd.assembly.figures import FILE, NotMeasured
from edgekd.assembly.outputs import ExportOutput
from edgekd.exporting.exporter import Options, Source
from edgekd.progress import Silent
from edgekd.recipe import Recipe
from edgekd.registry import exporters
from edgekd.report.runtime import without_hint
from edgekd.results import codec
from edgekd.results.runtime import DefaultPrecision

FORMATS = ("onnx", "tflite", "openvino")


@pytest.fixture(scope="module")
def source() -> Source:
    torch.manual_seed(0)
    return make_source(Residual())


@pytest.fixture(scope="module")
def context(source: Source, tmp_path_factory: pytest.TempPathFactory) -> Context:
    inputs = {}
    for format in FORMATS:
        folder = inputs[f"export.{format}"] = tmp_path_factory.mktemp(format)
        exporter = exporters.get(format)()
        exported = exporter.export(source, folder / f"{format}{exporter.suffix}", Options("int8"))
        paths = tuple(Path(path.name) for path in exported.paths)
        codec.write(ExportOutput(replace(exported, paths=paths)), folder / OUTPUT)
    out = tmp_path_factory.mktemp("out")
    return Context(Recipe.model_construct(), "evaluate", out, inputs, out / "log", Silent())


def figures(context: Context, source: Source) -> dict[str, runtime_figures.Found]:
    graph, x = source.int8(fold_weights=True), images(8, seed=9).numpy()
    with torch.no_grad():
        exact = graph(torch.from_numpy(x)).numpy()
    logits = {"ptq": exact} | dict.fromkeys(FORMATS, exact)
    return runtime_figures.figures(context, {"input": x}, logits, dict.fromkeys(FORMATS, "ptq"), graph, classes=True)


def test_every_int8_file_has_its_runtimes_graph(context: Context, source: Source) -> None:
    found = figures(context, source)
    assert not (context.out / FILE).exists()
    for name in FORMATS:
        graph = found[name].runtime_graph
        assert graph is not None
        assert graph.operators >= 6
        assert graph.unexpected() == ()


def test_what_cannot_be_looked_at_is_said_and_ends_nothing(context: Context, source: Source) -> None:
    broken = context.inputs["export.onnx"] / "onnx.onnx"
    content = broken.read_bytes()
    try:
        broken.write_bytes(b"no model")
        found = figures(context, source)
    finally:
        broken.write_bytes(content)
    (line,) = notes(codec.read(NotMeasured, context.out / FILE).found)
    (context.out / FILE).unlink()
    assert line.startswith("onnx: what its runtime runs in float: ")
    assert found["onnx"].runtime_graph is None
    assert found["tflite"].runtime_graph is not None


def test_parity_without_the_hint_is_measured_where_the_cpu_has_shorter_floats(context: Context, source: Source) -> None:
    compiled = openvino.Core().compile_model(str(context.inputs["export.openvino"] / "openvino.xml"), "CPU", {})
    chosen = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    found = figures(context, source)["openvino"].default_precision
    if chosen == "f32":
        assert found is None
        return
    assert found is not None
    record = found
    assert record.precision == {"bf16": "bfloat16", "f16": "float16"}[chosen]
    assert (record.n, record.reference, record.hinted_error) == (8, "ptq", 0.0)
    assert 0 < record.error < 0.5
    assert record.hinted_agreement == 1


def test_the_error_is_relative_to_the_deviation_of_the_logits() -> None:
    exact = np.random.default_rng(0).normal(size=(50, 10)).astype(np.float32)
    agreement, error = runtime_figures.apart(exact + np.float32(0.1 * exact.std()), exact, classes=True)
    assert (agreement, error) == (1, pytest.approx(0.1 * np.sqrt(10 / 9), rel=0.03))  # of centred logits
    assert runtime_figures.apart(-exact, exact, classes=True)[0] < 0.3


def test_in_words() -> None:
    text = without_hint(DefaultPrecision("bfloat16", "ptq", 256, 0.9922, 0.0096, 1.0, 1e-7), "image")
    assert text == (
        "loaded without INFERENCE_PRECISION_HINT=f32, OpenVINO computes float layers in bfloat16 on this CPU: against ptq "
        "on 256 test images an error of 0.96 % of the deviation of the output and the same class for 99.2 % of them; with "
        "the hint, which the load snippet sets, an error of less than 0.001 % of the deviation of the output and the same "
        "class for 100 % of them"
    )
    regression = without_hint(DefaultPrecision("bfloat16", "ptq", 9, None, 0.0096, None, 1e-7), "sample")
    assert "against ptq on 9 test samples an error of 0.96 % of the deviation of the output; with the hint" in regression
