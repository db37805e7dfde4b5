"""Float operators in the graph that each runtime makes of a file, and OpenVINO's choice of precision.

Figures beside the verdict: where one cannot be had, the report says so, and the run goes on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekd.assembly.context import Context
from edgekd.assembly.figures import measured
from edgekd.assembly.outputs import ExportOutput
from edgekd.recipe.export import split_name
from edgekd.results.runtime import DefaultPrecision, RuntimeGraph

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import fx

    from edgekd.exporting.exporter import Exported

    Array = NDArray[np.float32]

IMAGES = 256
"""Test images for the load without a hint: a share of flipped classes of one in a hundred shows, in a second or two."""


@dataclass(frozen=True)
class Found:
    """Findings for a file; None where there are none or it was not inspected."""

    runtime_graph: RuntimeGraph | None = None
    default_precision: DefaultPrecision | None = None


def figures(
    context: Context, x: Mapping[str, NDArray[Any]], logits: Mapping[str, Array], references: Mapping[str, str],
    graph: fx.GraphModule | None, *, classes: bool,
) -> dict[str, Found]:  # fmt: skip
    """Return, by artifact, what was found.

    Args:
        context: A stage's, with the exports among its inputs.
        x: Test samples as a network takes them, by input of its files.
        logits: The primary output for them, by the name of a network or an artifact.
        references: The network that an artifact is compared with, by the artifact.
        graph: The int8 graph; None where nothing is quantized.
        classes: Whether the task has classes.
    """
    from edgekd.exporting.capture import captured

    found: dict[str, Found] = {}
    for name, reference in references.items():
        file = context.output(ExportOutput, f"export.{name}").file
        path = context.inputs[f"export.{name}"] / file.paths[0]
        inside, unhinted = None, None
        with captured(context.log, f"looking into {path.name}"):
            if graph is not None and split_name(name)[1] == "int8":
                inside = measured(context, f"{name}: what its runtime runs in float", partial(_graph, path, file, graph))
            if file.format == "openvino":
                compare = partial(
                    default_precision, path, file, x, reference, logits[reference], logits[name], classes=classes
                )
                unhinted = measured(context, f"{name}: its parity without the precision hint", compare)
        found[name] = Found(inside, unhinted)
    return found


def _graph(path: Path, file: Exported, graph: fx.GraphModule) -> RuntimeGraph:
    from edgekd.exporting import optimized
    from edgekd.quantization.naming import layer_path

    modules = {node.name: layer_path(node) for node in graph.graph.nodes}
    return optimized.look(path, file.format, graph, file.float_ops, modules)


def default_precision(
    path: Path, file: Exported, x: Mapping[str, NDArray[Any]], reference: str, exact: Array, hinted: Array, *, classes: bool
) -> DefaultPrecision | None:
    """Compare an OpenVINO file loaded as most code does, without a hint, with torch; None where the hint changes nothing.

    Args:
        path: The ``.xml``.
        file: What it is.
        x: Test samples, by input; the first ``IMAGES`` are taken.
        reference: Name of the torch network.
        exact: Its primary output.
        hinted: The file's with the hint, likewise.
        classes: Whether the task has classes.
    """
    import numpy as np

    from edgekd.exporting.outputs import from_file, samples, to_file
    from edgekd.runtimes import openvino

    session, precision = openvino.load_without_hint(path)
    if precision == "float32":
        return None
    n = min(len(exact), IMAGES)
    few = samples({name: value[:n] for name, value in x.items()})
    rows = [from_file(session.run(to_file(sample, file.inputs)), file.outputs)[file.outputs[0].name] for sample in few]
    found = apart(np.concatenate(rows), exact[:n], classes=classes)
    return DefaultPrecision(precision, reference, n, *found, *apart(hinted[:n], exact[:n], classes=classes))


def apart(output: Array, exact: Array, *, classes: bool) -> tuple[float | None, float]:
    """Top-1 agreement, None without classes, and the root mean square of the error over the exact output's deviation."""
    from edgekd.metrics.fidelity import relative_error

    same = float((output.argmax(axis=1) == exact.argmax(axis=1)).mean()) if classes else None
    return same, relative_error(exact, output, classes=classes)
