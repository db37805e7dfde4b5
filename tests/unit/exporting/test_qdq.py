from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from tests.unit.exporting.nets import Tokens, images, make_source

from edgekd.exporting.exporter import Options, Source
from edgekd.exporting.formats import onnx as onnx_format
from edgekd.exporting.formats.onnx import qdq
from edgekd.runtimes import base
from edgekd.runtimes.onnxruntime import imported


def model(with_float_op: bool = False) -> onnx.ModelProto:
    """Quantized input, convolution, an int8 constant added, quantized output; one zero point serves both kinds."""
    generator = np.random.default_rng(0)
    constants: dict[str, Any] = {
        "x_scale": np.float32(0.02), "x_zero": np.int8(-3), "zero": np.int8(0), "y_scale": np.float32(0.05),
        "w": generator.integers(-127, 128, (4, 3, 1, 1)).astype(np.int8), "w_scale": np.float32(0.003),
        "c": np.int8(40), "c_scale": np.float32(0.01),
    }  # fmt: skip
    nodes = [
        helper.make_node("QuantizeLinear", ["input", "x_scale", "x_zero"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "x_scale", "x_zero"], ["x"]),
        helper.make_node("DequantizeLinear", ["w", "w_scale", "zero"], ["wd"]),
        helper.make_node("DequantizeLinear", ["c", "c_scale", "zero"], ["cd"]),
        helper.make_node("Conv", ["x", "wd"], ["conv"]),
        helper.make_node("QuantizeLinear", ["conv", "y_scale", "zero"], ["convq"]),
        helper.make_node("DequantizeLinear", ["convq", "y_scale", "zero"], ["convd"]),
        helper.make_node("Add", ["convd", "cd"], ["sum"]),
        *([helper.make_node("Erf", ["sum"], ["erf"])] if with_float_op else []),
        helper.make_node("QuantizeLinear", ["erf" if with_float_op else "sum", "y_scale", "zero"], ["yq"]),
        helper.make_node("DequantizeLinear", ["yq", "y_scale", "zero"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, 4, 4])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 4, 4, 4])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    built: onnx.ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return built


def run(built: onnx.ModelProto, x: np.ndarray) -> Any:
    runtime = imported()
    options = runtime.SessionOptions()
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return runtime.InferenceSession(built.SerializeToString(), options).run(None, {"input": x})[0]


def test_shift_to_uint8_is_exact_and_leaves_weights() -> None:
    x = np.random.default_rng(1).normal(size=(1, 3, 4, 4)).astype(np.float32) * 3
    before, shifted = model(), model()
    qdq.shift_to_uint8(shifted)
    onnx.checker.check_model(shifted, full_check=True)
    assert np.array_equal(run(before, x), run(shifted, x))
    types = {item.name: item.data_type for item in shifted.graph.initializer}
    used = {name for node in shifted.graph.node for name in node.input}
    assert types["w"] == TensorProto.INT8
    assert "c" not in used, "a constant operand keeps to the type of the other operand"
    quantized = [node.input[2] for node in shifted.graph.node if node.op_type == "QuantizeLinear"]
    assert {types[name] for name in quantized} == {TensorProto.UINT8}


def test_compact_keeps_the_numbers() -> None:
    x = np.random.default_rng(1).normal(size=(1, 3, 4, 4)).astype(np.float32)
    small = model()
    small.graph.node[4].doc_string = "File /home/someone/model.py"
    qdq.shift_to_uint8(small)
    qdq.drop_zero_weight_offsets(small)
    qdq.compact(small)
    onnx.checker.check_model(small, full_check=True)
    assert np.array_equal(run(model(), x), run(small, x))
    assert b"someone" not in small.SerializeToString()
    assert len(small.graph.initializer) < len(model().graph.initializer) + 1


def test_float_tensors_are_found() -> None:
    assert qdq.float_tensors(model()) == ()
    assert qdq.float_tensors(model(with_float_op=True)) == ("sum",)


def test_linear_layers_and_means_run_in_int8(small_source: Source, tmp_path: Path) -> None:
    kinds = run_kinds(small_source, tmp_path)
    assert {"QGemm", "QLinearGlobalAveragePool", "QLinearConv", "QLinearAdd"} <= kinds
    assert not kinds & {"Gemm", "ReduceMean", "Conv", "Add"}


def test_activations_for_arm_are_int8_and_the_logits_the_same(small_source: Source, tmp_path: Path) -> None:
    logits, types = [], []
    for activations in ("uint8", "int8"):
        path = tmp_path / f"{activations}.onnx"
        onnx_format.OnnxExporter().export(small_source, path, Options(activations=activations))
        logits.append(base.run_file(path, "onnx", images(8, seed=9).numpy()))
        graph = onnx.load(path).graph
        constants = {item.name: item.data_type for item in graph.initializer}
        types.append({constants[node.input[2]] for node in graph.node if node.op_type == "QuantizeLinear"})
    assert types == [{TensorProto.UINT8}, {TensorProto.INT8}]
    np.testing.assert_array_equal(*logits)


def test_linear_layers_on_tokens_run_in_int8(tmp_path: Path) -> None:
    torch.manual_seed(0)
    kinds = run_kinds(make_source(Tokens()), tmp_path)
    assert {"QGemm", "QLinearMatMul", "QLinearSoftmax"} <= kinds
    assert not kinds & {"Gemm", "MatMul", "Softmax"}


def run_kinds(source: Source, folder: Path) -> set[str]:
    """The operators that ONNX Runtime makes of a file."""
    path = folder / "model.onnx"
    onnx_format.OnnxExporter().export(source, path, Options())
    runtime = imported()
    options = runtime.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    options.log_severity_level = 3
    runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return {node.op_type for node in onnx.load(folder / "optimized.onnx").graph.node}


@pytest.mark.parametrize(("step", "kept"), [(0.25 / 6, 0), (0.04, 1)])
def test_products_that_change_the_scale_alone_are_dropped(step: float, kept: int) -> None:
    constants = {
        "scale": np.float32(0.25), "zero": np.uint8(3), "sixth": np.uint8(255), "sixth_scale": np.float32(1 / 6 / 255),
        "sixth_zero": np.uint8(0), "step": np.float32(step),
    }  # fmt: skip
    nodes = [
        helper.make_node("QuantizeLinear", ["input", "scale", "zero"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "scale", "zero"], ["x"]),
        helper.make_node("DequantizeLinear", ["sixth", "sixth_scale", "sixth_zero"], ["factor"]),
        helper.make_node("Mul", ["factor", "x"], ["product"]),
        helper.make_node("QuantizeLinear", ["product", "step", "zero"], ["yq"]),
        helper.make_node("DequantizeLinear", ["yq", "step", "zero"], ["y"]),
        helper.make_node("Mul", ["x", "y"], ["logits"]),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [64]) for name in ("input", "logits")]
    items = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "test", ends[:1], ends[1:], items)
    built = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    x = np.linspace(-2, 70, 64, dtype=np.float32)
    expected = run(built, x)
    qdq.drop_identities(built)
    onnx.checker.check_model(built, full_check=True)
    assert sum(node.op_type == "Mul" for node in built.graph.node) == 1 + kept
    np.testing.assert_allclose(run(built, x), expected, rtol=1e-6)
