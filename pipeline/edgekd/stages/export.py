"""export.FORMAT and export.FORMAT_float: one file for one runtime, from the one trained graph."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from edgekd.recipe import Export, Recipe
from edgekd.registry import exporters
from edgekd.rundir import to_json
from edgekd.stages import quantize, sensitivity, training
from edgekd.stages.context import Context

if TYPE_CHECKING:
    from torch import fx, nn

    from edgekd.export.exporter import Exporter, Source
    from edgekd.quantize.qat import Prepared

ALL_INT8 = "_all_int8"
"""Ends the name of a file that stands beside an artifact to tell what a repair costs; it is measured, not shipped."""
VERSION = 4
PACKAGES = ("torch", "torchvision")


def split(name: str) -> tuple[str, bool]:
    """``export.onnx_float`` → (``onnx``, True)."""
    artifact = name.removeprefix("export.")
    return artifact.removesuffix("_float"), artifact.endswith("_float")


def packages(name: str) -> tuple[str, ...]:
    """The exporter's packages, and torchao where the file is int8."""
    format, is_float = split(name)
    exporter = cast("type[Exporter]", exporters.get(format))()
    return (*PACKAGES, *exporter.packages, *(() if is_float else ("torchao",)))


def config(recipe: Recipe, name: str) -> dict[str, Any]:
    """The student's architecture (its weights come by the inputs), the format and its input and output type."""
    format, is_float = split(name)
    value: dict[str, Any] = training.model_config(recipe, "student") | {"format": format}
    if not is_float:
        value |= {"io": _options(recipe, format).io, "weight_bits": quantize.weight_bits(recipe)}
    return value


def run(context: Context) -> None:
    """Write the model file(s) and ``exported.json``."""
    from edgekd import data
    from edgekd.export.exporter import Options

    format, is_float = split(context.name)
    recipe = context.recipe
    exporter = cast("type[Exporter]", exporters.get(format))()
    classes = len(data.load(recipe.data).classes)
    training.seed(recipe.seed, context.threads)
    artifact = context.name.removeprefix("export.")
    options = Options(
        precision="float32" if is_float else "int8",
        io="float32" if is_float else _options(recipe, format).io,
        log=context.log,
    )

    def write(name: str, *, all_int8: bool = False) -> dict[str, Any]:
        model = source(context, classes, float_only=is_float, all_int8=all_int8)
        exported = exporter.export(model, context.out / f"{name}{exporter.suffix}", options)
        value: dict[str, Any] = to_json(exported)
        return value | {"paths": [path.name for path in exported.paths]}

    value = write(artifact)
    if not is_float and (context.inputs["quantize"] / sensitivity.ALL_INT8).exists():
        value["all_int8"] = write(f"{artifact}{ALL_INT8}", all_int8=True)
    context.write("exported.json", value)


def source(context: Context, classes: int, *, float_only: bool, all_int8: bool = False) -> Source:
    """The trained student as an exporter's input; the int8 graph is rebuilt from the quantize stage's state.

    Args:
        context: A stage's, with the distill and quantize stages among its inputs.
        classes: Of the data.
        float_only: Without an int8 graph.
        all_int8: As it was before layers were given back to float.
    """
    from edgekd import models
    from edgekd.export.exporter import Source
    from edgekd.quantize import qat
    from edgekd.quantize.fold import fold

    example = models.example(context.recipe.data)
    if float_only:
        weights = context.inputs["distill"] / "weights.safetensors"
        return Source(fold(training.student(context.recipe, classes, weights), example), example)
    prepared, student = quantized(context, classes, all_int8=all_int8)

    def int8(fold_weights: bool) -> fx.GraphModule:
        return qat.convert(prepared.module, fold_weights=fold_weights)

    return Source(student, example, int8, prepared.float_ops)


def quantized(context: Context, classes: int, *, all_int8: bool = False) -> tuple[Prepared, nn.Module]:
    """The graph of the quantize stage with its ranges, and the float student that it was made from."""
    from edgekd import models
    from edgekd.quantize import qat

    weights = context.inputs["distill"] / "weights.safetensors"
    graph = context.read("quantize", "graph.json")
    taps, keep_float = tuple(graph["taps"]), () if all_int8 else tuple(graph["keep_float"])
    prepared, student = quantize.prepare(context.recipe, classes, weights, taps, keep_float)
    state = sensitivity.ALL_INT8 if all_int8 else "weights.safetensors"
    qat.load_state(prepared.module, models.read_weights(context.inputs["quantize"] / state))
    return prepared, student


def _options(recipe: Recipe, format: str) -> Export:
    return next(export for export in recipe.export if export.format == format)
