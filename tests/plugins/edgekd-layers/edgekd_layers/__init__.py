"""A format and its runtime in one file: fully connected layers with ReLU between them, in numpy's own files."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from edgekd.errors import ExportError, UsageError
from edgekd.exporting.exporter import Exported, Refused, Supported, file_ports, require_float_io, require_precision
from edgekd.recipe.export import Precision
from edgekd.runtimes.base import Declared, LoadedPort, OnDevice
from edgekd.runtimes.snippets import Python

HERE = Path(__file__).parent
REFUSED = Refused("it holds floats", "use float32")

SNIPPET = """
file = np.load(here / "{file}")
layers = [(file[f"weight{{at}}"], file[f"bias{{at}}"]) for at in range((len(file.files) - 1) // 2)]


def run({sample}):
    x = {to_input}.reshape(1, -1)
    for at, (weight, bias) in enumerate(layers):
        x = (x if at == 0 else np.maximum(x, 0)) @ weight.T + bias
    return x
"""


class LayersExporter:
    """Writes the weights of a network of linear layers, in the order of the network."""

    suffix = ".layers"
    packages = ("numpy",)
    precisions: ClassVar[dict[Precision, Supported | Refused]] = {
        "int8": REFUSED, "float32": Supported("float32"), "float16": REFUSED, "dynamic": REFUSED,
        "int8-weights": REFUSED, "int4-weights": REFUSED, "int16x8": REFUSED,
    }  # fmt: skip

    def export(self, source, path, options):
        import numpy as np

        require_precision(options, "layers", self.precisions)
        require_float_io(options, "layers")
        values = [value.numpy() for value in source.model.state_dict().values()]
        weights, biases = ([value for value in values if value.ndim == rank] for rank in (2, 1))
        if len(weights) != len(biases) or len(values) != 2 * len(weights):
            raise ExportError("layers holds linear layers with a bias only", "export another format")
        named = {f"weight{at}": value for at, value in enumerate(weights)} | {
            f"bias{at}": value for at, value in enumerate(biases)
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            (taken,) = source.inputs.values()
            np.savez(file, shape=np.array(taken.shape), **named)
        return Exported(
            "layers", (path,), path.stat().st_size,
            file_ports(source.signature.inputs), file_ports(source.signature.outputs),
        )  # fmt: skip


class LayersRuntime:
    """Runs the layers with numpy."""

    label, format_label = "Layers", "Layers"
    packages = ("numpy",)
    suffixes = (".layers",)
    layout = "NCHW"
    lacks_int8 = ("hardswish", "silu", "gelu")
    inside = None
    on_device = OnDevice(HERE / "device.py", (HERE / "trivial.layers",))
    python = Python("", SNIPPET)
    cpp = None
    kotlin = None

    def load(self, path, threads):
        return Session(path)

    def files(self, path):
        return (path,)

    def check(self, path):
        if path.read_bytes()[:2] != b"PK":
            raise UsageError(f"{path} is not a file of layers", "export it again")
        return ()

    def declared(self, path):
        session = Session(path)
        return {"input": Declared(list(session.inputs[0].shape), "float32")}


class Session:
    """A loaded file."""

    def __init__(self, path):
        import numpy as np

        with np.load(path, allow_pickle=False) as file:
            count = (len(file.files) - 1) // 2
            self._layers = [(file[f"weight{at}"], file[f"bias{at}"]) for at in range(count)]
            self.inputs = (LoadedPort("input", tuple(int(side) for side in file["shape"]), "float32"),)
        self.outputs = (LoadedPort("logits", (1, len(self._layers[-1][1])), "float32"),)

    def run(self, inputs):
        import numpy as np

        x = inputs["input"].reshape(1, -1)
        for at, (weight, bias) in enumerate(self._layers):
            x = (x if at == 0 else np.maximum(x, 0)) @ weight.T + bias
        return {"logits": x}
