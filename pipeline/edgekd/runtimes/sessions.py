"""The three runtimes behind one call: NCHW float32 in, logits float32 out, one input at a time.

Layout and integer inputs are the session's business, so that the same arrays go into every format.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgekd.errors import ExportError, cause_of, did_you_mean
from edgekd.runtimes import telemetry

Array = NDArray[np.float32]


class Session(Protocol):
    """A loaded model.

    Attributes:
        input_shape: Of its input, as it is in the file; None where any size goes.
        outputs: Name and shape of each output; a size is None where it is not known.
        output: Index of the one that ``run`` returns.
    """

    input_shape: tuple[int | None, ...]
    outputs: tuple[tuple[str, tuple[int | None, ...]], ...]
    output: int

    def run(self, x: Array) -> Array:
        """Return the logits (1, classes), float32, of one input (1, C, H, W), float32."""
        ...


def load(path: Path, format: str, threads: int = 1) -> Session:
    """Load a file into its runtime.

    Args:
        path: The file that the exporter returned first.
        format: ``onnx``, ``tflite`` or ``openvino``.
        threads: Threads inside one operator; operators run one after the other.

    Raises:
        ExportError: Unknown format, missing runtime, or a file that the runtime rejects.
    """
    if format not in _LOADERS:
        raise ExportError(f"no runtime for format {format!r}", did_you_mean(format, _LOADERS))
    if not path.is_file():
        raise ExportError(f"there is no model at {path}", "run the export stage first")
    try:
        return _LOADERS[format](path, threads)
    except ImportError as error:
        raise ExportError(f"the runtime for {format} cannot be imported: {error}", "reinstall edgekd") from error
    except Exception as error:  # runtimes raise their own classes, RuntimeError and ValueError
        raise ExportError(f"{path.name} cannot be loaded: {cause_of(error)}", "export it again") from error


def load_without_hint(path: Path, threads: int = 1) -> tuple[Session, str]:
    """Load an OpenVINO file without ``INFERENCE_PRECISION_HINT``, and name the precision that OpenVINO chose for floats.

    Returns:
        The session, and ``float32``, ``float16`` or ``bfloat16``.
    """
    session = _OpenVino(path, threads, hint=False)
    return session, session.precision


def run_all(session: Session, inputs: Array) -> Array:
    """Return the logits (N, classes) of inputs (N, C, H, W), run one after the other."""
    return np.concatenate([session.run(inputs[index : index + 1]) for index in range(len(inputs))])


class _Onnx:
    def __init__(self, path: Path, threads: int) -> None:
        onnxruntime = telemetry.import_onnxruntime()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = 3  # errors only
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name
        self.input_shape = _sizes(self._session.get_inputs()[0].shape)
        self.outputs = tuple((output.name, _sizes(output.shape or ())) for output in self._session.get_outputs())
        self.output = 0

    def run(self, x: Array) -> Array:
        output: Array = self._session.run(None, {self._input: x})[self.output]
        return output


class _Tflite:
    def __init__(self, path: Path, threads: int) -> None:
        try:
            from ai_edge_litert import interpreter as runtime
        except ImportError:  # the only one that old devices have
            from tflite_runtime import interpreter as runtime
        self._interpreter = runtime.Interpreter(model_path=str(path), num_threads=threads)
        self._interpreter.allocate_tensors()
        self._input = self._interpreter.get_input_details()[0]
        self._outputs = self._interpreter.get_output_details()
        self.outputs = tuple((each["name"], _sizes(each["shape"].tolist())) for each in self._outputs)
        self.output = 0
        self.input_shape: tuple[int | None, ...] = tuple(int(side) for side in self._input["shape"])

    def run(self, x: Array) -> Array:
        nhwc = np.ascontiguousarray(x.transpose(0, 2, 3, 1))
        self._interpreter.set_tensor(self._input["index"], _to_integers(nhwc, self._input))
        self._interpreter.invoke()
        output = self._outputs[self.output]
        return _to_floats(self._interpreter.get_tensor(output["index"]), output)


class _OpenVino:
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
        self.input_shape = _partial(model.input(0).get_partial_shape())
        self.outputs = tuple(
            (min(output.get_names(), default=str(index)), _partial(output.get_partial_shape()))
            for index, output in enumerate(model.outputs)
        )
        self.output = 0
        name = model.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        self.precision = {"f32": "float32", "f16": "float16", "bf16": "bfloat16"}.get(name, name)

    def run(self, x: Array) -> Array:
        self._request.set_input_tensor(self._openvino.Tensor(np.ascontiguousarray(x)))
        self._request.infer()
        return np.array(self._request.get_output_tensor(self.output).data, dtype=np.float32)


def _sizes(shape: Any) -> tuple[int | None, ...]:
    return tuple(side if isinstance(side, int) else None for side in shape)


def _partial(shape: Any) -> tuple[int | None, ...]:
    if shape.rank.is_dynamic:
        return ()
    return tuple(side.get_length() if side.is_static else None for side in shape)


def _to_integers(x: Array, details: Any) -> NDArray[Any]:
    if details["dtype"] == np.float32:
        return x
    scale, zero_point = details["quantization"]
    limits = np.iinfo(details["dtype"])
    integers: NDArray[Any] = np.clip(np.rint(x / np.float32(scale)) + zero_point, limits.min, limits.max)
    return integers.astype(details["dtype"])


def _to_floats(values: NDArray[Any], details: Any) -> Array:
    if details["dtype"] == np.float32:
        return values
    scale, zero_point = details["quantization"]
    return (values.astype(np.float32) - np.float32(zero_point)) * np.float32(scale)


_LOADERS: dict[str, Callable[[Path, int], Session]] = {"onnx": _Onnx, "tflite": _Tflite, "openvino": _OpenVino}
