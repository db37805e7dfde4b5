"""export.FORMAT, export.FORMAT_float and export.FORMAT_PRECISION: one file for one runtime, from the one trained student."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from edgekd.assembly import figures, float_layers, graphs, launch, networks, samples
from edgekd.assembly.context import Context
from edgekd.assembly.outputs import ALL_INT8, ExportOutput, QuantizeOutput
from edgekd.assembly.stage import Node, Work
from edgekd.devices import targets
from edgekd.models.user_file import note_plugin
from edgekd.recipe import Recipe
from edgekd.recipe.export import Export, Precision, split_name, stage_name
from edgekd.registry import exporters
from edgekd.stages import quantize

if TYPE_CHECKING:
    from torch import fx, nn

    from edgekd.data.dataset import DataSet
    from edgekd.exporting.exporter import Exported, Exporter, Options, Source
    from edgekd.quantization.qat import Prepared
    from edgekd.task.base import Purpose


CALIBRATION = 128  # images that the ranges of int16 activations are from


def names(recipe: Recipe) -> tuple[str, ...]:
    """Export stages: each file that is asked for, an int8 one with its float twin; with int8, float ONNX first."""
    found = ["export.onnx_float"] if recipe.export and recipe.quantize else []
    for item in recipe.export:
        precision = recipe.precision_of(item)
        found.append(stage_name(item.format, precision))
        if precision == "int8":
            found.append(stage_name(item.format, "float32"))
    return tuple(dict.fromkeys(found))


def activations(recipe: Recipe) -> Literal["uint8", "int8"]:
    """The type of activations in an int8 ONNX file: what the recipe says, or what its devices compute with."""
    chosen = next((item.activations for item in recipe.export if item.format == "onnx" and item.activations), None)
    return chosen or targets.onnx_activations_for(targets.of(recipe))


def zero_points(recipe: Recipe) -> Literal["biases", "activations"]:
    """Return the place of an int8 OpenVINO file's zero points: as the recipe has it, or as its devices can load it."""
    chosen = next((item.zero_points for item in recipe.export if item.format == "openvino" and item.zero_points), None)
    return chosen or targets.openvino_zero_points_for(targets.of(recipe))


def _check(exported: Exported, model: Source, images: DataSet, options: Options) -> None:
    """Run a new file on one training sample in its own runtime."""
    from edgekd.exporting.outputs import run_once

    sample = model.example if not len(images.train) else quantize.calibration_images(images, 1)
    run_once(exported, model, options, sample)


def source(context: Context, purpose: Purpose, precision: Precision, *, all_int8: bool = False) -> Source:
    """The trained student as an exporter's input, with the weights that a file of ``precision`` holds.

    Args:
        context: A stage's, with those that trained and quantized the student among its inputs.
        purpose: What the student is for.
        precision: Of the file; the int8 graph is rebuilt from the quantize stage's state.
        all_int8: As it was before layers were given back to float.
    """
    from edgekd.exporting.exporter import Source
    from edgekd.quantization import qat
    from edgekd.quantization.rounded import rounded

    example, ports = graphs.example(purpose), graphs.ports(purpose)
    if precision != "int8":
        weights = context.inputs[networks.trained(context.recipe)] / "weights.safetensors"
        return Source(
            rounded(graphs.folded(context.graphs, context.recipe, purpose, weights), precision), example, ports=ports
        )
    prepared, student = quantized(context, purpose, all_int8=all_int8)

    def int8(fold_weights: bool) -> fx.GraphModule:
        return qat.convert(prepared.module, fold_weights=fold_weights)

    return Source(student, example, int8, prepared.float_ops, ports=ports)


def quantized(context: Context, purpose: Purpose, *, all_int8: bool = False) -> tuple[Prepared, nn.Module]:
    """The graph of the quantize stage with its ranges, and the float student that it was made from."""
    from edgekd.models import checkpoints
    from edgekd.quantization import qat

    weights = context.inputs[networks.trained(context.recipe)] / "weights.safetensors"
    graph = context.output(QuantizeOutput, "quantize").graph
    keep_float = () if all_int8 else graph.keep_float
    prepared, student = quantize.prepare(context.recipe, purpose, weights, graph.taps, keep_float, context.graphs)
    state = float_layers.ALL_INT8 if all_int8 else "weights.safetensors"
    qat.load_state(prepared.module, checkpoints.read(context.inputs["quantize"] / state))
    return prepared, student


def _options(recipe: Recipe, format: str) -> Export:
    return next(export for export in recipe.export if export.format == format and recipe.precision_of(export) == "int8")


class ExportStage:
    """A file for one runtime."""

    name = "export"
    version = 15
    reused = True
    optional = True

    def nodes(self, recipe: Recipe) -> Iterator[Node]:
        """Yield one for each file."""
        for name in names(recipe) if recipe.student else ():
            trained = networks.trained(recipe)
            student = (trained, "quantize") if split_name(name)[1] == "int8" else (trained,)
            yield Node(name, self, (*student, *samples.made(recipe)), recipe)

    def work(self, recipe: Recipe) -> Work:
        """Write a file."""
        return Work.FILES

    def packages(self, name: str) -> tuple[str, ...]:
        """The exporter's packages, and torchao where the file is int8."""
        format, precision = split_name(name)
        exporter: Exporter = exporters.get(format)()
        return ("torch", "torchvision", *exporter.packages, *(("torchao",) if precision == "int8" else ()))

    def config(self, recipe: Recipe, name: str) -> dict[str, Any]:
        """The student's architecture (its weights come by the inputs), the format and its input and output type."""
        format, precision = split_name(name)
        value: dict[str, Any] = networks.model_config(recipe, "student") | {"format": format}
        if precision not in ("int8", "float32"):
            value["precision"] = precision
        if precision == "int8":
            value |= {"io": _options(recipe, format).io, "weight_bits": quantize.weight_bits(recipe)}
            if format == "onnx":
                value["activations"] = activations(recipe)
            if format == "openvino" and (chosen := zero_points(recipe)) != "biases":
                value["zero_points"] = chosen
        return value

    def run(self, context: Context) -> ExportOutput:
        """Write the model file(s)."""
        from edgekd.exporting.exporter import Options

        format, precision = split_name(context.name)
        recipe = context.recipe
        exporter: Exporter = exporters.get(format)()
        note_plugin(type(exporter))
        images = samples.images(context)
        launch.seed(recipe.seed, context.threads)
        artifact = context.name.removeprefix("export.")
        options = Options(
            precision=precision,
            io=_options(recipe, format).io if precision == "int8" else "float32",
            activations=activations(recipe),
            zero_points=zero_points(recipe),
            log=context.log,
        )

        def write(name: str, *, all_int8: bool = False) -> Exported:
            model = source(context, images.purpose, precision, all_int8=all_int8)
            if precision == "int16x8":
                model = replace(model, samples=quantize.calibration_images(images, CALIBRATION))
            exported = exporter.export(model, context.out / f"{name}{exporter.suffix}", options)
            _check(exported, model, images, options)
            return replace(exported, paths=tuple(Path(path.name) for path in exported.paths))

        file, companion = write(artifact), None
        if precision == "int8" and (context.inputs["quantize"] / float_layers.ALL_INT8).exists():
            work = partial(write, f"{artifact}{ALL_INT8}", all_int8=True)
            companion = figures.measured(context, f"what keep_float costs in {artifact}", work)
        return ExportOutput(file, companion)
