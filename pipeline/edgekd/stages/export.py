"""export.FORMAT, export.FORMAT_float and export.FORMAT_PRECISION: one file for one runtime, from the one trained student."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast, get_args

from edgekd.recipe import Export, Precision, Recipe
from edgekd.registry import exporters
from edgekd.rundir import to_json
from edgekd.stages import quantize, training
from edgekd.stages.context import Context

if TYPE_CHECKING:
    from torch import fx

    from edgekd.export.exporter import Exporter, Source

VERSION = 3
PACKAGES = ("torch", "torchvision")
CALIBRATION = 128  # images that the ranges of int16 activations are from


def stage_name(format: str, precision: Precision) -> str:
    """``onnx``, ``int8-weights`` → ``export.onnx_int8_weights``; int8 is ``export.onnx``, float32 ``export.onnx_float``."""
    return f"export.{format}{_suffix(precision)}"


def split(name: str) -> tuple[str, Precision]:
    """``export.onnx_float`` → (``onnx``, ``float32``)."""
    artifact = name.removeprefix("export.")
    for precision in get_args(Precision):
        suffix = _suffix(precision)
        if suffix and artifact.endswith(suffix):
            return artifact.removesuffix(suffix), precision
    return artifact, "int8"


def _suffix(precision: Precision) -> str:
    return {"int8": "", "float32": "_float"}.get(precision, f"_{precision.replace('-', '_')}")


def precision_of(export: Export, recipe: Recipe) -> Precision:
    """The precision of an artifact: what it says, or int8 where the recipe quantizes, else float32."""
    return export.precision or ("int8" if recipe.quantize else "float32")


def packages(name: str) -> tuple[str, ...]:
    """The exporter's packages, and torchao where the file is int8."""
    format, precision = split(name)
    exporter = cast("type[Exporter]", exporters.get(format))()
    return (*PACKAGES, *exporter.packages, *(("torchao",) if precision == "int8" else ()))


def config(recipe: Recipe, name: str) -> dict[str, Any]:
    """The student's architecture (its weights come by the inputs), the format and its input and output type."""
    format, precision = split(name)
    value: dict[str, Any] = training.model_config(recipe, "student") | {"format": format}
    if precision not in ("int8", "float32"):
        value["precision"] = precision
    if precision == "int8":
        value |= {"io": _options(recipe, format).io, "weight_bits": quantize.weight_bits(recipe)}
    return value


def run(context: Context) -> None:
    """Write the model file(s) and ``exported.json``."""
    from edgekd import data
    from edgekd.export.exporter import Options

    format, precision = split(context.name)
    recipe = context.recipe
    exporter = cast("type[Exporter]", exporters.get(format))()
    images = data.load(recipe.data)
    training.seed(recipe.seed, context.threads)
    made = source(context, len(images.classes), precision)
    if precision == "int16x8":
        made = replace(made, images=quantize.calibration_images(images, CALIBRATION))
    exported = exporter.export(
        made,
        context.out / f"{context.name.removeprefix('export.')}{exporter.suffix}",
        Options(
            precision=precision,
            io=_options(recipe, format).io if precision == "int8" else "float32",
            log=context.log,
        ),
    )
    value = to_json(exported)
    context.write("exported.json", value | {"paths": [path.name for path in exported.paths]})


def source(context: Context, classes: int, precision: Precision) -> Source:
    """The trained student as an exporter's input, with the weights that a file of ``precision`` holds.

    The int8 graph is rebuilt from the quantize stage's state.
    """
    from edgekd import models
    from edgekd.export.exporter import Source
    from edgekd.export.weights import rounded
    from edgekd.quantize import qat
    from edgekd.quantize.fold import fold

    recipe = context.recipe
    weights = context.inputs[training.trained(recipe)] / "weights.safetensors"
    example = models.example(recipe.data)
    if precision != "int8":
        return Source(rounded(fold(training.student(recipe, classes, weights), example), precision), example)
    graph = context.read("quantize", "graph.json")
    prepared, student = quantize.prepare(recipe, classes, weights, tuple(graph["taps"]))
    qat.load_state(prepared.module, models.read_weights(context.inputs["quantize"] / "weights.safetensors"))

    def quantized(fold_weights: bool) -> fx.GraphModule:
        return qat.convert(prepared.module, fold_weights=fold_weights)

    return Source(student, example, quantized, prepared.float_ops)


def _options(recipe: Recipe, format: str) -> Export:
    return next(export for export in recipe.export if export.format == format and precision_of(export, recipe) == "int8")
