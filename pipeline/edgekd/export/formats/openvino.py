"""OpenVINO: the ONNX graph, converted."""

from __future__ import annotations

import tempfile
from pathlib import Path

from edgekd.export import telemetry
from edgekd.export.capture import captured
from edgekd.export.exporter import Exported, Options, Source, require_float_io
from edgekd.export.formats import onnx as onnx_format
from edgekd.registry import exporters


@exporters.register("openvino")
class OpenVinoExporter:
    """Write an ``.xml`` with its ``.bin`` beside it; input ``input`` (NCHW), output ``logits``, float32 at both ends."""

    suffix = ".xml"
    packages = (*onnx_format.OnnxExporter.packages, "openvino")

    def export(self, source: Source, path: Path, options: Options) -> Exported:
        """Write ``path`` and the ``.bin`` of the same name; see ``Exporter``."""
        require_float_io(options, "openvino")
        with captured(options.log, f"writing {path.name}"):
            from edgekd.export import ir

            openvino = telemetry.import_openvino()
            model, scale = onnx_format.build(source, options)
            with tempfile.TemporaryDirectory() as folder:
                # A fixed name: it ends up in the file.
                intermediate = Path(folder) / "model.onnx"
                intermediate.write_bytes(model.SerializeToString(deterministic=True))
                with telemetry.off():
                    converted = openvino.convert_model(intermediate)
            if options.precision == "int8":
                ir.fold_scalars(converted)
                ir.keep_roundings(converted)
            ir.share_ranges(converted)
            path.parent.mkdir(parents=True, exist_ok=True)
            # 16-bit storage would round the scales, and with them every value.
            openvino.save_model(converted, path, compress_to_fp16=False)
            ir.shorten(path)
            paths = (path, path.with_suffix(".bin"))
            return onnx_format.describe(model, "openvino", paths, source, options, scale)
