"""A file that edgekd did not make, as a call from images to outputs: its layout and its batch are read from the file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgekd.errors import ExportError, ModelError, cause_of
from edgekd.runtimes import base, tensorflow
from edgekd.task import primary
from edgekd.task.image_classification import logits_of

if TYPE_CHECKING:
    from edgekd.runtimes.base import Images

HINT = "correct teacher.model; see docs/distillation.md"


def opened(
    path: Path,
    format: str,
    image: tuple[int, int, int],
    threads: int = 1,
    signature: str | None = None,
    classes: int | None = None,
) -> Callable[[Images], Images]:
    """Load a classifier.

    Args:
        path: The file; for OpenVINO the .xml; for a SavedModel its folder.
        format: ``onnx``, ``tflite``, ``openvino``, ``keras`` or ``savedmodel``.
        image: Channels, height and width of an image.
        threads: Threads inside one operator.
        signature: Which one of a SavedModel.
        classes: Of the data, to tell the logits from other outputs.

    Returns:
        A call from float32 N×C×H×W to float32 N×classes; whole batches where the file takes them, else one by one.

    Raises:
        ModelError: It cannot be loaded, takes other images, or gives something else than N×classes; it has several outputs,
            and none or several may be the logits.
    """
    session: base.Session
    try:
        if format in tensorflow.FORMATS:
            session = tensorflow.Session(path, format, threads, signature)
        else:
            session = base.load(path, format, threads)
        output = primary.choose([(one.name, one.shape) for one in session.outputs], logits_of(classes), path.name).name
    except ExportError as error:
        raise ModelError(error.message, HINT) from error
    if len(session.inputs) != 1:
        listed = ", ".join(one.name for one in session.inputs) or "none"
        raise ModelError(f"{path.name} has {len(session.inputs)} inputs: {listed}", "give a file of one input, the images")
    (taken,) = session.inputs
    batch, *sides = taken.shape
    channels, height, width = image
    layouts = {False: (channels, height, width), True: (height, width, channels)}
    likely = format in tensorflow.FORMATS  # which is asked first, for a file may leave all sides open
    fitting = [last for last in (likely, not likely) if len(sides) == 3 and _fits(sides, layouts[last])]
    if not fitting:
        shown = "×".join("?" if side is None else str(side) for side in taken.shape)
        raise ModelError(
            f"{path.name} takes {shown}, and the recipe's images are {channels}×{height}×{width}",
            "correct data.image_size and data.channels, or give a file for these images",
        )
    channels_last = fitting[0]
    if batch not in (None, 1):
        raise ModelError(f"{path.name} takes batches of {batch} images", "give a file for one image, or for any number")

    def call(x: Images) -> Images:
        x = base.laid_out(x, "NHWC" if channels_last else "NCHW")
        rows = [x] if batch is None else [x[i : i + 1] for i in range(len(x))]
        try:
            outputs = [session.run({taken.name: row})[output] for row in rows]
        except Exception as error:  # each runtime raises its own kinds
            raise ModelError(f"{path.name} cannot run: {cause_of(error)}", HINT) from error
        if any(output.ndim != 2 for output in outputs):
            raise ModelError(f"{path.name} gives outputs of {outputs[0].ndim} dimensions, not N×classes", HINT)
        return np.concatenate(outputs).astype(np.float32)

    return call


def _fits(sides: list[int | None], wanted: tuple[int, ...]) -> bool:
    return all(side in (None, value) for side, value in zip(sides, wanted, strict=True))
