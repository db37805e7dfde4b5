"""Write the trivial models of ``on_device/models/``: one layer of four neurons in each format.

They are fed to a runtime to see that it works. ``python -m edgekd.profiling.make_trivial`` writes them again.
"""

from __future__ import annotations

from pathlib import Path

import flatbuffers  # type: ignore[import-untyped]
import numpy as np
import onnx
import openvino
from ai_edge_litert import schema_py_generated as schema
from onnx import TensorProto, helper, numpy_helper
from openvino import opset8

from edgekd.profiling.on_device import trivial

FOLDER = Path(trivial.__file__).parent / "models"
WEIGHT = np.array(trivial.WEIGHT, "float32")
BIAS = np.array(trivial.BIAS, "float32")


def write_onnx(path: Path) -> None:
    """Write a Gemm."""
    node = helper.make_node("Gemm", ["x", "w", "b"], ["y"], transB=1)
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in ("x", "y")]
    constants = [numpy_helper.from_array(WEIGHT, "w"), numpy_helper.from_array(BIAS, "b")]
    graph = helper.make_graph([node], "trivial", ports[:1], ports[1:], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)  # old runtimes read it
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString())


def write_tflite(path: Path) -> None:
    """Write a fully connected layer."""
    model, graph, layer = schema.ModelT(), schema.SubGraphT(), schema.OperatorT()
    code, options = schema.OperatorCodeT(), schema.FullyConnectedOptionsT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.FULLY_CONNECTED
    code.version = 1
    tensors = {"x": np.empty((1, 4)), "w": WEIGHT, "b": BIAS, "y": np.empty((1, 4))}
    model.buffers = [schema.BufferT()]
    graph.tensors = []
    for name, value in tensors.items():
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.type = name, list(value.shape), schema.TensorType.FLOAT32
        tensor.buffer = 0
        if name in ("w", "b"):
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(value.tobytes(), np.uint8)
            tensor.buffer = len(model.buffers)
            model.buffers.append(buffer)
        graph.tensors.append(tensor)
    layer.opcodeIndex, layer.inputs, layer.outputs = 0, [0, 1, 2], [3]
    layer.builtinOptionsType, layer.builtinOptions = schema.BuiltinOptions.FullyConnectedOptions, options
    graph.inputs, graph.outputs, graph.operators, graph.name = [0], [3], [layer], "main"
    model.version, model.operatorCodes, model.subgraphs, model.description = 3, [code], [graph], "trivial"
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    path.write_bytes(bytes(builder.Output()))


def write_openvino(path: Path) -> None:
    """Write a MatMul and an Add."""
    x = opset8.parameter([1, 4], np.float32, name="x")
    product = opset8.matmul(x, opset8.constant(WEIGHT), False, True)
    y = opset8.add(product, opset8.constant(BIAS.reshape(1, 4)), name="y")
    openvino.save_model(openvino.Model([y], [x], "trivial"), path, compress_to_fp16=False)


def main() -> None:
    """Write all of them."""
    FOLDER.mkdir(exist_ok=True)
    write_onnx(FOLDER / "trivial.onnx")
    write_tflite(FOLDER / "trivial.tflite")
    write_openvino(FOLDER / "trivial.xml")


if __name__ == "__main__":
    main()
