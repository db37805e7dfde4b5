"""TensorFlow Lite, for ``.tflite``: LiteRT's interpreter with XNNPACK."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekd.profiling.on_device.runtimes.tflite import as_floats, named
from edgekd.runtimes.base import Session, TensorSpec, runtimes

if TYPE_CHECKING:
    from edgekd.runtimes.base import Array


@runtimes.register("tflite")
class TensorFlowLite:
    """LiteRT on the CPU."""

    layout = "NHWC"

    def load(self, path: Path, threads: int) -> Session:
        """Load a file; see ``Runtime``."""
        return _Session(path, threads)


class _Session:
    def __init__(self, path: Path, threads: int) -> None:
        try:
            from ai_edge_litert import interpreter as runtime
        except ImportError:  # the only one that old devices have
            from tflite_runtime import interpreter as runtime
        self._interpreter = runtime.Interpreter(model_path=str(path), num_threads=threads)
        self._interpreter.allocate_tensors()
        self._inputs = named(self._interpreter.get_input_details())
        self._outputs = named(self._interpreter.get_output_details())
        self.inputs = tuple(_spec(*one) for one in self._inputs)
        self.outputs = tuple(_spec(*one) for one in self._outputs)

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        for name, details in self._inputs:
            self._interpreter.set_tensor(details["index"], _to_integers(inputs[name], details))
        self._interpreter.invoke()
        return {
            name: as_floats(self._interpreter.get_tensor(details["index"]), *details["quantization"])
            for name, details in self._outputs
        }


def _spec(name: str, details: Any) -> TensorSpec:
    dtype = "float32" if details["quantization"][0] > 0 else details["dtype"].__name__
    return TensorSpec(name, tuple(int(side) for side in details["shape"]), dtype)


def _to_integers(x: Array, details: Any) -> Array:
    import numpy as np

    scale, zero_point = details["quantization"]
    if scale <= 0 or details["dtype"] == np.float32:
        return x.astype(details["dtype"], copy=False)
    limits = np.iinfo(details["dtype"])
    integers: Array = np.clip(np.rint(x / np.float32(scale)) + zero_point, limits.min, limits.max)
    return integers.astype(details["dtype"])
