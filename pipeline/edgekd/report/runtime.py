"""Sentences on the operations that a runtime really runs, and in which type."""

from __future__ import annotations

from collections.abc import Iterator

from edgekd.report.words import count
from edgekd.results.models import ModelRecord
from edgekd.results.runtime import DefaultPrecision
from edgekd.runtimes import base


def in_float(model: ModelRecord) -> Iterator[str]:
    """Say what a runtime runs in float although the file is int8."""
    runtime = base.label(model.format)
    for found in model.runtime_graph.unexpected() if model.runtime_graph else ():
        where = f" ({', '.join(found.layers)})" if found.layers else ""
        why = found.reason or "the reason is not known"
        yield f"{runtime} runs {found.count} {found.operator}{where} in {found.precision} although the file is int8: {why}"


def without_hint(found: DefaultPrecision, noun: str) -> str:
    """Say why the precision hint matters, with both figures; ``noun`` is what one of the data is called."""
    parts = [
        f"an error of {_percent(error)} of the deviation of the output"
        + ("" if same is None else f" and the same class for {_percent(same)} of them")
        for error, same in ((found.error, found.agreement), (found.hinted_error, found.hinted_agreement))
    ]
    return (
        f"loaded without INFERENCE_PRECISION_HINT=f32, OpenVINO computes float layers in {found.precision} on this CPU: "
        f"against {found.reference} on {count(found.n)} test {noun}s {parts[0]}; with the hint, which the load snippet "
        f"sets, {parts[1]}"
    )


def _percent(share: float) -> str:
    return "less than 0.001 %" if 0 < share < 1e-5 else f"{100 * share:.3g} %"
