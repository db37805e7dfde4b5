"""The exporter protocol: the contract behind ``export: [onnx, tflite, openvino]``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, cast

from edgekd.errors import ExportError, ModelError
from edgekd.models.copies import copied
from edgekd.recipe.export import Io, Precision
from edgekd.results.models import FilePort
from edgekd.results.runtime import FloatOperation
from edgekd.task.named import Inputs, batches, call, in_order

if TYPE_CHECKING:  # names and types must be readable without the second that importing torch takes
    from numpy.typing import NDArray
    from torch import Tensor, fx, nn

    from edgekd.task.base import Dtype, Kind, Port, Signature


BATCH_SIZE = 250


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
        model: The float model in evaluation mode. It takes its inputs by position and returns a tensor, or a mapping of all
            outputs that are shipped.
        example: One sample, by the names of the inputs; its shapes become those of the file's inputs.
        quantized: Gives the int8 graph with its weights folded to int8 (True) or left in float in front of their
            quantize nodes (False); the result must be the caller's to give away. None where there is only a float model.
        float_ops: Operations that the int8 rules leave in float.
        samples: Calibration samples, for a precision whose ranges come from them.
        ports: Names and kinds of inputs and outputs; None: those of the example and of what the model returns, where four
            dimensions of floats are an image.
    """

    model: nn.Module
    example: Inputs
    quantized: Callable[[bool], fx.GraphModule] | None = None
    float_ops: tuple[FloatOperation, ...] = ()
    samples: Inputs | None = None
    ports: Signature | None = None

    @cached_property
    def inputs(self) -> Mapping[str, Tensor]:
        """The example by name, in the order of the model's arguments."""
        return in_order(self.model, self.example)

    @cached_property
    def signature(self) -> Signature:
        """The inputs and outputs of a file, in its order.

        Raises:
            ModelError: The model returns something else than a tensor or a mapping of tensors, or not what ``ports`` says.
        """
        from edgekd.task.base import Signature
        from edgekd.task.primary import LOGITS

        returned = self._answer(self._returned)
        kinds: dict[str, Kind] = {name: "image" if _is_map(value) else "values" for name, value in self.inputs.items()}
        inputs = tuple(_port(name, value, kinds[name]) for name, value in self.inputs.items())
        named: dict[str, Kind] = {LOGITS.name: "logits"}
        outputs = tuple(_port(name, value, named.get(name, "values")) for name, value in returned.items())
        found = Signature(inputs, outputs, outputs[0].name)
        return found if self.ports is None else _as_declared(found, self.ports)

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
        return self.int8(fold_weights=True) if precision == "int8" else self.float32()

    def expected(self, inputs: Inputs) -> dict[str, NDArray[Any]]:
        """Return what the float model gives for samples, by the names of the file's outputs."""
        import torch

        with torch.inference_mode():
            returned = self._answer(call(self.model, inputs))
        return {name: value.numpy() for name, value in returned.items()}

    def computed(self, precision: Precision, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Return what torch gives for samples in the graph that a file of ``precision`` is written from, by output."""
        import numpy as np
        import torch

        graph, names = self.graph(precision), [port.name for port in self.signature.outputs]
        parts: list[tuple[NDArray[Any], ...]] = []
        with torch.inference_mode():
            for batch in batches({name: torch.from_numpy(value) for name, value in inputs.items()}, BATCH_SIZE):
                returned = call(graph, batch)
                values = returned if isinstance(returned, tuple) else (returned,)
                parts.append(tuple(value.numpy() for value in values))
        return dict(zip(names, map(np.concatenate, zip(*parts, strict=True)), strict=True))

    def _answer(self, returned: object) -> dict[str, Any]:
        from edgekd.task.primary import LOGITS, answer

        name = LOGITS.name if self.ports is None else self.ports.primary
        return answer(returned, type(self.model).__name__, name)

    def float32(self) -> nn.Module:
        """Return the float model with its outputs in the order of the signature: a tensor, or a tuple of several."""
        from torch import fx

        from edgekd.quantization.answer import keep

        if not isinstance(self._returned, Mapping) or not isinstance(self.model, fx.GraphModule):
            return self.model
        own = copied(self.model)
        keep(own)
        return own

    @cached_property
    def _returned(self) -> object:
        import torch

        with torch.inference_mode():
            return call(self.model, self.example)


@dataclass(frozen=True)
class Options:
    """Options of an export.

    Attributes:
        precision: ``int8`` writes the int8 graph; the others write the float model, whose weights are rounded already
            (``weights.rounded``) where the file holds them in fewer bits.
        io: Type of the float inputs and outputs of an int8 file; float32 unless the exporter says that it has int8.
        activations: Type of the activations in an int8 ONNX file, see ``targets.onnx_activations_for``.
        zero_points: Where an int8 OpenVINO file has those of its convolutions, see ``targets.openvino_zero_points_for``.
        log: File that takes what the converters print; None discards it.
    """

    precision: Precision = "int8"
    io: Io = "float32"
    activations: Literal["uint8", "int8"] = "uint8"
    zero_points: Literal["biases", "activations"] = "biases"
    log: Path | None = None


@dataclass(frozen=True)
class Exported:
    """A file that was written.

    Attributes:
        paths: All its files; the first is the one to load.
        bytes: Size of all of them together.
        inputs: Inputs in order.
        outputs: Outputs in order, the primary one first.
        float_ops: Operations that the int8 rules leave in float.
        float_tensors: Names of the float tensors inside an int8 file, apart from inputs and outputs.
    """

    format: str
    paths: tuple[Path, ...]
    bytes: int
    inputs: tuple[FilePort, ...]
    outputs: tuple[FilePort, ...]
    float_ops: tuple[FloatOperation, ...] = ()
    float_tensors: tuple[str, ...] = ()

    def at(self, folder: Path) -> Exported:
        """Return it with its paths, which are names, in a folder."""
        return replace(self, paths=tuple(folder / path for path in self.paths))

    @property
    def output_scale(self) -> float | None:
        """One int8 step (LSB) of the primary output."""
        return self.outputs[0].step


class Exporter(Protocol):
    """One format. Register the class: ``@exporters.register("name")``.

    The module must import neither torch nor the runtime at its top level: listing formats has to be instant.

    Attributes:
        suffix: Of the file to load, such as ``.onnx``.
        packages: Distributions whose versions decide the bytes; they go into the stage's cache key.
        precisions: What it can write, and why not the rest.
        io: Types that inputs and outputs of an int8 file can have; float32 alone where it is left out.
    """

    suffix: str
    packages: tuple[str, ...]
    precisions: ClassVar[Mapping[Precision, Supported | Refused]]
    io: ClassVar[tuple[Io, ...]] = ("float32",)

    def export(self, source: Source, path: Path, options: Options) -> Exported:
        """Write ``source`` to ``path`` and read it back enough to describe it.

        The same source gives the same bytes, in any process.

        Raises:
            ExportError: The model cannot be written in this format, or the options do not go with it.
        """
        ...


def _port(name: str, value: Tensor, kind: Kind) -> Port:
    from edgekd.task.base import BATCH, Port

    dtype = cast("Dtype", str(value.dtype).removeprefix("torch."))
    return Port(name, (BATCH, *(int(size) for size in value.shape[1:])), dtype, kind)


def _is_map(value: Tensor) -> bool:
    return value.ndim == 4 and value.is_floating_point()


def _as_declared(found: Signature, declared: Signature) -> Signature:
    """Take kinds from what is declared; what else is shipped promises nothing.

    Raises:
        ModelError: The inputs or the primary output are others.
    """
    from edgekd.task.base import Signature

    kinds = {port.name: port.kind for port in (*declared.inputs, *declared.outputs)}
    if unknown := [port.name for port in (*found.inputs, found.output) if port.name not in kinds]:
        raise ModelError(
            f"the network has {', '.join(unknown)}, and its task {', '.join(kinds)}",
            "name inputs and outputs as the task does",
        )
    inputs, outputs = (
        tuple(replace(port, kind=kinds.get(port.name, "values")) for port in ports)
        for ports in (found.inputs, found.outputs)
    )
    return Signature(inputs, outputs, found.primary)


def file_ports(ports: Sequence[Port], *, channels_last: bool = False) -> tuple[FilePort, ...]:
    """Return ports as they are in a float32 file for one sample; ``channels_last`` where its images are NHWC."""
    return tuple(_file_port(port, channels_last) for port in ports)


def _file_port(port: Port, channels_last: bool) -> FilePort:
    shape = port.shape()
    if not is_image(port):
        return FilePort(port.name, shape, port.dtype, "NC" if len(shape) == 2 and "float" in port.dtype else "")
    n, c, *sides = shape
    return FilePort(port.name, (n, *sides, c) if channels_last else shape, port.dtype, "NHWC" if channels_last else "NCHW")


def is_image(port: Port) -> bool:
    """Tell whether a port has a memory layout to choose: N×C×H×W."""
    return port.kind in ("image", "map") and len(port.dims) == 4


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


def output_steps(graph_module: fx.GraphModule) -> tuple[float | None, ...]:
    """Return one int8 step of each output of an int8 graph, None for those that are float."""
    returned = graph_module.graph.output_node().args[0]
    nodes = returned if isinstance(returned, tuple | list) else (returned,)
    return tuple(_step(graph_module, cast("fx.Node", node)) for node in nodes)


def with_steps(ports: Sequence[FilePort], steps: Sequence[float | None]) -> tuple[FilePort, ...]:
    """Return outputs with their int8 steps."""
    return tuple(replace(port, step=step) for port, step in zip(ports, steps, strict=True))


def _step(graph_module: fx.GraphModule, node: fx.Node) -> float | None:
    if "dequantize_per_tensor" not in str(node.target):
        return None
    scale = node.args[1]
    if isinstance(scale, int | float):
        return float(scale)
    assert not isinstance(scale, tuple | list | dict | slice)  # a scale is a number or a node that reads a buffer
    return float(graph_module.get_buffer(str(scale)))
