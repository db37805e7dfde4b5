"""Run a TensorFlow Lite file in the Python that has the interpreter; needs numpy and that package alone.

    python tflite_worker.py reference|tflite_runtime|tensorflow MODEL INPUTS.npy OUTPUTS.npy

Inputs are (N, H, W, C), one inference each; prints the version of the package.
"""

import sys
from importlib import import_module
from typing import Any

import numpy as np

package, model, inputs, outputs = sys.argv[1:]
options: dict[str, Any] = {}
if package == "tensorflow":
    lite = import_module("tensorflow").lite
elif package == "reference":  # ai-edge-litert without XNNPACK and without optimized kernels
    lite = import_module("ai_edge_litert.interpreter")
    options["experimental_op_resolver_type"] = lite.OpResolverType.BUILTIN_REF
else:
    lite = import_module("tflite_runtime.interpreter")
interpreter = lite.Interpreter(model_path=model, num_threads=1, **options)
interpreter.allocate_tensors()
first, last = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
found = []
for row in np.load(inputs):
    interpreter.set_tensor(first["index"], row[None])
    interpreter.invoke()
    found.append(interpreter.get_tensor(last["index"])[0])
np.save(outputs, np.stack(found))
root = import_module({"reference": "ai_edge_litert"}.get(package, package))
print(getattr(root, "__version__", ""))
