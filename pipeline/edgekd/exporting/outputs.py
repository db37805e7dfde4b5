"""Runs a file in its own runtime: its outputs, or in words why it has none that can be used."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgekd.errors import ExportError
from edgekd.exporting.capture import captured, summary
from edgekd.exporting.causes import explain
from edgekd.exporting.exporter import Exported, Options, Source
from edgekd.runtimes import base

Array = NDArray[np.float32]


def run(
    path: Path,
    format: str,
    inputs: Array,
    expected: Array,
    log: Path | None = None,
    advance: Callable[[], None] = lambda: None,
) -> Array:
    """Run a file on inputs (N, C, H, W), one after the other, and return its outputs.

    Args:
        path: The file to load.
        format: ``onnx``, ``tflite`` or ``openvino``.
        inputs: Preprocessed images, float32.
        expected: What the network gives for them in torch: the outputs have its shape, and are finite where it is.
        log: Takes what the runtime prints.
        advance: Called after each input.

    Raises:
        ExportError: The file cannot be loaded, cannot be run, or gives outputs of another shape, NaN or infinity.
    """
    try:
        with captured(log, f"loading {path.name}"):  # TensorFlow Lite greets
            session = base.load(path, format)
    except ExportError as error:  # its hint is for who gave the file
        raise ExportError(f"the file was written, but cannot be run: {error.message}") from error
    rows, layout = [], base.of(format).layout
    for index, (image, wanted) in enumerate(zip(inputs, expected, strict=True)):
        where = f"on image {index + 1} of {len(inputs)}"
        try:
            row = base.run_images(session, image[None], layout)
        except Exception as error:  # runtimes raise their own classes
            raise ExportError(f"{path.name} fails in its runtime {where}: {summary(error)}") from error
        if row.shape != (1, *wanted.shape):
            shape = (1, *wanted.shape)
            raise ExportError(f"{path.name} gives an output of shape {row.shape} {where}; in torch it is {shape}")
        if not np.isfinite(row).all() and np.isfinite(wanted).all():
            raise ExportError(
                f"{path.name} gives NaN or infinity {where}, where torch does not",
                "look for a division by a small number, a square root or an exponent before the output",
            )
        rows.append(row)
        advance()
    return np.concatenate(rows)


def run_once(exported: Exported, source: Source, options: Options, image: Array, expected: Array) -> None:
    """Run a file that was just written on one image: one that does not work fails here and not later.

    Converters write operators that no runtime has, and some of these are only noticed when they run.

    Args:
        exported: The file.
        source: What it was written from; its graph says where an operator is.
        options: How it was written.
        image: (1, C, H, W), preprocessed, float32.
        expected: What the network gives for it in torch, (1, classes).

    Raises:
        ExportError: Its runtime cannot load or run it, or it gives outputs of another shape, NaN or infinity.
    """
    path = exported.paths[0]
    try:
        run(path, exported.format, image, expected, options.log)
    except ExportError as error:
        if error.__cause__ is None:  # it runs, and gives what it should not
            raise
        graph = source.graph(options.precision)
        with captured(options.log, f"running {path.name}"):
            raise explain(error.__cause__, f"running {path.name}", exported.format, graph, options.log) from error
