"""ai-edge-quantizer, LiteRT's own: the precisions of a TFLite file that do not come from the int8 graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from edgekd.errors import ExportError
from edgekd.exporting.exporter import Source, is_image
from edgekd.recipe.export import Precision
from edgekd.runtimes.tflite import flatbuffer
from edgekd.task.base import Port
from edgekd.task.named import batches, count

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


def quantize(content: bytes, precision: Precision, source: Source) -> bytes:
    """Return a float TFLite file with the weights, and for int16x8 the activations, of ``precision``.

    Args:
        content: The float file, NHWC.
        precision: ``float16``, ``dynamic``, ``int8-weights``, ``int4-weights`` or ``int16x8``.
        source: For int16x8, with the samples that the ranges of the activations are from.

    Raises:
        ExportError: int16x8 without samples.
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
    ranges = _ranges(content, chosen, source) if made.need_calibration else None
    return bytes(made.quantize(ranges).quantized_model)


def _ranges(content: bytes, chosen: Any, source: Source) -> dict[str, Any]:
    """The range of every activation, doubled: of 16 bits one can be spared for samples that go beyond.

    Its own calibration follows the ranges by a moving average, which cuts off what is rare.
    """
    from ai_edge_quantizer import calibrator, recipe_manager
    from ai_edge_quantizer.utils import qsv_utils

    if source.samples is None or not count(source.samples):
        raise ExportError("int16x8 needs samples to take the ranges of the activations from", "give images: data.source")
    manager = recipe_manager.RecipeManager()
    manager.load_quantization_recipe(chosen)
    calibrated = calibrator.Calibrator(content, num_threads=1, qsv_update_func=qsv_utils.min_max_update)
    names = flatbuffer.signature_inputs(content)
    inputs = [_as_taken(names, sample, source.signature.inputs) for sample in batches(source.samples, 1)]
    calibrated.calibrate({"serving_default": inputs}, manager)
    constants = flatbuffer.constants(content)
    ranges: dict[str, Any] = calibrated.get_model_qsvs()
    for tensor in ranges.keys() - constants:
        ranges[tensor] = {key: 2 * value if key in ("min", "max") else value for key, value in ranges[tensor].items()}
    return ranges


def _as_taken(names: Sequence[str], sample: Mapping[str, Tensor], ports: Sequence[Port]) -> dict[str, Any]:
    """Return a sample under the names of the file's signature, images NHWC."""
    values = (sample[port.name] for port in ports)
    laid_out = (value.permute(0, 2, 3, 1) if is_image(port) else value for value, port in zip(values, ports, strict=True))
    return {name: value.contiguous().numpy() for name, value in zip(names, laid_out, strict=True)}
