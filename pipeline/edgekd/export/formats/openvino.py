"""OpenVINO: the ONNX graph, converted."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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
            import openvino

            from edgekd.export import ir

            model, scale = onnx_format.build(source, options)
            with tempfile.TemporaryDirectory() as folder:
                # A fixed name: it ends up in the file.
                intermediate = Path(folder) / "model.onnx"
                intermediate.write_bytes(model.SerializeToString(deterministic=True))
                with _telemetry_off():
                    converted = openvino.convert_model(intermediate)
            if options.precision == "int8":
                ir.keep_roundings(converted)
            ir.share_ranges(converted)
            path.parent.mkdir(parents=True, exist_ok=True)
            # 16-bit storage would round the scales, and with them every value.
            openvino.save_model(converted, path, compress_to_fp16=False)
            ir.shorten(path)
            paths = (path, path.with_suffix(".bin"))
            return onnx_format.describe(model, "openvino", paths, source, options, scale)


@contextmanager
def _telemetry_off() -> Iterator[None]:
    """Keep the converter from reporting home: its telemetry is on unless a file or this variable says otherwise."""
    before = os.environ.get("CI")
    os.environ["CI"] = "true"
    try:
        yield
    finally:
        if before is None:
            del os.environ["CI"]
        else:
            os.environ["CI"] = before
