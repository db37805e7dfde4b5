"""int8 files made by other tools, from the same float model and the same calibration images as edgekd's.

Each function takes float files that edgekd exported and the images (N, C, H, W) float32, and writes one file for the same
runtime. The settings are the fastest that the tool documents for a CPU.

    pip install -e '.[peers]'
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Images = NDArray[np.float32]


def onnxruntime_static(float_file: Path, images: Images, target: Path, reduce_range: bool) -> None:
    """ONNX Runtime ``quantize_static``: QDQ, uint8 activations, int8 weights a channel, after its own pre-processing.

    Args:
        float_file: A float .onnx.
        images: Calibration images.
        target: The .onnx to write.
        reduce_range: Seven-bit weights, for CPUs that add pairs of products in 16 bits.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime ships no types
        def __init__(self) -> None:
            self._rows = _rows(images)

        def get_next(self) -> dict[str, Images] | None:
            row = next(self._rows, None)
            return None if row is None else {"input": row}

    prepared = target.with_suffix(".prepared.onnx")
    quant_pre_process(float_file, prepared)
    quantize_static(
        prepared, target, Reader(),
        quant_format=QuantFormat.QDQ, activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
        per_channel=True, reduce_range=reduce_range,
    )  # fmt: skip
    prepared.unlink()


def nncf_openvino(float_file: Path, images: Images, target: Path, preset: str) -> None:
    """NNCF post-training quantization of an OpenVINO model; ``preset`` is ``performance`` or ``mixed``."""
    import nncf
    import openvino

    model = openvino.Core().read_model(float_file)
    quantized = nncf.quantize(model, _nncf_images(images), preset=nncf.QuantizationPreset(preset), subset_size=len(images))
    openvino.save_model(quantized, target, compress_to_fp16=False)


def nncf_onnx(float_file: Path, images: Images, target: Path, preset: str) -> None:
    """NNCF post-training quantization of an ONNX model; ``preset`` is ``performance`` or ``mixed``."""
    import nncf
    import onnx

    model = onnx.load(float_file)
    quantized = nncf.quantize(model, _nncf_images(images), preset=nncf.QuantizationPreset(preset), subset_size=len(images))
    onnx.save(quantized, target)


def ai_edge_quantizer(float_file: Path, images: Images, target: Path) -> None:
    """ai-edge-quantizer: static int8 weights a channel and int8 activations, of a float TFLite file in NHWC.

    Input and output stay float, as in all the other files: its recipe alone would leave both conversions to the caller.
    """
    from ai_edge_quantizer import quantizer, recipe_manager
    from ai_edge_quantizer.algorithm_manager import AlgorithmName
    from ai_edge_quantizer.qtyping import TFLOperationName

    rules = recipe_manager.RecipeManager()
    rules.add_static_config(".*", TFLOperationName.ALL_SUPPORTED, activation_num_bits=8, weight_num_bits=8)
    for end in (TFLOperationName.INPUT, TFLOperationName.OUTPUT):
        rules.add_quantization_config(".*", end, algorithm_key=AlgorithmName.NO_QUANTIZE)
    tool = quantizer.Quantizer(str(float_file), rules.get_quantization_recipe())
    rows = [{"input": np.ascontiguousarray(row.transpose(0, 2, 3, 1))} for row in _rows(images)]
    ranges = tool.calibrate({"serving_default": rows}, num_threads=1)
    tool.quantize(ranges).export_model(str(target), overwrite=True)


def _nncf_images(images: Images) -> Any:
    import nncf

    return nncf.Dataset([{"input": row} for row in _rows(images)])


def _rows(images: Images) -> Iterator[Images]:
    return (images[index : index + 1] for index in range(len(images)))
