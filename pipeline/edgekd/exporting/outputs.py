"""Runs a file in its own runtime: its outputs, or in words why it has none that can be used."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.errors import ExportError
from edgekd.exporting.capture import captured, summary
from edgekd.exporting.causes import explain
from edgekd.exporting.exporter import Exported, Options, Source
from edgekd.results.models import FilePort
from edgekd.runtimes import base
from edgekd.task.named import Inputs, in_order

Array = NDArray[Any]
Arrays = Mapping[str, Array]


def samples(inputs: Arrays) -> Iterator[dict[str, Array]]:
    """Yield the samples of inputs, each with a first dimension of 1."""
    for index in range(min(map(len, inputs.values()))):
        yield {name: value[index : index + 1] for name, value in inputs.items()}


def to_file(sample: Arrays, ports: Sequence[FilePort]) -> dict[str, Array]:
    """Return inputs of a network in the layout, and integers in the type, that a file takes; floats stay floats."""
    turned = {port.name: sample[port.name].transpose(0, 2, 3, 1) for port in ports if port.layout == "NHWC"}
    types = {port.name: port.dtype if port.scale is None else "float32" for port in ports}
    return {name: np.ascontiguousarray(turned.get(name, sample[name]), dtype=dtype) for name, dtype in types.items()}


def from_file(given: Arrays, ports: Sequence[FilePort]) -> dict[str, Array]:
    """Return outputs of a file in the layout of the network."""
    turned = {port.name: given[port.name].transpose(0, 3, 1, 2) for port in ports if port.layout == "NHWC"}
    return {port.name: turned.get(port.name, given[port.name]) for port in ports}


def run(
    exported: Exported,
    inputs: Arrays,
    expected: Arrays,
    log: Path | None = None,
    advance: Callable[[], None] = lambda: None,
) -> dict[str, Array]:
    """Run a file on samples, one after the other, and return its outputs by name.

    Args:
        exported: The file.
        inputs: As the network takes them: preprocessed, images N×C×H×W.
        expected: What the network gives for them in torch: the outputs have its shapes, and are finite where it is.
        log: Takes what the runtime prints.
        advance: Called after each sample.

    Raises:
        ExportError: The file cannot be loaded, cannot be run, or gives outputs of another shape, NaN or infinity.
    """
    path = exported.paths[0]
    try:
        with captured(log, f"loading {path.name}"):  # TensorFlow Lite greets
            session = base.load(path, exported.format)
    except ExportError as error:  # its hint is for who gave the file
        raise ExportError(f"the file was written, but cannot be run: {error.message}") from error
    rows: dict[str, list[Array]] = {port.name: [] for port in exported.outputs}
    given = [*samples(inputs)]
    for index, (sample, wanted) in enumerate(zip(given, samples(expected), strict=True)):
        where = f"on sample {index + 1} of {len(given)}"
        try:
            found = from_file(session.run(to_file(sample, exported.inputs)), exported.outputs)
        except Exception as error:  # runtimes raise their own classes
            raise ExportError(f"{path.name} fails in its runtime {where}: {summary(error)}") from error
        for name, row in found.items():
            _check(path.name, name if len(found) > 1 else "", row, wanted[name], where)
            rows[name].append(row)
        advance()
    return {name: np.concatenate(parts) for name, parts in rows.items()}


def _check(file: str, name: str, row: Array, wanted: Array, where: str) -> None:
    """Compare the shape of an output with torch's, and see that it is finite.

    Raises:
        ExportError: It is not.
    """
    what = f"an output {name}" if name else "an output"
    if row.shape != wanted.shape:
        raise ExportError(f"{file} gives {what} of shape {row.shape} {where}; in torch it is {wanted.shape}")
    if not np.isfinite(row).all() and np.isfinite(wanted).all():
        raise ExportError(
            f"{file} gives NaN or infinity {f'in {name} ' if name else ''}{where}, where torch does not",
            "look for a division by a small number, a square root or an exponent before the output",
        )


def run_once(exported: Exported, source: Source, options: Options, sample: Inputs) -> None:
    """Run a file that was just written on one sample: one that does not work fails here and not later.

    Converters write operators that no runtime has, and some of these are only noticed when they run.

    Args:
        exported: The file.
        source: What it was written from; its graph says where an operator is.
        options: How it was written.
        sample: As the network takes it.

    Raises:
        ExportError: Its runtime cannot load or run it, or it gives outputs of another shape, NaN or infinity.
    """
    path = exported.paths[0]
    arrays = {name: value.numpy() for name, value in in_order(source.model, sample).items()}
    try:
        run(exported, arrays, source.expected(sample), options.log)
    except ExportError as error:
        if error.__cause__ is None:  # it runs, and gives what it should not
            raise
        graph = source.graph(options.precision)
        with captured(options.log, f"running {path.name}"):
            raise explain(error.__cause__, f"running {path.name}", exported.format, graph, options.log) from error
