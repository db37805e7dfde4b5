"""Load snippets: a few lines of Python, with one runtime and numpy, that reproduce the reported accuracy."""

from __future__ import annotations

from pathlib import PurePath

from edgekd.profiling.on_device.runtimes import openvino
from edgekd.results.models import ModelRecord
from edgekd.results.run import DataRecord

_HEAD = """\
# {title}. Run it beside the bundle's files:
#   pip install {package} numpy
#   python load_{name}.py
# It prints {figure} on {what}: {expected}.
import numpy as np
{imports}

samples = np.load("samples.npz")
x = samples["images"].astype(np.float32) / np.float32(255)
x = (x - np.float32({mean}).reshape(-1, 1, 1)) / np.float32({std}).reshape(-1, 1, 1)
x = np.ascontiguousarray(np.broadcast_to(x, (len(x), {channels}, *x.shape[2:])))
"""

_TAIL = """
logits = np.concatenate([run(image[None]) for image in x])
print(f"top-1 {{np.mean(logits.argmax(axis=1) == {expected_classes}):.4f}}")
"""

_ONNX = """
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession("{file}", options, providers=["CPUExecutionProvider"])


def run(image):  # float32, 1 x C x H x W
    return session.run(None, {{"input": image}})[0]
"""

_TFLITE = """
interpreter = Interpreter("{file}", num_threads=1)
interpreter.allocate_tensors()
source, result = interpreter.get_input_details()[0], interpreter.get_output_details()[0]


def run(image):  # float32, 1 x C x H x W; the file wants N x H x W x C
    interpreter.set_tensor(source["index"], {to_input})
    interpreter.invoke()
    return {from_output}
"""

_OPENVINO = """
# Without the precision hint OpenVINO computes float layers in bfloat16 or float16 where the CPU has it: other logits.
settings = {{"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}}
try:
    compiled = openvino.Core().compile_model("{file}", "CPU", settings)
except RuntimeError as error:  # OpenVINO 2026.4 on Arm refuses some int8 convolutions: the same values in float
    print(f"not loaded as int8, trying in float: {{error}}")
    compiled = openvino.Core().compile_model("{file}", "CPU", {{**settings, "{without_int8}": False}})


def run(image):  # float32, 1 x C x H x W
    return compiled(image)[0]
"""

_RUNTIMES = {
    "onnx": ("ONNX Runtime", "onnxruntime", "import onnxruntime", _ONNX),
    "tflite": ("TensorFlow Lite", "ai-edge-litert", "from ai_edge_litert.interpreter import Interpreter", _TFLITE),
    "openvino": ("OpenVINO", "openvino", "import openvino", _OPENVINO),
}


def snippet(model: ModelRecord, data: DataRecord, *, whole: bool, labelled: bool) -> str:
    """Return the Python text that loads an artifact and prints its accuracy on the bundle's samples.

    Where they have no labels, it prints the share of them with the same top-1 as in this run.
    """
    title, package, imports, body = _RUNTIMES[model.format]
    top1 = model.top1()
    assert model.path is not None
    what = f"the {data.test} test images" if whole else "the bundle's first test images"
    expected = f"{top1:.4f}" if whole and top1 is not None else "close to the reported one"
    head = _HEAD.format(
        title=f"{model.name} ({model.precision}) in {title}", package=package, name=model.name, what=what,
        figure="the top-1 accuracy" if labelled else "how often the greatest logit is the one it was when this was written",
        expected=expected if labelled else "1.0000",
        imports=imports, mean=list(data.mean), std=list(data.std), channels=data.channels,
    )  # fmt: skip
    to_input, from_output = (
        "np.ascontiguousarray(image.transpose(0, 2, 3, 1))",
        'interpreter.get_tensor(result["index"])',
    )
    if model.inputs and model.inputs[0].dtype == "int8":
        scale, zero = model.inputs[0].scale, model.inputs[0].zero_point
        to_input = f"np.clip(np.rint({to_input} / np.float32({scale})) + {zero}, -128, 127).astype(np.int8)"
    if model.outputs and model.outputs[0].dtype == "int8":
        scale, zero = model.outputs[0].scale, model.outputs[0].zero_point
        from_output = f"({from_output}.astype(np.float32) - {zero}) * np.float32({scale})"
    return (
        head
        + body.format(
            file=PurePath(model.path).name,
            to_input=to_input,
            from_output=from_output,
            without_int8=openvino.WITHOUT_INT8,
        )
        + _TAIL.format(
            expected_classes="samples['labels']" if labelled else f"samples['logits_{model.name}'].argmax(axis=1)"
        )
    )
