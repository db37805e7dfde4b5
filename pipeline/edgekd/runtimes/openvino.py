"""OpenVINO, for ``.xml`` with the ``.bin`` beside it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekd.runtimes import telemetry
from edgekd.runtimes.base import Session, TensorSpec, runtimes

if TYPE_CHECKING:
    from edgekd.runtimes.base import Array


@runtimes.register("openvino")
class OpenVino:
    """OpenVINO's CPU plugin."""

    layout = "NCHW"

    def load(self, path: Path, threads: int) -> Session:
        """Load a file; see ``Runtime``."""
        return _Session(path, threads)


def load_without_hint(path: Path, threads: int = 1) -> tuple[Session, str]:
    """Load a file without ``INFERENCE_PRECISION_HINT``, and name the precision that OpenVINO chose for floats.

    Returns:
        The session, and ``float32``, ``float16`` or ``bfloat16``.
    """
    session = _Session(path, threads, hint=False)
    return session, session.precision


class _Session:
    def __init__(self, path: Path, threads: int, hint: bool = True) -> None:
        self._openvino = telemetry.import_openvino()
        # Without the hint some processors compute in 16 bits, silently.
        settings = {
            **({"INFERENCE_PRECISION_HINT": "f32"} if hint else {}),
            "INFERENCE_NUM_THREADS": str(threads),
            "NUM_STREAMS": "1",
            "PERFORMANCE_HINT": "LATENCY",
        }
        model = self._openvino.Core().compile_model(str(path), "CPU", settings)
        self._request = model.create_infer_request()
        self.inputs = tuple(_spec(index, one) for index, one in enumerate(model.inputs))
        self.outputs = tuple(_spec(index, one) for index, one in enumerate(model.outputs))
        name = model.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        self.precision = {"f32": "float32", "f16": "float16", "bf16": "bfloat16"}.get(name, name)

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        import numpy as np

        for index, spec in enumerate(self.inputs):
            x = np.ascontiguousarray(inputs[spec.name], dtype=spec.dtype)
            self._request.set_input_tensor(index, self._openvino.Tensor(x))
        self._request.infer()
        return {
            spec.name: np.array(self._request.get_output_tensor(index).data, dtype=spec.dtype)
            for index, spec in enumerate(self.outputs)
        }


def _spec(index: int, port: Any) -> TensorSpec:
    shape = port.get_partial_shape()
    sides = () if shape.rank.is_dynamic else tuple(side.get_length() if side.is_static else None for side in shape)
    kind = port.get_element_type().to_dtype()
    return TensorSpec(min(port.get_names(), default=str(index)), sides, "float32" if kind.kind == "f" else kind.name)
