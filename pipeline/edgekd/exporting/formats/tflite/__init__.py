"""TensorFlow Lite, by LiteRT: int8 throughout, NHWC."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from edgekd.exporting import idle_work
from edgekd.exporting.capture import captured
from edgekd.exporting.causes import explained, operator_name
from edgekd.exporting.exporter import (
    Exported,
    Options,
    Refused,
    Source,
    Supported,
    file_ports,
    is_image,
    output_steps,
    require_precision,
    total_bytes,
    with_steps,
)
from edgekd.exporting.lacks import is_complex
from edgekd.recipe.export import Io, Precision
from edgekd.registry import exporters
from edgekd.results.models import FilePort

if TYPE_CHECKING:
    from torch import fx


_FAILING = {
    "one_hot": "its values are checked while it runs, which TensorFlow Lite cannot",
    "sort": "TensorFlow Lite has no sort, and its converter writes one that no runtime has",
    "argsort": "TensorFlow Lite has no sort, and its converter writes one that no runtime has",
}


@exporters.register("tflite")
class TfliteExporter:
    """Write TFLite with static batch 1, images NHWC, names of the ports; floats are float32 or int8 at both ends."""

    suffix = ".tflite"
    packages = ("torch", "litert-torch", "litert-converter", "ai-edge-litert", "ai-edge-quantizer")
    io: ClassVar[tuple[Io, ...]] = ("float32", "int8")
    precisions: ClassVar[Mapping[Precision, Supported | Refused]] = {
        "int8": Supported("int8"),
        "float32": Supported("float32"),
        "float16": Supported("float32; weights become float32 when the file is loaded"),
        "dynamic": Supported("int8, for convolutions and linear layers that XNNPACK has so; else float32"),
        "int8-weights": Supported("float32; weights become float32 when the file is loaded"),
        "int4-weights": Supported("float32; weights become float32 at every inference, which is slow"),
        "int16x8": Supported("int16 activations, by reference kernels: many times slower than float32 on a CPU"),
    }

    @staticmethod
    def lacks(node: fx.Node) -> str:
        """Return why TensorFlow Lite cannot have an operator; see ``Refusing``."""
        from edgekd.exporting.formats.tflite.lowerings import has

        name = operator_name(node)
        if is_complex(node):
            return "TensorFlow Lite computes in real numbers only"
        return _FAILING.get(name) or ("" if has(node.target) else f"the TensorFlow Lite converter has no {name}")

    def export(self, source: Source, path: Path, options: Options) -> Exported:
        """Write ``path``; see ``Exporter``."""
        require_precision(options, "tflite", self.precisions)
        with captured(options.log, f"writing {path.name}"):
            from edgekd.exporting.formats.tflite import litert_quantizer
            from edgekd.exporting.lacks import require_operators
            from edgekd.runtimes.tflite import flatbuffer

            int8 = options.precision == "int8"
            # The converter wants float weights with their quantize nodes; it makes them int8, and biases int32.
            module: Any = source.int8(fold_weights=False) if int8 else source.float32()
            require_operators(module, "tflite", path.name)
            ports = source.signature
            steps = output_steps(module) if int8 else (None,) * len(ports.outputs)
            with explained(f"writing {path.name}", "tflite", lambda: module, options.log):
                content = _convert(module.eval(), source, int8=int8)
            if options.precision not in ("int8", "float32"):
                content = litert_quantizer.quantize(content, options.precision, source)
            model = flatbuffer.read(content)
            if int8 and options.io == "int8":
                flatbuffer.set_int8_edges(model)
            else:
                flatbuffer.set_float_edges(model)
            flatbuffer.drop_double_negations(model)
            flatbuffer.pad_with_zero(model)
            flatbuffer.drop_unused(model)
            left = flatbuffer.float_tensors(model) if int8 else ()
            flatbuffer.compact(model, [port.name for port in ports.inputs], [port.name for port in ports.outputs])
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(flatbuffer.write(model))
            graph = model.subgraphs[0]
            return Exported(
                format="tflite",
                paths=(path,),
                bytes=total_bytes((path,)),
                inputs=_as_written(file_ports(ports.inputs, channels_last=True), graph, graph.inputs),
                outputs=_as_written(with_steps(file_ports(ports.outputs, channels_last=True), steps), graph, graph.outputs),
                float_ops=source.float_ops if int8 else (),
                float_tensors=left,
            )


def _convert(module: Any, source: Source, *, int8: bool) -> bytes:
    import litert_torch
    from litert_torch.quantize.pt2e_quantizer import PT2EQuantizer, get_symmetric_quantization_config
    from litert_torch.quantize.quant_config import QuantConfig

    from edgekd.exporting.formats.tflite import litert_graph

    # Only the mode is read from it: static. The graph brings its own scales.
    static = QuantConfig(pt2e_quantizer=PT2EQuantizer().set_global(get_symmetric_quantization_config()))
    inputs, outputs = ([is_image(port) for port in ports] for ports in (source.signature.inputs, source.signature.outputs))
    prepared = litert_graph.prepare(module, [left.node for left in source.float_ops])
    if any(inputs) or any(outputs):
        prepared = litert_torch.to_channel_last_io(
            prepared,
            args=[place for place, image in enumerate(inputs) if image],
            outputs=[place for place, image in enumerate(outputs) if image],
        )
    sample = tuple(
        channels_last(value) if image else value for value, image in zip(source.inputs.values(), inputs, strict=True)
    )
    with _strict(), idle_work.left_out():
        converted = litert_torch.convert(prepared.eval(), sample, quant_config=static if int8 else None)
    content: bytes = converted.model_content() if hasattr(converted, "model_content") else converted._exporter.to_bytes()
    return content


@contextmanager
def _strict() -> Iterator[None]:
    """Let the converter make int8 what the graph says and nothing else.

    By itself it hands scales on to neighbours without one: a layer kept in float was int8 in the file. The library has no
    argument for the option.
    """
    from litert_torch._convert.litert_converter import converter_api_ext as extension

    configuration = extension.ConvertToTFLConfig

    def strict() -> Any:
        made = configuration()
        made.strict_qdq_mode = True
        return made

    extension.ConvertToTFLConfig = strict
    try:
        yield
    finally:
        extension.ConvertToTFLConfig = configuration


def channels_last(images: Any) -> Any:
    """Return images N×C×H×W as N×H×W×C."""
    return images.permute(0, 2, 3, 1).contiguous()


def _as_written(ports: Sequence[FilePort], graph: Any, indices: Any) -> tuple[FilePort, ...]:
    """Return ports with the types that the file has: integers for floats, and 32 bits for 64."""
    from edgekd.runtimes.tflite import flatbuffer

    tensors = [graph.tensors[index] for index in indices]
    steps = (flatbuffer.quantization(tensor) or (None, None) for tensor in tensors)
    return tuple(
        replace(port, dtype=flatbuffer.dtype(tensor), scale=scale, zero_point=zero_point)
        for port, tensor, (scale, zero_point) in zip(ports, tensors, steps, strict=True)
    )
