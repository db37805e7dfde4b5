"""The artifacts that a recipe asks for, and what they are called."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field

from edgekd.errors import UsageError, did_you_mean
from edgekd.recipe.base import Strict, mistake
from edgekd.registry import exporters

Precision = Literal["int8", "float32", "float16", "dynamic", "int8-weights", "int4-weights", "int16x8"]
Io = Literal["float32", "int8"]


class Export(Strict):
    """One artifact."""

    format: Annotated[str, Field(examples=["onnx"])]
    """onnx, tflite, openvino, or the name of another exporter that is installed."""
    precision: Precision | None = None
    """int8 (default with quantize), float32 (default without), or of the float student, without a quantize section: float16,
    int8-weights, int4-weights (weights stored in fewer bits, computed in float), dynamic (int8 weights, activations
    quantized as they come), int16x8 (16-bit activations, 8-bit weights). docs/formats.md says which format has which."""
    io: Io = "float32"
    """Type of the input and the output; int8 where the format has it, such as tflite."""
    activations: Literal["uint8", "int8"] | None = None
    """Type of the activations of an int8 ONNX file; the values are the same. Left out: int8, which Arm computes with, where
    all devices of the recipe are Arm, else uint8."""
    zero_points: Literal["biases", "activations"] | None = None
    """Where an int8 OpenVINO file has the zero points of its convolutions; the values are the same. Left out: in the biases,
    which is faster on x86, where all devices of the recipe are x86; else with the activations: OpenVINO 2026.4 on Arm
    refuses convolutions that have them in their biases."""


def _export(value: Any) -> Any:
    if isinstance(value, str):
        value = {"format": value}
    if isinstance(value, dict) and isinstance(value.get("format"), str) and value["format"] not in exporters:
        hint = did_you_mean(value["format"], exporters.names())
        raise mistake(f"unknown format {value['format']!r}", hint, "format")
    return value


AnyExport = Annotated[Export, BeforeValidator(_export)]


def int8_io() -> tuple[str, ...]:
    """Return the formats whose inputs and outputs can be int8, as their exporters say."""
    found = []
    for name in exporters.names():
        with suppress(UsageError):  # a third party's package that is broken, and perhaps not used
            if "int8" in getattr(exporters.get(name), "io", ()):
                found.append(name)
    return tuple(found)


def stage_name(format: str, precision: Precision) -> str:
    """``onnx``, ``int8-weights`` → ``export.onnx_int8_weights``; int8 is ``export.onnx``, float32 ``export.onnx_float``."""
    return f"export.{format}{_suffix(precision)}"


def split_name(name: str) -> tuple[str, Precision]:
    """``export.onnx_float`` → (``onnx``, ``float32``)."""
    artifact = name.removeprefix("export.")
    for precision in get_args(Precision):
        suffix = _suffix(precision)
        if suffix and artifact.endswith(suffix):
            return artifact.removesuffix(suffix), precision
    return artifact, "int8"


def _suffix(precision: Precision) -> str:
    return {"int8": "", "float32": "_float"}.get(precision, f"_{precision.replace('-', '_')}")
