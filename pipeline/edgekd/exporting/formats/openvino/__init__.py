"""OpenVINO: the ONNX graph, converted."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from edgekd.exporting.capture import captured
from edgekd.exporting.causes import explained, operator_name
from edgekd.exporting.exporter import Exported, Options, Refused, Source, Supported, require_float_io, require_precision
from edgekd.exporting.formats import onnx as onnx_format
from edgekd.exporting.lacks import is_complex
from edgekd.recipe.export import Io, Precision
from edgekd.registry import exporters
from edgekd.runtimes import openvino as runtime
from edgekd.runtimes import silence

if TYPE_CHECKING:
    from torch import fx


_UNREAD = {"linalg_det": "OpenVINO cannot read ONNX's Det", "det": "OpenVINO cannot read ONNX's Det"}


@exporters.register("openvino")
class OpenVinoExporter:
    """Write an ``.xml`` with its ``.bin`` beside it; images NCHW, names of the ports, float32 at both ends."""

    suffix = ".xml"
    packages = (*onnx_format.OnnxExporter.packages, "openvino")
    io: ClassVar[tuple[Io, ...]] = ("float32",)
    precisions: ClassVar[Mapping[Precision, Supported | Refused]] = {
        "int8": Supported("int8"),
        "float32": Supported("float32"),
        "float16": Supported("float32; weights become float32 when the file is loaded"),
        "int8-weights": Supported("float32; weights of convolutions become float32 when the file is loaded"),
        "int4-weights": Supported("float32; weights of convolutions become float32 when the file is loaded"),
        "dynamic": Refused(
            "OpenVINO quantizes activations as they come in linear layers alone, not in convolutions",
            "use int8 with quantize: {method: ptq}, int8-weights, or dynamic in tflite",
        ),
        "int16x8": Refused(
            "OpenVINO's CPU plugin has no 16-bit integers",
            "use float16 or int8-weights, or int16x8 in tflite",
        ),
    }

    @staticmethod
    def lacks(node: fx.Node) -> str:
        """Return why OpenVINO cannot have an operator; see ``Refusing``."""
        if is_complex(node):
            return "OpenVINO computes in real numbers only"
        return _UNREAD.get(operator_name(node)) or onnx_format.OnnxExporter.lacks(node)

    def export(self, source: Source, path: Path, options: Options) -> Exported:
        """Write ``path`` and the ``.bin`` of the same name; see ``Exporter``."""
        require_precision(options, "openvino", self.precisions)
        require_float_io(options, "openvino")
        with captured(options.log, f"writing {path.name}"):
            from edgekd.exporting.formats.openvino import ir, sigmoids, zero_points

            openvino = runtime.imported()
            half = options.precision == "float16"
            # Its own compression marks the constants, which a cast in the graph would not survive.
            written = replace(options, precision="float32" if half else options.precision, activations="uint8")
            model, steps = onnx_format.build(source, written, path.name, "openvino")
            with tempfile.TemporaryDirectory() as folder:
                # A fixed name: it ends up in the file.
                intermediate = Path(folder) / "model.onnx"
                intermediate.write_bytes(model.SerializeToString(deterministic=True))
                graph = partial(source.graph, options.precision)
                with silence.off(), explained(f"writing {path.name}", "openvino", graph, options.log):
                    converted = openvino.convert_model(intermediate)
            if options.precision == "int8":
                ir.fold_scalars(converted)
                ir.fold_layers(converted)
                ir.keep_roundings(converted)
                ir.keep_epsilons(converted)
                sigmoids.write_as_polynomials(converted)
                if options.zero_points == "biases":
                    zero_points.move_into_biases(converted)
            ir.share_ranges(converted)
            path.parent.mkdir(parents=True, exist_ok=True)
            if options.precision in ("int8-weights", "int4-weights"):
                # Linear layers with integer weights would have their activations quantized as they come.
                converted.set_rt_info("0", ["runtime_options", "DYNAMIC_QUANTIZATION_GROUP_SIZE"])
            # 16-bit storage would round the scales of int8, and with them every value; weights of float16 it keeps.
            openvino.save_model(converted, path, compress_to_fp16=half)
            ir.shorten(path, [port.name for port in (*source.signature.inputs, *source.signature.outputs)])
            paths = (path, path.with_suffix(".bin"))
            return onnx_format.describe(model, "openvino", paths, source, options, steps)
