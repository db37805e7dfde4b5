"""Write small real models into the folder given; run as a script, because the converters warn and print much."""

import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime.quantization as ortq
import openvino
from onnx import TensorProto, helper, numpy_helper

SHAPE = (1, 3, 16, 16)


class _Random(ortq.CalibrationDataReader):
    def __init__(self):
        self._rows = iter(np.random.default_rng(0).normal(size=(4, *SHAPE)).astype("float32"))

    def get_next(self):
        return next(({"x": row} for row in self._rows), None)


def _onnx(path):
    rng = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(rng.normal(size=(o, i, 3, 3)).astype("float32"), n) for n, i, o in (("w", 3, 8), ("v", 8, 4))
    ]
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], pads=[1] * 4),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "v"], ["c"], pads=[1] * 4),
        helper.make_node("GlobalAveragePool", ["c"], ["d"]),
        helper.make_node("Flatten", ["d"], ["y"]),
    ]
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n, shape in (("x", SHAPE), ("y", (1, 4))))
    model = helper.make_model(
        helper.make_graph(nodes, "net", [x], [y], weights), opset_imports=[helper.make_opsetid("", 17)]
    )
    model.ir_version = 9
    onnx.save(model, path)


def _tflite(path, between):
    import litert_torch
    import torch

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.Conv2d(8, 4, 3, padding=1)

        def forward(self, x):
            x = self.first(x)
            return self.second(torch.cumsum(x, 3) if between == "cumsum" else torch.relu(x)).mean((2, 3))

    litert_torch.convert(Net().eval(), (torch.zeros(SHAPE),)).export(str(path))


def main(folder):
    _onnx(folder / "float.onnx")
    ortq.quantize_static(
        folder / "float.onnx", folder / "int8.onnx", _Random(), activation_type=ortq.QuantType.QUInt8, per_channel=True
    )
    openvino.save_model(openvino.convert_model(folder / "float.onnx"), folder / "float.xml", compress_to_fp16=False)
    _tflite(folder / "float.tflite", between="relu")
    _tflite(folder / "cut.tflite", between="cumsum")  # XNNPACK has no cumulative sum


if __name__ == "__main__":
    main(Path(sys.argv[1]))
