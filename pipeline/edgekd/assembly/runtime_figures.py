"""Float operators in the graph that each runtime makes of a file, and OpenVINO's choice of precision.

Figures beside the verdict: where one cannot be had, the report says so, and the run goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekd.assembly.context import Context
from edgekd.assembly.figures import measured
from edgekd.recipe.export import split_name
from edgekd.results.codec import to_json
from edgekd.results.runtime import DefaultPrecision, RuntimeGraph

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import fx

    Array = NDArray[np.float32]

IMAGES = 256
"""Test images for the load without a hint: a share of flipped classes of one in a hundred shows, in a second or two."""
GRAPH, DEFAULT = "runtime_graph", "default_precision"  # fields of ModelRecord


def figures(
    context: Context, x: Array, logits: Mapping[str, Array], references: Mapping[str, str], graph: fx.GraphModule | None
) -> dict[str, Any]:
    """Return, by artifact, what was found.

    Args:
        context: A stage's, with the exports among its inputs.
        x: Test images as a network takes them, (N, C, H, W).
        logits: On them, N×classes, by the name of a network or an artifact.
        references: The network that an artifact is compared with, by the artifact.
        graph: The int8 graph; None where nothing is quantized.
    """
    from edgekd.exporting.capture import captured

    found: dict[str, Any] = {}
    for name, reference in references.items():
        exported = context.read(f"export.{name}", "exported.json")
        path, format = context.inputs[f"export.{name}"] / exported["paths"][0], exported["format"]
        asked: dict[str, tuple[str, Callable[[], Any]]] = {}
        if graph is not None and split_name(name)[1] == "int8":
            asked[GRAPH] = "what its runtime runs in float", partial(_graph, path, format, graph, exported)
        if format == "openvino":
            measure = partial(default_precision, path, x, reference, logits[reference], logits[name])
            asked[DEFAULT] = "its parity without the precision hint", measure
        for field, (what, ask) in asked.items():
            with captured(context.log, f"looking into {path.name}"):
                value = measured(context, f"{name}: {what}", ask)
            if value is not None:
                found.setdefault(name, {})[field] = to_json(value)
    return found


def _graph(path: Path, format: str, graph: fx.GraphModule, exported: Mapping[str, Any]) -> RuntimeGraph:
    from edgekd.exporting import optimized
    from edgekd.quantization.naming import layer_path

    modules = {node.name: layer_path(node) for node in graph.graph.nodes}
    return optimized.look(path, format, graph, exported.get("float_ops", ()), modules)


def default_precision(path: Path, x: Array, reference: str, exact: Array, hinted: Array) -> DefaultPrecision | None:
    """Compare an OpenVINO file loaded as most code does, without a hint, with torch; None where the hint changes nothing.

    Args:
        path: The ``.xml``.
        x: Test images, (N, C, H, W); the first ``IMAGES`` are taken.
        reference: Name of the torch network.
        exact: Its logits, N×classes.
        hinted: The file's with the hint, likewise.
    """
    from edgekd.runtimes import base, openvino

    session, precision = openvino.load_without_hint(path)
    if precision == "float32":
        return None
    n = min(len(x), IMAGES)
    agreement, error = apart(base.run_images(session, x[:n], openvino.OpenVino.layout), exact[:n])
    return DefaultPrecision(precision, reference, n, agreement, error, *apart(hinted[:n], exact[:n]))


def apart(logits: Array, exact: Array) -> tuple[float, float]:
    """Top-1 agreement, and the root mean square of the error over the deviation of the exact logits."""
    from edgekd.metrics.fidelity import relative_error

    return float((logits.argmax(axis=1) == exact.argmax(axis=1)).mean()), relative_error(exact, logits)
