"""ONNX: int8 as quantize and dequantize nodes around every operator, which ONNX Runtime and OpenVINO fuse."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
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
    output_steps,
    require_float_io,
    require_precision,
    total_bytes,
    with_steps,
)
from edgekd.exporting.formats.onnx.torchlib import OPSET, one_registry
from edgekd.recipe.export import Io, Precision
from edgekd.registry import exporters

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir
    from torch import fx

Steps = tuple[float | None, ...]


@exporters.register("onnx")
class OnnxExporter:
    """Write ONNX with static batch 1, images NCHW, inputs and outputs named as the ports, float32 at both ends."""

    suffix = ".onnx"
    packages = ("torch", "onnx", "onnxscript", "onnx-ir")
    io: ClassVar[tuple[Io, ...]] = ("float32",)
    precisions: ClassVar[Mapping[Precision, Supported | Refused]] = {
        "int8": Supported("int8; activations uint8, for Arm int8"),
        "float32": Supported("float32"),
        "float16": Supported("float32; weights become float32 when the file is loaded"),
        "int8-weights": Supported("float32; weights become float32 when the file is loaded"),
        "int4-weights": Supported("float32; weights become float32 when the file is loaded"),
        "dynamic": Refused(
            "ONNX Runtime's dynamically quantized convolutions are slower than float",
            "use int8 with quantize: {method: ptq}, int8-weights, or dynamic in tflite",
        ),
        "int16x8": Refused(
            "ONNX Runtime has no kernels for 16-bit activations and would compute in float32",
            "use float16 or int8-weights, or int16x8 in tflite",
        ),
    }

    @staticmethod
    def lacks(node: fx.Node) -> str:
        """Return why ONNX cannot have an operator; see ``Refusing``."""
        from edgekd.exporting.formats.onnx.torchlib import has

        return "" if has(node.target) else f"torch's ONNX exporter has no {operator_name(node)}"

    def export(self, source: Source, path: Path, options: Options) -> Exported:
        """Write ``path``; see ``Exporter``."""
        require_precision(options, "onnx", self.precisions)
        require_float_io(options, "onnx")
        import onnx

        from edgekd.exporting.formats.onnx import fusions, qdq

        with captured(options.log, f"writing {path.name}"):
            model, steps = build(source, options, path.name)
            if options.precision == "int8":
                fusions.clip_integers(model)
                fusions.pool_means(model)
                qdq.hold_float_layers(model)
                onnx.checker.check_model(model, full_check=True)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(model.SerializeToString(deterministic=True))
            return describe(model, "onnx", (path,), source, options, steps)


def build(source: Source, options: Options, name: str, format: str = "onnx") -> tuple[onnx.ModelProto, Steps]:
    """Return the ONNX model in memory and one int8 step of each output.

    Args:
        source: What is exported.
        options: How.
        name: Of the file that is written from it, for messages.
        format: Of that file, likewise.

    Raises:
        ExportError: torch's exporter has no ONNX for an operator.
    """
    import onnx
    import torch

    from edgekd.exporting.formats.onnx import attention, qdq, storage
    from edgekd.exporting.lacks import require_operators
    from edgekd.quantization.rounded import BITS

    int8 = options.precision == "int8"
    module: Any = source.graph(options.precision)
    require_operators(module, format, name)
    ports = source.signature
    steps = output_steps(module) if int8 else (None,) * len(ports.outputs)
    with one_registry(), idle_work.left_out(), explained(f"writing {name}", format, lambda: module, options.log):
        program = torch.onnx.export(
            attention.with_heads(module.eval()),
            tuple(source.inputs.values()),
            dynamo=True,
            opset_version=OPSET,
            input_names=[port.name for port in ports.inputs],
            output_names=[port.name for port in ports.outputs],
            external_data=False,
            verbose=False,
        )
    assert program is not None  # torch returns None only without dynamo
    _keep_names_apart(program.model.graph)
    model = program.model_proto
    if int8:
        if options.activations == "uint8":
            qdq.shift_to_uint8(model)
        qdq.drop_zero_weight_offsets(model)
        qdq.pool_globally(model)
        qdq.drop_identities(model)
    qdq.compact(model)
    if options.precision == "float16":
        storage.store_float16(model)
    elif not int8 and options.precision in BITS:
        storage.store_integers(model, BITS[options.precision])
    onnx.checker.check_model(model, full_check=True)
    return model, steps


def _keep_names_apart(graph: ir.Graph) -> None:
    """Give another name to each value inside that is called as an input or output: of an output ``relu``, a ReLU before it.

    torch names what is inside first, by the operators, and then the inputs and outputs as it was asked.
    """
    ports = {id(value): value.name for value in (*graph.inputs, *graph.outputs)}
    inside = [value for node in graph for value in node.outputs] + [*graph.initializers.values()]
    taken = {value.name for value in inside} | {*ports.values()}
    for value in inside:
        if id(value) in ports or value.name not in ports.values():
            continue
        name = next(name for name in (f"{value.name}_{number}" for number in itertools.count(1)) if name not in taken)
        taken.add(name)
        value.name = name


def describe(
    model: onnx.ModelProto,
    format: str,
    paths: tuple[Path, ...],
    source: Source,
    options: Options,
    steps: Steps,
) -> Exported:
    """Return the facts about a written file; OpenVINO's come from the ONNX model that it was made of."""
    from edgekd.exporting.formats.onnx import qdq

    int8 = options.precision == "int8"
    return Exported(
        format=format,
        paths=paths,
        bytes=total_bytes(paths),
        inputs=file_ports(source.signature.inputs),
        outputs=with_steps(file_ports(source.signature.outputs), steps),
        float_ops=source.float_ops if int8 else (),
        float_tensors=qdq.float_tensors(model) if int8 else (),
    )
