"""``edgekd quantize`` and ``edgekd export``: a part of the chain for a model that is trained already, without a recipe."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from edgekd.cli.execute import execute
from edgekd.cli.options import (
    Size,
    debug_option,
    json_option,
    out_option,
    print_json,
    processes_option,
    set_option,
    threads_option,
    without_devices_option,
)


def _model(context: click.Context, parameter: click.Parameter, value: str) -> str:
    """See that MODEL names a torch module.

    Raises:
        RecipeError: It does not.
    """
    from edgekd.engine.compose import check_model

    return check_model(f"edgekd {context.command.name}", value)


def model_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options of both commands: the model, its weights, its preprocessing, the folder of the result."""
    for decorate in reversed((
        click.argument("model", is_eager=True, callback=_model),  # first: nothing else helps where it cannot be
        click.option("--weights", required=True, type=click.Path(path_type=Path),
                     help="Trained weights: a .safetensors file, or one of torch.save; FILE#SET where it has several sets."),
        click.option("--size", type=Size(), metavar="PIXELS|HxW",
                     help="Size of the images in pixels: one number for height and width, or both, such as 48x64.  "
                          "[default: 224; 32 for a named data set]"),
        click.option("--channels", type=click.Choice(["1", "3"]), default="3", show_default=True,
                     help="Channels of the images."),
        click.option("--normalize", metavar="HOW",
                     help="Normalization of the images in the model's training: imagenet, half (mean and deviation 0.5), "
                          "none (0 to 1), MEAN/STD such as 0.5,0.5,0.5/0.25,0.25,0.25, or data (mean and deviation of these "
                          "images).  [default: data, unless the labels show another; required without labels]"),
        click.option("--classes", type=click.IntRange(2),
                     help="Number of classes, for images without labels.  [default: as in the weights]"),
    )):  # fmt: skip
        command = decorate(command)
    return command


def run_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Last options of both commands."""
    device = click.option("--device", "devices", multiple=True, metavar="NAME",
                          help="Measure the files on this device: host, a name of `edgekd devices`, or the path of its "
                               "file; repeatable.  [default: not measured]")  # fmt: skip
    only = click.option("--recipe-only", is_flag=True, help="Print the recipe that would be run, and stop.")
    for decorate in reversed(
        (
            device,
            without_devices_option,
            out_option("build"),
            set_option,
            only,
            threads_option,
            json_option,
            debug_option,
        )
    ):
        command = decorate(command)
    return command


@click.command(short_help="Make int8 files of a trained model, and compare each with the model.")
@model_options
@click.option("--data", required=True, metavar="IMAGES",
              help="Calibration and test images: a folder (CLASS/*.png, train/ and test/ in it, or images alone), an .npz "
                   "file, or the name of a data set (edgekd list data). Without test/ and val/ a fifth of a folder is for "
                   "the test.")  # fmt: skip
@click.option(
    "--method", type=click.Choice(["ptq", "qat"]), help="ptq: calibrate. qat: train.  [default: ptq; qat with --epochs]"
)
@click.option("--epochs", type=click.IntRange(1), help="Epochs of qat.  [default: 2]")
@click.option(
    "--format",
    "--formats",
    "formats",
    multiple=True,
    help="Format of a file (edgekd list formats); repeatable.  [default: all formats that have int8]",
)
@click.option("--io", type=click.Choice(["float32", "int8"]),
              help="Type of the input and the output of formats that have both, such as TFLite.  "
                   "[default: float32]")  # fmt: skip
@processes_option
@run_options
def quantize(
    model: str,
    data: str,
    method: str | None,
    epochs: int | None,
    formats: Sequence[str],
    io: str | None,
    devices: Sequence[str],
    **rest: Any,
) -> int:
    """Make int8 files of a trained model, and compare each with the model.

    MODEL is torchvision:NAME, timm:NAME, edgekd:NAME or FILE.py:CALLABLE. Each file is run on the test images in its own
    runtime and compared with torch; a float file of each format is written for comparison.

    \b
      edgekd quantize net.py:Net --weights best.pt --data images/
      edgekd quantize torchvision:resnet18 --weights best.pt --data images/ --normalize imagenet
      edgekd quantize net.py:Net --weights best.pt --data images/ --epochs 3 --formats tflite --device host
      edgekd quantize net.py:Net --weights best.pt --data images/ --size 48x64 --format tflite --io int8

    --recipe-only prints the recipe of this command. Save it and add a teacher: then `edgekd run` distills as well.

    Exit codes: as of `edgekd run`.
    """
    from edgekd.engine.compose import quantize_sections

    return _run("edgekd quantize", model, data, quantize_sections(method, epochs, formats, io, devices), **rest)


@click.command(short_help="Write a trained model to files without int8 activations.")
@model_options
@click.option("--data", metavar="IMAGES",
              help="Images to compare the files on: as in `edgekd quantize`.  [default: random ones]")  # fmt: skip
@click.option(
    "--format",
    "--formats",
    "formats",
    multiple=True,
    help="Format of a file: onnx, tflite, openvino (edgekd list formats); repeatable.  [default: onnx]",
)
@click.option("--precision", "precisions", multiple=True,
              help="Precision of the files: float32, float16 (fp32, fp16), dynamic, int8-weights, int4-weights or int16x8, "
                   "where the format has it; repeatable.  [default: float32]")  # fmt: skip
@run_options
def export(
    model: str, data: str | None, formats: Sequence[str], precisions: Sequence[str], devices: Sequence[str], **rest: Any
) -> int:
    """Write a trained model to files without int8 activations, and compare them with torch.

    MODEL is torchvision:NAME, timm:NAME, edgekd:NAME or FILE.py:CALLABLE. No images are needed.

    \b
      edgekd export torchvision:resnet18 --weights best.pt --format onnx --format tflite
      edgekd export net.py:Net --weights best.pt --size 96 --format openvino --precision fp16

    Exit codes: as of `edgekd run`.
    """
    from edgekd.engine.compose import export_sections

    return _run("edgekd export", model, data, export_sections(formats, precisions, devices), **rest)


def _run(  # each parameter after the sections is an option that both commands have
    command: str, model: str, data: str | None, sections: dict[str, Any], *, weights: Path,
    size: int | tuple[int, int] | None, channels: str, normalize: str | None, classes: int | None, out: Path,
    overrides: Sequence[str], recipe_only: bool, threads: int | None, as_json: bool, debug: bool, without_devices: bool,
    processes: int = 1,
) -> int:  # fmt: skip
    from edgekd.engine import compose

    given = compose.Given(
        command, model, weights, data, size, int(channels), normalize, classes, sections, overrides
    )  # fmt: skip
    with compose.in_options(given):
        loaded, text = compose.load(given)
        if recipe_only and as_json:
            import yaml

            print_json({"recipe": yaml.safe_load(text)})
            return 0
        if recipe_only:
            click.echo(text, nl=False)
            return 0
        return execute(loaded, out, processes=processes, threads=threads, as_json=as_json, without_devices=without_devices)
