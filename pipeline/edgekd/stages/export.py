"""export.FORMAT and export.FORMAT_float: one file for one runtime, from the one trained graph."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from edgekd.recipe import Export, Recipe
from edgekd.registry import exporters
from edgekd.rundir import to_json
from edgekd.stages import quantize, training
from edgekd.stages.context import Context

if TYPE_CHECKING:
    from torch import fx

    from edgekd.export.exporter import Exporter, Source

VERSION = 3
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
    exported = exporter.export(
        source(context, classes, float_only=is_float),
        context.out / f"{context.name.removeprefix('export.')}{exporter.suffix}",
        Options(
            precision="float32" if is_float else "int8",
            io="float32" if is_float else _options(recipe, format).io,
            log=context.log,
        ),
    )
    value = to_json(exported)
    context.write("exported.json", value | {"paths": [path.name for path in exported.paths]})


def source(context: Context, classes: int, *, float_only: bool) -> Source:
    """The trained student as an exporter's input; the int8 graph is rebuilt from the quantize stage's state."""
    from edgekd import models
    from edgekd.export.exporter import Source
    from edgekd.quantize import qat
    from edgekd.quantize.fold import fold

    recipe = context.recipe
    weights = context.inputs[training.trained(recipe)] / "weights.safetensors"
    example = models.example(recipe.data)
    if float_only:
        return Source(fold(training.student(recipe, classes, weights), example), example)
    graph = context.read("quantize", "graph.json")
    prepared, student = quantize.prepare(recipe, classes, weights, tuple(graph["taps"]))
    qat.load_state(prepared.module, models.read_weights(context.inputs["quantize"] / "weights.safetensors"))

    def quantized(fold_weights: bool) -> fx.GraphModule:
        return qat.convert(prepared.module, fold_weights=fold_weights)

    return Source(student, example, quantized, prepared.float_ops)


def _options(recipe: Recipe, format: str) -> Export:
    return next(export for export in recipe.export if export.format == format)
