"""The runtimes that a model file is measured in, by format and package; of several packages the first that works is used.

A runtime has: ``version``, ``load(path)``, ``unload()``, ``run(feed)`` as a user writes it, ``effective(path, feed)`` (what
it says it did), and ``inputs()``: by name, in the model's order, (shape with None where free, numpy type, (scale, zero
point)); ``fit(feed)`` for free sizes, ``outputs(feed)`` (all of them, by name), ``operations(path, feed, runs)`` (times of
each). A feed has an array for each input, by name, in the same order. A module imports its package only when it is used.
"""

from __future__ import annotations

import importlib.util
from functools import partial
from typing import Any

from .onnx import OnnxRuntime
from .openvino import OpenVino
from .tflite import TensorFlowLite

RUNTIMES: dict[str, dict[str, Any]] = {
    "onnx": {"onnxruntime": OnnxRuntime},
    "tflite": {name: partial(TensorFlowLite, name) for name in ("ai_edge_litert", "tflite_runtime", "tensorflow")},
    "openvino": {"openvino": OpenVino},
}


def create(form: str, threads: int, package: str = "") -> Any:
    """Return a runtime for a format.

    Args:
        form: ``onnx``, ``tflite`` or ``openvino``.
        threads: Threads it may use.
        package: One of the format's; by default the first that is installed.

    Raises:
        ImportError: None is installed.
    """
    for name, runtime in RUNTIMES[form].items():
        if name == package or (not package and importlib.util.find_spec(name) is not None):
            return runtime(threads)
    raise ImportError(f"none of {', '.join(RUNTIMES[form])} is installed")
