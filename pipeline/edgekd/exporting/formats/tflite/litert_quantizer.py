"""ai-edge-quantizer, LiteRT's own: the precisions of a TFLite file that do not come from the int8 graph."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgekd.errors import ExportError
from edgekd.recipe.export import Precision
from edgekd.runtimes.tflite import flatbuffer

if TYPE_CHECKING:
    from torch import Tensor

# Its recipes have none for float16; this is what its ``add_weight_only_config`` would write for 16 bits.
_FLOAT16 = [
    {
        "regex": ".*",
        "operation": "*",
        "algorithm_key": "float_casting",
        "op_config": {
            "weight_tensor_config": {"num_bits": 16, "dtype": "FLOAT"},
            "compute_precision": "FLOAT",
            "explicit_dequantize": True,
        },
    }
]


def quantize(content: bytes, precision: Precision, images: Tensor | None) -> bytes:
    """Return a float TFLite file with the weights, and for int16x8 the activations, of ``precision``.

    Args:
        content: The float file, NHWC.
        precision: ``float16``, ``dynamic``, ``int8-weights``, ``int4-weights`` or ``int16x8``.
        images: For int16x8, what the ranges of the activations are from, (N, C, H, W).

    Raises:
        ExportError: int16x8 without images.
    """
    from ai_edge_quantizer import quantizer, recipe

    recipes: dict[Precision, Any] = {
        "float16": lambda: _FLOAT16,
        "dynamic": recipe.dynamic_wi8_afp32,
        "int8-weights": recipe.weight_only_wi8_afp32,
        "int4-weights": recipe.weight_only_wi4_afp32,
        "int16x8": recipe.static_wi8_ai16,
    }
    chosen = recipes[precision]()
    made = quantizer.Quantizer(content, chosen)
    ranges = _ranges(content, chosen, images) if made.need_calibration else None
    return bytes(made.quantize(ranges).quantized_model)


def _ranges(content: bytes, chosen: Any, images: Tensor | None) -> dict[str, Any]:
    """The range of every activation, doubled: of 16 bits one can be spared for images that go beyond.

    Its own calibration follows the ranges by a moving average, which cuts off what is rare.
    """
    from ai_edge_quantizer import calibrator, recipe_manager
    from ai_edge_quantizer.utils import qsv_utils

    if images is None or not len(images):
        raise ExportError("int16x8 needs images to take the ranges of the activations from", "give images: data.source")
    manager = recipe_manager.RecipeManager()
    manager.load_quantization_recipe(chosen)
    calibrated = calibrator.Calibrator(content, num_threads=1, qsv_update_func=qsv_utils.min_max_update)
    name = flatbuffer.signature_input(content)
    inputs = [{name: image[None].permute(0, 2, 3, 1).contiguous().numpy()} for image in images]
    calibrated.calibrate({"serving_default": inputs}, manager)
    constants = flatbuffer.constants(content)
    ranges: dict[str, Any] = calibrated.get_model_qsvs()
    for tensor in ranges.keys() - constants:
        ranges[tensor] = {key: 2 * value if key in ("min", "max") else value for key, value in ranges[tensor].items()}
    return ranges
