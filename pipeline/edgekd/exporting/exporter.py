"""The exporter protocol: the contract behind ``export: [onnx, tflite, openvino]``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol

from edgekd.errors import ExportError
from edgekd.recipe.export import Precision

if TYPE_CHECKING:  # names and types must be readable without the second that importing torch takes
    from torch import Tensor, fx, nn


@dataclass(frozen=True)
class Supported:
    """A precision that a format has: ``computes`` says what its runtime computes in, on a CPU."""

    computes: str


@dataclass(frozen=True)
class Refused:
    """A precision that a format has not, or that would be no gain: why, and what to write instead."""

    why: str
    instead: str


@dataclass(frozen=True)
class Source:
    """The network that is exported.

    Attributes:
        model: The float model, (N, C, H, W) to logits (N, classes), in evaluation mode.
        example: One input, (1, C, H, W) float32; its shape becomes the shape of the file's input.
        quantized: Gives the int8 graph with its weights folded to int8 (True) or left in float in front of their
            quantize nodes (False); the result must be the caller's to give away. None where there is only a float model.
        float_ops: Operators that the int8 rules left in float, as ``"PATH OPERATOR (%NAME): REASON"``.
        images: Calibration images, (N, C, H, W) float32, for a precision whose ranges come from them.
    """

    model: nn.Module
    example: Tensor
    quantized: Callable[[bool], fx.GraphModule] | None = None
    float_ops: tuple[str, ...] = ()
    images: Tensor | None = None

    def int8(self, *, fold_weights: bool) -> fx.GraphModule:
        """Return the int8 graph.

        Raises:
            ExportError: There is only a float model.
        """
        if self.quantized is None:
            raise ExportError("an int8 file was asked for, but the model was not quantized", "add a quantize section")
        return self.quantized(fold_weights)

    def graph(self, precision: Precision) -> nn.Module:
        """Return the graph that a file of ``precision`` is written from."""
        return self.int8(fold_weights=True) if precision == "int8" else self.model


@dataclass(frozen=True)
class Options:
    """Options of an export.

    Attributes:
        precision: ``int8`` writes the int8 graph; the others write the float model, whose weights are rounded already
            (``weights.rounded``) where the file holds them in fewer bits.
        io: Type of input and output of an int8 file; only TFLite has ``int8``.
        activations: Type of the activations in an int8 ONNX file, see ``targets.onnx_activations_for``.
        zero_points: Where an int8 OpenVINO file has those of its convolutions, see ``targets.openvino_zero_points_for``.
        log: File that takes what the converters print; None discards it.
    """

    precision: Precision = "int8"
    io: Literal["float32", "int8"] = "float32"
    activations: Literal["uint8", "int8"] = "uint8"
    zero_points: Literal["biases", "activations"] = "biases"
    log: Path | None = None


@dataclass(frozen=True)
class TensorInfo:
    """An input or output of a file.

    Attributes:
        layout: ``NCHW``, ``NHWC`` or ``NC``.
        scale: One step of an int8 tensor, where the file takes or gives int8.
        zero_point: The integer that stands for 0.0, likewise.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    layout: str
    scale: float | None = None
    zero_point: int | None = None


@dataclass(frozen=True)
class Exported:
    """A file that was written.

    Attributes:
        paths: All its files; the first is the one to load.
        bytes: Size of all of them together.
        inputs: Inputs in order.
        outputs: Outputs in order.
        output_scale: One int8 step (LSB) of the logits inside the file, whatever type they leave it in; None in a
            float32 file and where the last operator stays in float.
        float_ops: Operators that the int8 rules left in float.
        float_tensors: Names of the float tensors inside an int8 file, apart from inputs and outputs.
    """

    format: str
    paths: tuple[Path, ...]
    bytes: int
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    output_scale: float | None = None
    float_ops: tuple[str, ...] = ()
    float_tensors: tuple[str, ...] = ()


class Exporter(Protocol):
    """One format. Register the class: ``@exporters.register("name")``.

    The module must import neither torch nor the runtime at its top level: listing formats has to be instant.

    Attributes:
        suffix: Of the file to load, such as ``.onnx``.
        packages: Distributions whose versions decide the bytes; they go into the stage's cache key.
        precisions: What it can write, and why not the rest.
    """

    suffix: str
    packages: tuple[str, ...]
    precisions: ClassVar[Mapping[Precision, Supported | Refused]]

    def export(self, source: Source, path: Path, options: Options) -> Exported:
        """Write ``source`` to ``path`` and read it back enough to describe it.

        The same source gives the same bytes, in any process.

        Raises:
            ExportError: The model cannot be written in this format, or the options do not go with it.
        """
        ...


def total_bytes(paths: Iterable[Path]) -> int:
    """Return the size of all files together."""
    return sum(path.stat().st_size for path in paths)


def require_precision(options: Options, format_name: str, precisions: Mapping[Precision, Supported | Refused]) -> None:
    """Reject a precision that the format has not.

    Raises:
        ExportError: It is refused, with the reason.
    """
    found = precisions[options.precision]
    if isinstance(found, Refused):
        raise ExportError(f"{format_name} has no {options.precision}: {found.why}", found.instead)


def require_float_io(options: Options, format_name: str) -> None:
    """Reject ``io="int8"`` for a format that cannot have it.

    Raises:
        ExportError: ``options.io`` is not ``float32``.
    """
    if options.io != "float32":
        raise ExportError(f"{format_name} files take and give float32", "use io: float32, or export tflite for int8")


def output_step(graph_module: fx.GraphModule) -> float | None:
    """Return one int8 step of the logits of an int8 graph, or None where they are float."""
    node = graph_module.graph.output_node().all_input_nodes[0]
    if "dequantize_per_tensor" not in str(node.target):
        return None
    scale = node.args[1]
    if isinstance(scale, int | float):
        return float(scale)
    assert not isinstance(scale, tuple | list | dict | slice)
    return float(graph_module.get_buffer(str(scale)))
