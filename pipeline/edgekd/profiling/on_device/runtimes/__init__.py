"""The runtimes that a model file is measured in, by format.

A runtime has: ``version``, ``load(path)``, ``unload()``, ``run(feed)`` as a user writes it, ``effective(path, feed)`` (what
it says it did), and ``inputs()``: by name, in the model's order, (shape with None where free, numpy type, (scale, zero
point)). A feed has an array for each input, by name, in the same order. A module imports its package only when it is used.
"""

from __future__ import annotations

from typing import Any

from .onnx import OnnxRuntime
from .openvino import OpenVino
from .tflite import TensorFlowLite

RUNTIMES: dict[str, Any] = {"onnx": OnnxRuntime, "tflite": TensorFlowLite, "openvino": OpenVino}
