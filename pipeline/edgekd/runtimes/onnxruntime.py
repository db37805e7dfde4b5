"""ONNX Runtime, for ``.onnx``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekd.runtimes import telemetry
from edgekd.runtimes.base import Session, Shape, TensorSpec, runtimes

if TYPE_CHECKING:
    from edgekd.runtimes.base import Array

_TYPES = {"float": "float32", "double": "float64"}
"""ONNX's names of types where numpy's are others."""


@runtimes.register("onnx")
class OnnxRuntime:
    """ONNX Runtime on the CPU."""

    layout = "NCHW"

    def load(self, path: Path, threads: int) -> Session:
        """Load a file; see ``Runtime``."""
        return _Session(path, threads)


class _Session:
    def __init__(self, path: Path, threads: int) -> None:
        onnxruntime = telemetry.import_onnxruntime()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = 3  # errors only
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.inputs = tuple(_spec(one) for one in self._session.get_inputs())
        self.outputs = tuple(_spec(one) for one in self._session.get_outputs())

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        feed = {one.name: inputs[one.name].astype(one.dtype, copy=False) for one in self.inputs}
        return dict(zip((one.name for one in self.outputs), self._session.run(None, feed), strict=True))


def _spec(told: Any) -> TensorSpec:
    shape: Shape = tuple(side if isinstance(side, int) else None for side in told.shape or ())
    kind = told.type.removeprefix("tensor(").removesuffix(")")
    return TensorSpec(told.name, shape, _TYPES.get(kind, kind))
