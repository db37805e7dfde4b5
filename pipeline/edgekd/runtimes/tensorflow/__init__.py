"""Keras files and SavedModels, run by TensorFlow in a process of its own.

TensorFlow and torch bring their own threads, protocol buffers and oneDNN; apart they cannot get into each other's way. No
code of a file is run: a Keras file's configuration is read before Keras sees it, and Keras loads it in its safe mode.
"""

from __future__ import annotations

import importlib.util
import io
import json
import os
import struct
import subprocess
import sys
import tempfile
import weakref
import zipfile
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from edgekd.errors import ModelError
from edgekd.runtimes.base import LoadedPort

if TYPE_CHECKING:
    from edgekd.runtimes.base import Array

FORMATS = ("keras", "savedmodel")
"""Files that a black-box teacher may be, and that nothing is exported to."""
WORKER = Path(__file__).with_name("worker.py")
INSTALL = "pip install 'edgekd[tensorflow]'"

_DISTRIBUTIONS = ("tensorflow", "tensorflow-cpu", "tensorflow-intel", "tf-nightly")
_MODULES = (
    "keras.activations", "keras.constraints", "keras.dtype_policies", "keras.initializers", "keras.layers", "keras.models",
    "keras.ops", "keras.regularizers", "keras.src.models", "keras.src.layers", "keras.src.ops",
)  # fmt: skip
_RUN_CODE = ("Lambda", "__lambda__", "function", "TorchModuleWrapper", "TFSMLayer", "JaxLayer", "FlaxLayer")


def installed() -> bool:
    """Return whether there is a TensorFlow."""
    return importlib.util.find_spec("tensorflow") is not None


def runtime() -> str:
    """Return TensorFlow's version.

    Raises:
        ModelError: It is not installed.
    """
    for name in _DISTRIBUTIONS:
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    raise ModelError("TensorFlow is not installed", INSTALL)


class Session:
    """A network in TensorFlow, in a process that ends with this object.

    Args:
        path: A .keras file, or the folder of a SavedModel.
        format: ``keras`` or ``savedmodel``.
        threads: Threads inside one operator.
        signature: Which one of a SavedModel; None: serving_default, or the only one.

    Attributes:
        inputs: Its one input, called ``inputs``.
        outputs: Its one output, called ``outputs``; the worker refuses a network of several.

    Raises:
        ModelError: TensorFlow is not installed, or refuses the file; it takes no floats, or would run code.
    """

    inputs: tuple[LoadedPort, ...]
    outputs: tuple[LoadedPort, ...] = (LoadedPort("outputs", (), "float32"),)

    def __init__(self, path: Path, format: str, threads: int = 1, signature: str | None = None) -> None:
        runtime()
        if format == "keras":
            refuse_code(path)
        self._name = path.name
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  # closed with the process
        self._process = subprocess.Popen(
            # -P: modules beside the worker must not be found instead of TensorFlow's own
            [sys.executable, "-P", str(WORKER), format, str(path), str(threads), signature or ""],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, env=_environment(),
        )  # fmt: skip
        self._end = weakref.finalize(self, _end, self._process, self._errors)
        found = json.loads(self._receive())
        if "error" in found:
            raise ModelError(f"{path.name} {found['error']}", found["hint"] or "correct teacher.model, or save it again")
        if found["dtype"] not in ("float16", "float32", "float64"):
            raise ModelError(f"{path.name} takes {found['dtype']}, and images come as float32", "give a network of floats")
        self.inputs = (LoadedPort("inputs", tuple(found["shape"]), "float32"),)

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run the network once, on float32 ``inputs`` in the layout of the file; see ``runtimes.base.Session``.

        Raises:
            RuntimeError: TensorFlow cannot run it.
        """
        import numpy as np

        content = io.BytesIO()
        np.save(content, inputs["inputs"], allow_pickle=False)
        assert self._process.stdin is not None  # opened as a pipe
        try:
            self._process.stdin.write(struct.pack("<Q", content.tell()) + content.getvalue())
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise RuntimeError(self._ended()) from error
        answer = self._receive()
        if answer.startswith(b"{"):
            raise RuntimeError(json.loads(answer)["error"])
        return {"outputs": np.load(io.BytesIO(answer), allow_pickle=False)}

    def _receive(self) -> bytes:
        assert self._process.stdout is not None  # opened as a pipe
        head = self._process.stdout.read(8)
        if len(head) < 8:
            raise ModelError(f"{self._name} cannot be run: {self._ended()}", "is TensorFlow whole? " + INSTALL)
        return self._process.stdout.read(struct.unpack("<Q", head)[0])

    def _ended(self) -> str:
        self._errors.seek(0)
        lines = [line for line in self._errors.read().decode(errors="replace").splitlines() if line.strip()]
        return f"TensorFlow's process ended with {self._process.wait()}{': ' + lines[-1][:300] if lines else ''}"


def refuse_code(path: Path) -> None:
    """See that loading a .keras file needs nothing but Keras' own layers, and runs no code of the file.

    Raises:
        ModelError: It holds code, a layer of another package, or is no .keras file.
    """
    try:
        with zipfile.ZipFile(path) as file:
            content = json.loads(file.read("config.json"))
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise ModelError(f"{path} is not a .keras file: {error}", "save it again: model.save('FILE.keras')") from error
    for module, name in _classes(content):
        if name in _RUN_CODE:
            raise ModelError(
                f"{path.name} has a {name.strip('_')}, whose code would have to be run to load it, so edgekd does not",
                "build it of Keras' own layers, or use model.export(DIR) and savedmodel:DIR",
            )
        if module is not None and module != "keras" and not f"{module}.".startswith(tuple(f"{m}." for m in _MODULES)):
            raise ModelError(
                f"{path.name} has a {name} of {module}, which is not Keras' own, so edgekd does not load it",
                "use model.export(DIR) and savedmodel:DIR",
            )


def _classes(value: Any) -> Iterator[tuple[str | None, str]]:
    """Each object of a configuration: its module and class; not how it was compiled, which is not loaded."""
    if isinstance(value, list):
        for part in value:
            yield from _classes(part)
    if isinstance(value, dict):
        if isinstance(value.get("class_name"), str) and "config" in value and value["class_name"] != "__keras_tensor__":
            yield value.get("module"), value["class_name"]
        for key, part in value.items():
            if key != "compile_config":
                yield from _classes(part)


def _environment() -> dict[str, str]:
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": "tensorflow"}
    return os.environ | quiet | {"CUDA_VISIBLE_DEVICES": "-1"}  # torch's GPU is not for TensorFlow to fill


def _end(process: subprocess.Popen[bytes], errors: IO[bytes]) -> None:
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()
    process.kill()
    process.wait()
    errors.close()
