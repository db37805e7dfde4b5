"""The inputs and outputs of a .tflite file as ``benchmark_model`` reads and writes them: the bytes of each tensor."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgekd.errors import DeviceError
from edgekd.profiling.on_device.looking import is_real
from edgekd.profiling.on_device.runtimes.tflite import as_floats

if TYPE_CHECKING:
    from edgekd.profiling.variant import Variant

READ_S = 120.0
"""Seconds that reading a file may take here; a large model is loaded for it."""


class RawTensorsError(DeviceError):
    """The inputs cannot be given to benchmark_model, or it does not write the outputs: it can still be timed."""


@dataclass(frozen=True)
class Output:
    """An output of a file; ``shape`` is None where only an inference tells it."""

    name: str
    kind: str
    shape: tuple[int, ...] | None
    scale: float
    zero_point: int

    @property
    def size(self) -> int:
        """Its bytes."""
        return math.prod(self.shape or ()) * np.dtype(self.kind).itemsize


@dataclass(frozen=True)
class RawTensors:
    """Inputs and outputs of a file, in its own order.

    Attributes:
        rows: The feeds, an array for each input.
        outputs: The outputs.
    """

    rows: tuple[tuple[NDArray[Any], ...], ...]
    outputs: tuple[Output, ...]

    def options(self, row: int, send: Callable[[bytes], str]) -> dict[str, str]:
        """Bring a feed to the device and return the options of benchmark_model that name it.

        ``send`` makes a file there and returns its path.
        Inputs are called by their places: the program takes them in order and only warns of other names, and a name with a
        comma could not be written.

        Raises:
            RawTensorsError: The options cannot say it.
            DeviceError: The device does not answer or has no room.
        """
        feed = self.rows[row % len(self.rows)]
        if not all(x.ndim for x in feed):
            raise RawTensorsError("benchmark_model takes no values of an input without dimensions")
        files = [send(x.tobytes()) for x in feed]
        if any("," in file for file in files):
            raise RawTensorsError("benchmark_model takes no files with a comma in their paths; set another folder:")
        names = [f"input{at}" for at in range(len(feed))]
        escaped = [file.replace(":", "::") for file in files]
        return {
            "input_layer": ",".join(names),
            "input_layer_shape": ":".join(",".join(map(str, x.shape)) for x in feed),
            "input_layer_value_files": ",".join(f"{name}:{file}" for name, file in zip(names, escaped, strict=True)),
        }

    def split(self, content: bytes) -> dict[str, NDArray[Any]]:
        """Split what the program wrote into the outputs, as edgekd's own program gives them.

        Raises:
            RawTensorsError: It has another size.
        """
        self.check()
        expected = sum(output.size for output in self.outputs)
        if len(content) != expected:
            raise RawTensorsError(f"benchmark_model wrote {len(content)} bytes, and the outputs of the file have {expected}")
        found, at = {}, 0
        for output in self.outputs:
            value = np.frombuffer(content[at : at + output.size], output.kind).reshape(output.shape or ())
            found[output.name] = as_floats(value, output.scale, output.zero_point)
            at += output.size
        return found

    def check(self) -> None:
        """See that all outputs can be told apart in what the program writes.

        Raises:
            RawTensorsError: The size of one is not known.
        """
        for output in self.outputs:
            if output.shape is None:
                raise RawTensorsError(f"the size of its output {output.name} is known only after an inference")
            if not is_real(np.dtype(output.kind)):
                raise RawTensorsError(f"its output {output.name} is no tensor of real numbers")


def read(variant: Variant) -> RawTensors:
    """Read a file of this machine with its inputs; random values are those of edgekd's own program.

    Raises:
        RawTensorsError: TensorFlow Lite cannot load it here, or the inputs do not fit.
    """
    shapes: dict[str, object] = {name: list(shape) for name, shape in variant.shapes.items()}
    given = shapes | {name: str(path.absolute()) for name, path in variant.inputs.items()}
    with TemporaryDirectory(prefix="edgekd-") as folder:
        into = Path(folder) / "raw.npz"
        worker = [sys.executable, "-P", "-m", "edgekd.profiling.agents.raw_worker"]
        try:
            done = subprocess.run(
                [*worker, str(variant.path.absolute()), json.dumps(given or None), str(into)],
                capture_output=True, text=True, errors="replace", timeout=READ_S, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise RawTensorsError(f"reading the file on this machine took more than {READ_S:.0f} s") from None
        if done.returncode:
            last = done.stderr.strip().rpartition("\n")[2] if done.returncode > 0 else "the runtime crashed"
            raise RawTensorsError(f"the file cannot be read on this machine: {last}")
        return _stored(into)


def _stored(path: Path) -> RawTensors:
    """What the worker left."""
    with np.load(path, allow_pickle=False) as stored:
        inputs = [stored[f"input{at}"] for at in range(len(stored.files) - 1)]
        described: list[Mapping[str, Any]] = json.loads(str(stored["outputs"]))
    outputs = (Output(**{**one, "shape": None if one["shape"] is None else tuple(one["shape"])}) for one in described)
    return RawTensors(tuple(zip(*inputs, strict=True)), tuple(outputs))
