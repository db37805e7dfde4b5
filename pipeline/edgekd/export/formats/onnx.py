"""ONNX: int8 as quantize and dequantize nodes around every operator, which ONNX Runtime and OpenVINO fuse."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekd.export.capture import captured
from edgekd.export.exporter import (
    Exported,
    Options,
    Source,
    TensorInfo,
    output_step,
    require_float_io,
    total_bytes,
)
from edgekd.registry import exporters

if TYPE_CHECKING:
    import onnx

# 21 is the first that could type a quantize node without its zero point, and adds nothing that is needed here; 20 is
# read by every runtime of the last two years.
_OPSET = 20


@exporters.register("onnx")
class OnnxExporter:
    """Write ONNX with static batch 1, input ``input`` (NCHW) and output ``logits``, float32 at both ends."""

    suffix = ".onnx"
    packages = ("torch", "onnx", "onnxscript", "onnx-ir")

    def export(self, source: Source, path: Path, options: Options) -> Exported:
        """Write ``path``; see ``Exporter``."""
        require_float_io(options, "onnx")
        with captured(options.log, f"writing {path.name}"):
            model, scale = build(source, options)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(model.SerializeToString(deterministic=True))
            return describe(model, "onnx", (path,), source, options, scale)


def build(source: Source, options: Options) -> tuple[onnx.ModelProto, float | None]:
    """Return the ONNX model in memory and one int8 step of its logits."""
    import onnx
    import torch

    from edgekd.export import qdq

    int8 = options.precision == "int8"
    module: Any = source.int8(fold_weights=True) if int8 else source.model
    scale = output_step(module) if int8 else None
    program = torch.onnx.export(
        module.eval(),
        (source.example,),
        dynamo=True,
        opset_version=_OPSET,
        input_names=["input"],
        output_names=["logits"],
        external_data=False,
        verbose=False,
    )
    assert program is not None
    model = program.model_proto
    if int8:
        qdq.shift_to_uint8(model)
        qdq.drop_zero_weight_offsets(model)
        qdq.pool_globally(model)
        qdq.drop_identities(model)
    qdq.compact(model)
    onnx.checker.check_model(model, full_check=True)
    return model, scale


def describe(
    model: onnx.ModelProto,
    format: str,
    paths: tuple[Path, ...],
    source: Source,
    options: Options,
    scale: float | None,
) -> Exported:
    """Return the facts about a written file; OpenVINO's come from the ONNX model that it was made of."""
    from edgekd.export import qdq

    int8 = options.precision == "int8"
    return Exported(
        format=format,
        paths=paths,
        bytes=total_bytes(paths),
        inputs=tuple(_info(value) for value in model.graph.input),
        outputs=tuple(_info(value) for value in model.graph.output),
        output_scale=scale,
        float_ops=source.float_ops if int8 else (),
        float_tensors=qdq.float_tensors(model) if int8 else (),
    )


def _info(value: onnx.ValueInfoProto) -> TensorInfo:
    shape = tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
    return TensorInfo(value.name, shape, "float32", "NCHW" if len(shape) == 4 else "NC")
