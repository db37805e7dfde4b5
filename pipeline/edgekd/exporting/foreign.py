"""A file that edgekd did not make, as a call from images to outputs: its layout and its batch are read from the file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from edgekd.errors import ExportError, ModelError, cause_of
from edgekd.runtimes import sessions, tensorflow
from edgekd.runtimes.sessions import Array
from edgekd.task import logits

HINT = "correct teacher.model; see docs/distillation.md"


def opened(
    path: Path,
    format: str,
    image: tuple[int, int, int],
    threads: int = 1,
    signature: str | None = None,
    classes: int | None = None,
) -> Callable[[Array], Array]:
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
    session: sessions.Session
    try:
        if format in tensorflow.FORMATS:
            session = tensorflow.Session(path, format, threads, signature)
        else:
            session = sessions.load(path, format, threads)
            session.output = logits.choose(session.outputs, classes, path.name).index
    except ExportError as error:
        raise ModelError(error.message, HINT) from error
    batch, *sides = session.input_shape
    channels, height, width = image
    layouts = {False: (channels, height, width), True: (height, width, channels)}
    likely = format in tensorflow.FORMATS  # which is asked first, for a file may leave all sides open
    fitting = [last for last in (likely, not likely) if len(sides) == 3 and _fits(sides, layouts[last])]
    if not fitting:
        taken = "×".join("?" if side is None else str(side) for side in session.input_shape)
        raise ModelError(
            f"{path.name} takes {taken}, and the recipe's images are {channels}×{height}×{width}",
            "correct data.image_size and data.channels, or give a file for these images",
        )
    channels_last = fitting[0]
    if batch not in (None, 1):
        raise ModelError(f"{path.name} takes batches of {batch} images", "give a file for one image, or for any number")
    # TensorFlow Lite's session turns N×C×H×W into N×H×W×C by itself: what must not be turned is turned back.
    order = {(True, False): (0, 2, 3, 1), (False, True): (0, 3, 1, 2)}.get((channels_last, format == "tflite"))

    def call(x: Array) -> Array:
        x = np.ascontiguousarray(x if order is None else x.transpose(order))
        try:
            outputs = [session.run(x)] if batch is None else [session.run(x[i : i + 1]) for i in range(len(x))]
        except Exception as error:  # each runtime raises its own kinds
            raise ModelError(f"{path.name} cannot run: {cause_of(error)}", HINT) from error
        if any(output.ndim != 2 for output in outputs):
            raise ModelError(f"{path.name} gives outputs of {outputs[0].ndim} dimensions, not N×classes", HINT)
        return np.concatenate(outputs).astype(np.float32)

    return call


def _fits(sides: list[int | None], wanted: tuple[int, ...]) -> bool:
    return all(side in (None, value) for side, value in zip(sides, wanted, strict=True))
