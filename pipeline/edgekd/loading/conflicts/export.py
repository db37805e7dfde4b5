"""Conflicts of artifacts: precisions, types of input and output, and options of a format."""

from __future__ import annotations

from typing import Any

from edgekd.errors import joined
from edgekd.loading.conflicts.found import Found
from edgekd.recipe import Recipe
from edgekd.recipe.export import int8_io
from edgekd.registry import exporters


def options(recipe: Recipe) -> Found:
    """Find artifacts that are asked for twice, and options that the format or the precision does not have."""
    seen: set[tuple[str, str | None]] = set()
    for index, export in enumerate(recipe.export):
        if (export.format, export.precision) in seen:
            yield f"export[{index}]", f"{export.format} is exported twice", "remove one of them"
        seen.add((export.format, export.precision))
        if export.io == "int8" and export.format not in (formats := int8_io()):
            yield (
                f"export[{index}].io",
                f"{export.format} has float32 input and output, always",
                f"only {joined(formats)} can have int8; remove io here",
            )
        int8 = (export.precision or ("int8" if recipe.quantize else "float32")) == "int8"
        if export.activations and not (export.format == "onnx" and int8):
            yield f"export[{index}].activations", "only an int8 ONNX file has a choice of activations", "remove it here"
        if export.zero_points and not (export.format == "openvino" and int8):
            yield f"export[{index}].zero_points", "only an int8 OpenVINO file has a choice of zero points", "remove it here"
        if export.io == "int8" and recipe.quantize is None:
            yield f"export[{index}].io", "int8 io needs a quantized model", "add quantize: {method: qat}"


def precisions(recipe: Recipe) -> Found:
    """Find precisions that a format or this recipe cannot have; each exporter says so of itself."""
    for index, export in enumerate(recipe.export):
        key = f"export[{index}].precision"
        refused: Any = getattr(exporters.get(export.format), "precisions", {}).get(export.precision)
        if hasattr(refused, "why"):
            yield key, f"{export.format} has no {export.precision}: {refused.why}", refused.instead
        elif export.precision == "int8" and recipe.quantize is None:
            yield key, "int8 needs a quantized model", "add quantize: {method: ptq}, or use int8-weights"
        elif export.precision == "int16x8" and recipe.data.source == "random":
            yield key, "the ranges of int16 cannot come from random images", "give real ones: source: images:DIR"
        if export.io == "int8" and recipe.quantize and export.precision not in (None, "int8"):
            yield f"export[{index}].io", f"{export.precision} has float32 input and output", "remove io here"
